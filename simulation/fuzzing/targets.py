"""Every decoder of the protocol, and every step that reads what others have written.

A decoder may return a value whose encoding is the very bytes it was given, or raise a `FederationError`. A step may
take its input or raise a `FederationError`. Messages under a signature are changed first and then signed, so that what
stands behind the signature is reached.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import audit, binary, canonical, packing, rec_id
from protocol.announcement import Announcement
from protocol.bundle import CARD, Entry, FileDigest, Manifest
from protocol.card import BundleCard, CatalogueCard
from protocol.enrolment import EnrolmentAnswer, EnrolmentRequest, Token
from protocol.epoch import EpochCall, PairRoot, Prekey
from protocol.epoch_keys import EpochKeys
from protocol.errors import MalformedMessageError
from protocol.fixed_point import Segment, words_of
from protocol.identity import EdgeId, Label, Roster, sign
from protocol.masked_update import EdgeRound
from protocol.messages import Abandonment, MaskedUpdate, Survivors, SurvivorSignature, Unmasking, UnmaskRequest
from protocol.privacy import Privacy
from protocol.release import Offer, Pace, Place
from protocol.rings import RingPolicy
from protocol.secure_sum import Phase
from simulation.fuzzing.mutations import Rng, changed_bytes, changed_value, happens, pick, written
from simulation.vectors.known_round import (
    CALL,
    CENTER,
    FEDERATION,
    LAYOUT,
    NAMES,
    OFFLINE,
    ROSTER,
    SURVIVORS,
    KnownRound,
    begun,
    prekeys,
    seed,
    signing_key,
)

BERGEN, BRUGES, LUEBECK, VISBY = NAMES
_MOST_WORDS = 1 << 12
_PLAIN = 7
"""One input in so many is changed as bytes only, signature and all."""
WIDTHS = (Segment(name="a", length=9, bound=1.0, bits=20), Segment(name="b", length=3, bound=1.0, bits=13), LAYOUT[2])


@dataclass(frozen=True, kw_only=True)
class Target:
    """One thing to try.

    Attributes:
        samples: valid inputs.
        take: decodes; returns the encoding of what it got, or None where there is none to compare.
        change: makes an input of a valid one.
    """

    name: str
    samples: Sequence[bytes]
    take: Callable[[bytes], bytes | None]
    change: Callable[[bytes, Rng], bytes]


def _raw(name: str, samples: Sequence[bytes], take: Callable[[bytes], bytes | None]) -> Target:
    """A message of bytes."""
    return Target(
        name=name, samples=samples, take=take, change=lambda data, rng: changed_bytes(data, rng, others=samples)
    )


def _json(name: str, samples: Sequence[bytes], take: Callable[[bytes], bytes | None]) -> Target:
    """An unsigned JSON value."""

    def change(data: bytes, rng: Rng) -> bytes:
        if happens(rng, one_in=_PLAIN):
            return changed_bytes(data, rng, others=samples)
        return written(changed_value(_loads(data), rng), rng)

    return Target(name=name, samples=samples, take=take, change=change)


def _loads(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return {}


def _signed(
    name: str,
    samples: Sequence[bytes],
    take: Callable[[bytes], bytes | None],
    *,
    label: Label,
    key: Ed25519PrivateKey,
) -> Target:
    """A signed document: its content is changed and signed anew."""

    def change(data: bytes, rng: Rng) -> bytes:
        if happens(rng, one_in=_PLAIN):
            return changed_bytes(data, rng, others=samples)
        document = _loads(data)
        content = document.get("content") if isinstance(document, dict) else None
        if happens(rng, one_in=20):
            return written(changed_value(document, rng), rng)
        content = changed_value(content, rng)
        try:
            signature = sign(label, canonical.encode(content), key=key).hex()
        except MalformedMessageError:
            return b"{}"
        return written({"content": content, "signature": signature}, rng)

    return Target(name=name, samples=samples, take=take, change=change)


def all_targets() -> list[Target]:
    """Decoders first, then the steps of a round."""
    known = KnownRound.record()
    return [*_binary(known), *_documents(known), *_kept(known), *_enrolment(), *_releases(), *_steps(known)]


def _binary(known: KnownRound) -> Iterator[Target]:
    updates = [update for _, update in known.masked.values()]
    yield _raw("MaskedUpdate", updates, lambda data: MaskedUpdate.from_bytes(data).to_bytes())
    signatures = [signature for _, signature in known.signed.values()]
    yield _raw("SurvivorSignature", signatures, lambda data: SurvivorSignature.from_bytes(data).to_bytes())
    requests = list(known.requests.values())
    yield _raw("UnmaskRequest", requests, lambda data: UnmaskRequest.from_bytes(data).to_bytes())
    opened = [unmasking for _, unmasking in known.unmasked.values()]
    yield _raw("Unmasking", opened, lambda data: Unmasking.from_bytes(data).to_bytes())
    yield _raw("Abandonment", [_abandonment(known)], lambda data: Abandonment.from_bytes(data).to_bytes())
    joined = [prekeys(), binary.join([]), binary.join([b"", b"a"]), binary.join(updates)]
    yield _raw("binary.split", joined, lambda data: binary.join(binary.split(data)))
    rng = np.random.default_rng(0)
    for layout in (LAYOUT, WIDTHS):
        words = rng.integers(0, 2**32, words_of(layout), dtype=np.uint32)
        bits = "+".join(str(segment.bits) for segment in layout)
        yield _raw(f"packing.unpack {bits}", [packing.pack(words, layout=layout)], _repacked(layout))
    texts = [known.announcement.sign(CENTER), b'{"a":[1,-2,0.5,null,true,"x"]}', b"[]", b'""']
    yield _json("canonical.decode", texts, lambda data: canonical.encode(canonical.decode(data)))


def _repacked(layout: tuple[Segment, ...]) -> Callable[[bytes], bytes]:
    return lambda data: packing.pack(packing.unpack(data, layout=layout), layout=layout)


def _abandonment(known: KnownRound) -> bytes:
    return Abandonment.signed(known.announcement.digest(), edge=BERGEN, key=signing_key(BERGEN)).to_bytes()


def _announcements(known: KnownRound) -> list[bytes]:
    private = Privacy(noise_multiplier=1.0, user_clip=0.5, colluders=1)
    same = replace(known.announcement, privacy=private, layout=(replace(LAYOUT[0], bits=32),))
    return [known.announcement.sign(CENTER), same.sign(CENTER)]


def _documents(known: KnownRound) -> Iterator[Target]:
    public = CENTER.public_key()
    yield _signed(
        "Announcement",
        _announcements(known),
        lambda data: Announcement.open(data, key=public).sign(CENTER),
        label=Label.ANNOUNCEMENT,
        key=CENTER,
    )
    yield _signed(
        "EpochCall",
        [CALL.sign(CENTER)],
        lambda data: EpochCall.open(data, key=public).sign(CENTER),
        label=Label.EPOCH,
        key=CENTER,
    )
    yield _signed(
        "Survivors",
        [known.survivors, Survivors(announcement=bytes(32), edges=()).sign(CENTER)],
        lambda data: Survivors.open(data, key=public).sign(CENTER),
        label=Label.SURVIVORS,
        key=CENTER,
    )
    yield _signed(
        "Prekey",
        [begun(BERGEN).published],
        lambda data: Prekey.open(data, call=CALL, roster=ROSTER).sign(signing_key(BERGEN)),
        label=Label.PREKEY,
        key=signing_key(BERGEN),
    )
    yield _signed(
        "PairRoot",
        binary.split(known.roots[BERGEN]),
        lambda data: PairRoot.open(data, roster=ROSTER).sign(signing_key(BERGEN)),
        label=Label.PAIR_ROOT,
        key=signing_key(BERGEN),
    )
    many = [replace(ROSTER.members[0], edge=EdgeId(f"e{number:02}")) for number in range(24)]
    grouped = Roster.of(FEDERATION, 3, many, groups=[[m.edge for m in many[part::3]] for part in range(3)])
    yield _signed(
        "Roster",
        [ROSTER.sign(OFFLINE), grouped.sign(OFFLINE)],
        lambda data: Roster.open(data, key=OFFLINE.public_key(), federation=FEDERATION).sign(OFFLINE),
        label=Label.ROSTER,
        key=OFFLINE,
    )


def _kept(known: KnownRound) -> Iterator[Target]:
    """What an edge reads back from its own disk."""
    keys = [begun(BRUGES).to_bytes(), known.dealt[BRUGES].to_bytes(), known.keys[BRUGES].to_bytes()]
    yield _json("EpochKeys", keys, lambda data: EpochKeys.from_bytes(data).to_bytes())
    turns = [stage[BERGEN][0].to_bytes() for stage in (known.masked, known.signed, known.unmasked)]
    yield _json("EdgeRound", turns, lambda data: EdgeRound.from_bytes(data).to_bytes())


def _enrolment() -> Iterator[Target]:
    token = Token(
        federation=FEDERATION,
        site=BERGEN,
        gateway="https://center.example:8443",
        authority=seed("authority"),
        roster_key=OFFLINE.public_key().public_bytes_raw(),
        center_key=CENTER.public_key().public_bytes_raw(),
        root_sha256=seed("root"),
        secret=seed("secret"),
    )
    # White space in a pasted token is forgiven, on purpose; so inputs are compared without it.
    yield _raw("Token", [token.to_text().encode()], _token)
    request = EnrolmentRequest(member=ROSTER.members[0], certificate_request="PEM")
    key = signing_key(BERGEN)

    def change(data: bytes, rng: Rng) -> bytes:
        if happens(rng, one_in=_PLAIN):
            return changed_bytes(data, rng)
        content = changed_value(_loads(data).get("content"), rng)
        try:
            proof = key.sign(b"hanse/1 enrolment\0" + canonical.encode(content)).hex()
        except MalformedMessageError:
            return b"{}"
        document = {"content": content, "proof": proof}
        return written(changed_value(document, rng) if happens(rng, one_in=5) else document, rng)

    yield Target(
        name="EnrolmentRequest",
        samples=[request.sign(key)],
        take=lambda data: EnrolmentRequest.open(data).sign(key),
        change=change,
    )
    answer = EnrolmentAnswer(certificate="PEM", root="{}", broker_host="center.example", broker_port=8883)
    yield _json("EnrolmentAnswer", [answer.to_bytes()], lambda data: EnrolmentAnswer.from_bytes(data).to_bytes())


def _token(data: bytes) -> bytes:
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        raise MalformedMessageError("not text") from error
    again = Token.from_text(text).to_text()
    return data if again == "".join(text.split()) else again.encode()


def _releases() -> Iterator[Target]:
    digest = FileDigest.of(b"content")
    files = {"weights.npz": digest, "tables/items.bin": FileDigest.of(b"items")}
    manifest = Manifest(
        files={path: Entry(file=f, blocks=(digest.sha256,)) for path, f in {CARD: digest, **files}.items()}
    )
    yield _json("Manifest", [manifest.to_bytes()], lambda data: Manifest.from_bytes(data).to_bytes())
    bundle = BundleCard(
        version=3,
        federation=FEDERATION,
        created_ms=1,
        catalogue_version=2,
        catalogue_sha256=digest.sha256,
        submodels={"recommend": {"items": 3}},
        training={"rounds": 2},
        evaluation={"ndcg": 0.1},
        files=files,
    )
    yield _json("BundleCard", [bundle.to_bytes()], lambda data: BundleCard.from_bytes(data).to_bytes())
    catalogue = CatalogueCard(version=1, items=3, bytes_unpacked=40, files=files)
    yield _json("CatalogueCard", [catalogue.to_bytes()], lambda data: CatalogueCard.from_bytes(data).to_bytes())
    offer = Offer(
        place=Place.CANARY,
        version=8,
        sha256=digest.sha256,
        bytes=9,
        submodels=("recommend",),
        evaluation={"ndcg": "0.1"},
    )
    yield _json("Offer", [canonical.encode(offer.to_custom())], _custom(offer.target, Offer.from_custom))
    pace = Pace(version=8, reach=2_500)
    yield _json("Pace", [canonical.encode(pace.to_custom())], _custom(pace.target, Pace.from_custom))
    rings = RingPolicy.of(FEDERATION, 3, canary=[BERGEN, BRUGES], early=[VISBY])
    yield _signed(
        "RingPolicy",
        [rings.sign(OFFLINE)],
        lambda data: RingPolicy.open(data, key=OFFLINE.public_key(), federation=FEDERATION).sign(OFFLINE),
        label=Label.RINGS,
        key=OFFLINE,
    )
    name = rec_id.make(version=8, sha256=digest.sha256, drawn=bytes(8))
    yield _raw("rec_id", [name.encode()], _rec_id)
    first = audit.Entry.after(None, time_ms=1, kind="founded", facts={"federation": FEDERATION})
    entries = [first, audit.Entry.after(first, time_ms=2, kind="release signed", facts={"version": 8})]
    yield _json(
        "audit.Entry", [entry.to_bytes() for entry in entries], lambda data: audit.Entry.from_bytes(data).to_bytes()
    )


def _custom(name: str, read: Callable[[str, Any], Offer | Pace]) -> Callable[[bytes], None]:
    """Custom fields of a target come to us decoded; fields more are TUF's to sign and ours to pass over."""

    def take(data: bytes) -> None:
        read(name, canonical.decode(data)).to_custom()

    return take


def _rec_id(data: bytes) -> None:
    rec_id.parse(data.decode("utf-8", errors="replace"))


def _steps(known: KnownRound) -> Iterator[Target]:
    """What edge and center do with a message that is well signed and says anything at all."""
    public = CENTER.public_key()

    def accept(data: bytes) -> None:
        turn = known.accept(BERGEN, data)
        asked = turn.announcement
        if words_of(asked.layout) > _MOST_WORDS:
            return  # an edge's policy has a limit of its own
        nothing = {segment.name: np.zeros(segment.length, np.float32) for segment in asked.layout}
        secrets = known.keys[BERGEN].at_round(asked.round)[1]
        turn.mask(nothing, secrets=secrets, identity_key=signing_key(BERGEN), entropy=seed("entropy"))

    yield _signed("edge: accept and mask", _announcements(known), accept, label=Label.ANNOUNCEMENT, key=CENTER)

    def deal(data: bytes) -> None:
        papers = [begun(edge).published for edge in (BERGEN, LUEBECK, VISBY)]
        begun(BERGEN).deal(
            binary.join([papers[0], data, *papers[1:]]),
            roster=ROSTER,
            identity_key=signing_key(BERGEN),
            randomness=seed("randomness"),
        )

    yield _signed("edge: deal roots", [begun(BRUGES).published], deal, label=Label.PREKEY, key=signing_key(BRUGES))

    def keep(data: bytes) -> None:
        known.dealt[LUEBECK].keep(binary.join([data]), roster=ROSTER)

    roots = [root for root in binary.split(known.roots[BERGEN]) if b'"receiver":"luebeck"' in root]
    yield _signed("edge: keep roots", roots, keep, label=Label.PAIR_ROOT, key=signing_key(BERGEN))

    def survivors(data: bytes) -> None:
        known.masked[BERGEN][0].sign_survivors(data, center=public, identity_key=signing_key(BERGEN))

    yield _signed("edge: sign survivors", [known.survivors], survivors, label=Label.SURVIVORS, key=CENTER)
    yield _raw("edge: unmask", [known.requests[BERGEN]], _unmask(known))
    for name, phase, answer, parts in _answers(known):
        yield _resigned(f"center: {name}", answer, parts, _receive(known, phase))


def _unmask(known: KnownRound) -> Callable[[bytes], None]:
    def take(data: bytes) -> None:
        known.unmask(BERGEN, known.survivors, data)

    return take


def _receive(known: KnownRound, phase: Phase) -> Callable[[bytes], None]:
    before = {Phase.MASKING: known.uploading, Phase.SIGNING: known.signing, Phase.UNMASKING: known.unmasking}[phase]
    stages = {Phase.MASKING: known.masked, Phase.SIGNING: known.signed, Phase.UNMASKING: known.unmasked}

    def take(data: bytes) -> None:
        round_ = before.receive(BERGEN, phase, data)
        for edge in SURVIVORS[1:]:
            round_ = round_.receive(edge, phase, stages[phase][edge][1])
        round_.close_phase()

    return take


def _answers(known: KnownRound) -> Iterator[tuple[str, Phase, bytes, Callable[[bytes, Rng], bytes]]]:
    key = signing_key(BERGEN)

    def update(data: bytes, rng: Rng) -> bytes:
        said = MaskedUpdate.from_bytes(data)
        parts: dict[str, Any] = {
            "announcement": said.announcement,
            "packed": bytes(said.packed),
            "commitments": b"".join(said.commitments),
            "sealed": bytes(said.sealed),
        }
        field = pick(rng, list(parts))
        parts[field] = changed_bytes(parts[field], rng)
        commitments = parts.pop("commitments")
        each = [commitments[start : start + 32] for start in range(0, len(commitments), 32)]
        return MaskedUpdate.signed(**parts, commitments=each, edge=said.edge, key=key).to_bytes()

    def signature(data: bytes, rng: Rng) -> bytes:
        said = SurvivorSignature.from_bytes(data)
        edges = pick(rng, (NAMES, SURVIVORS, NAMES[1:], ()))
        announcement = pick(rng, (said.announcement, changed_bytes(said.announcement, rng)))
        named = Survivors(announcement=announcement, edges=edges)
        return SurvivorSignature.signed(named, edge=pick(rng, NAMES), key=key).to_bytes()

    def unmasking(data: bytes, rng: Rng) -> bytes:
        said = Unmasking.from_bytes(data)
        shares = changed_bytes(b"".join(said.shares), rng)
        return Unmasking.signed(
            announcement=said.announcement,
            edge=said.edge,
            survivors=pick(rng, (said.survivors, said.survivors, changed_bytes(said.survivors, rng))),
            shares=[shares[start : start + 32] for start in range(0, len(shares), 32)],
            key=key,
        ).to_bytes()

    yield "masked update", Phase.MASKING, known.masked[BERGEN][1], update
    yield "survivor signature", Phase.SIGNING, known.signed[BERGEN][1], signature
    yield "unmasking", Phase.UNMASKING, known.unmasked[BERGEN][1], unmasking


def _resigned(name: str, answer: bytes, change: Callable[[bytes, Rng], bytes], take: Callable[[bytes], None]) -> Target:
    def either(data: bytes, rng: Rng) -> bytes:
        return changed_bytes(data, rng) if happens(rng, one_in=_PLAIN) else change(answer, rng)

    return Target(name=name, samples=[answer], take=take, change=either)
