"""The known round with one fault in it, and the error that has to come of it: one vector a fault.

Each fault names the step that must refuse it. Whoever takes the step stands where the known round has left it just
before: an edge has its keys, has masked, has signed; the center has heard the stages before.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from protocol import binary, canonical
from protocol.epoch import PairRoot, Prekey
from protocol.epoch_keys import MOST_STEPS_AHEAD
from protocol.identity import EdgeId, FederationId, Label, Member, Roster, sign_document
from protocol.messages import MaskedUpdate, Survivors, SurvivorSignature, Unmasking, UnmaskRequest, sealed_share
from simulation.vectors.known_round import (
    CALL,
    CENTER,
    FEDERATION,
    NAMES,
    NOW_MS,
    OFFLINE,
    ROSTER,
    ROUND,
    SURVIVORS,
    KnownRound,
    begun,
    seed,
    signing_key,
)

Fault = tuple[str, dict[str, Any]]
BERGEN, BRUGES, LUEBECK, VISBY = NAMES
SYBIL = EdgeId("sybil")
_MALLORY = signing_key("mallory")
_ABROAD = FederationId("rhein")


def all_of(known: KnownRound) -> Iterator[Fault]:
    """Every fault: its name, and what stands in its file."""
    yield from _of_rosters()
    yield from _of_prekeys()
    yield from _of_roots(known)
    yield from _of_announcements(known)
    yield from _of_updates(known)
    yield from _of_survivors(known)
    yield from _of_signatures(known)
    yield from _of_requests(known)
    yield from _of_unmaskings(known)


def _fault(name: str, step: str, expect: str, why: str, **given: Any) -> Fault:
    hexed = {key: value.hex() if isinstance(value, bytes) else value for key, value in given.items()}
    return name, {"why": why, "expect": expect, "step": step, **hexed}


def _content(document: bytes) -> dict[str, Any]:
    content: dict[str, Any] = canonical.decode(document)["content"]
    return content


def _in_capitals(document: bytes) -> bytes:
    """The same signed document, its signature written otherwise."""
    value = canonical.decode(document)
    return canonical.encode({**value, "signature": value["signature"].upper()})


def _flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def _of_rosters() -> Iterator[Fault]:
    def fault(name: str, expect: str, why: str, document: bytes) -> Fault:
        return _fault(f"roster-{name}", "open roster", expect, why, document=document)

    def signed(**changes: Any) -> bytes:
        return sign_document(Label.ROSTER, {**content, **changes}, key=OFFLINE)

    content = _content(ROSTER.sign(OFFLINE))
    sybil = Member(edge=SYBIL, identity=_MALLORY.public_key().public_bytes_raw(), seal=b"", node=b"")
    wider = Roster.of(FEDERATION, 4, [*ROSTER.members, sybil]).sign(CENTER)
    yield fault("of-the-online-key", "BadSignatureError", "the center enrols a sybil by itself", wider)
    yield fault("older", "RollbackError", "roster 3 has been accepted before", signed(version=2))
    yield fault("of-another-federation", "BadSignatureError", "one keeper, two federations", signed(federation=_ABROAD))
    unsorted = signed(members=content["members"][::-1])
    yield fault("unsorted", "MalformedMessageError", "members stand sorted, each once", unsorted)
    yield fault("without-a-group", "MalformedMessageError", "groups hold every member once", signed(groups=[]))
    yield fault("of-one-robust-group", "MalformedMessageError", "three groups of eight at least", signed(robust=True))


def _of_prekeys() -> Iterator[Fault]:
    key = signing_key(BRUGES)
    others = [begun(edge).published for edge in (BERGEN, LUEBECK, VISBY)]
    genuine = Prekey.open(begun(BRUGES).published, call=CALL, roster=ROSTER)

    def fault(name: str, expect: str, why: str, *papers: bytes) -> Fault:
        return _fault(f"prekey-{name}", "deal roots", expect, why, edge=BERGEN, prekeys=binary.join(list(papers)))

    forged = genuine.sign(CENTER)
    yield fault("of-the-center", "BadSignatureError", "bergen would share its root with the center", *others, forged)
    old = replace(genuine, epoch=CALL.epoch - 1).sign(key)
    yield fault("of-the-last-epoch", "PeerMisbehavedError", "its secret may have been stolen since", *others, old)
    roster = replace(genuine, roster_version=2).sign(key)
    yield fault("of-the-last-roster", "PeerMisbehavedError", "others were members then", *others, roster)
    abroad = replace(genuine, federation=_ABROAD).sign(key)
    yield fault("of-another-federation", "PeerMisbehavedError", "it was meant for others", *others, abroad)
    yield fault("listed-twice", "PeerMisbehavedError", "each edge has one", *others, others[1])
    yield fault("of-ones-own-missing", "PeerMisbehavedError", "others would see another", *others[1:])
    sybil = replace(genuine, edge=SYBIL).sign(_MALLORY)
    yield fault("of-a-sybil", "NotAdmittedError", "the roster does not name it", *others, sybil)
    capitals = _in_capitals(genuine.sign(key))
    yield fault("signed-in-capitals", "MalformedMessageError", "one document, one string of bytes", *others, capitals)
    short = replace(genuine, key=genuine.key[:-1]).sign(key)
    yield fault("one-byte-short", "MalformedMessageError", "a key has 1,216 bytes", *others, short)


def _of_roots(known: KnownRound) -> Iterator[Fault]:
    """Faults in what luebeck is to keep; bergen deals it a root."""
    to_luebeck = [PairRoot.open(p, roster=ROSTER) for p in binary.split(known.roots_for(LUEBECK))]
    genuine = next(root for root in to_luebeck if root.dealer == BERGEN)

    def fault(name: str, expect: str, why: str, *roots: PairRoot, signer: str = BERGEN) -> Fault:
        papers = binary.join([root.sign(CENTER if signer == "center" else signing_key(signer)) for root in roots])
        return _fault(f"root-{name}", "keep roots", expect, why, edge=LUEBECK, roots=papers)

    yield fault("of-the-center", "BadSignatureError", "not signed by its dealer", genuine, signer="center")
    yield fault("of-the-last-epoch", "PeerMisbehavedError", "its secret may be known by now", replace(genuine, epoch=1))
    yield fault("for-another", "PeerMisbehavedError", "sealed to visby, it says", replace(genuine, receiver=VISBY))
    old = replace(genuine, prekey_sha256=seed("another prekey"))
    yield fault("to-another-prekey", "PeerMisbehavedError", "the receiver's prekey is named by digest", old)
    backwards = replace(genuine, dealer=VISBY)
    yield fault("the-wrong-way", "PeerMisbehavedError", "the name that sorts first deals", backwards, signer=VISBY)
    yield fault("dealt-twice", "PeerMisbehavedError", "a pair has one root", genuine, genuine)


def _of_announcements(known: KnownRound) -> Iterator[Fault]:
    asked = known.announcement
    content = asked.to_json()

    def fault(name: str, expect: str, why: str, document: bytes, last_round: int = ROUND - 1) -> Fault:
        given: dict[str, Any] = {"edge": BERGEN, "last_round": last_round, "last_center_epoch": 1, "now_ms": NOW_MS}
        return _fault(f"announcement-{name}", "accept", expect, why, **given, document=document)

    def signed(**changes: Any) -> bytes:
        return sign_document(Label.ANNOUNCEMENT, {**content, **changes}, key=CENTER)

    segment = content["layout"][0]
    genuine = asked.sign(CENTER)
    yield fault("of-a-stranger", "BadSignatureError", "not this center's", asked.sign(_MALLORY))
    survivors = sign_document(Label.SURVIVORS, content, key=CENTER)
    yield fault("signed-for-something-else", "BadSignatureError", "labels keep signatures apart", survivors)
    yield fault("replayed", "PeerMisbehavedError", "round 7 has been answered", genuine, ROUND)
    ahead = CALL.first_round + MOST_STEPS_AHEAD + 1
    yield fault("far-ahead", "PeerMisbehavedError", "it would use up the keys", signed(round=ahead))
    yield fault("of-another-roster", "PeerMisbehavedError", "roster 3 is in force", signed(roster_version=4))
    yield fault("of-an-old-center", "PeerMisbehavedError", "center epoch 1 has been seen", signed(center_epoch=0))
    yield fault("of-another-key-epoch", "PeerMisbehavedError", "this edge is in 2", signed(key_epoch=1))
    yield fault("over", "PeerMisbehavedError", "its deadline has passed", signed(deadline_ms=NOW_MS))
    two = signed(cohort=list(NAMES[:2]), prekeys=content["prekeys"][:2])
    yield fault("of-two", "PeerMisbehavedError", "each would learn the other's update", two)
    without = signed(cohort=list(NAMES[1:]), prekeys=content["prekeys"][1:])
    yield fault("without-the-asked", "PeerMisbehavedError", "bergen is not in it", without)
    sybil = signed(cohort=[*NAMES[:3], SYBIL])
    yield fault("with-a-sybil", "NotAdmittedError", "the roster does not name it", sybil)
    other = signed(prekeys=[*content["prekeys"][:3], seed("another prekey").hex()])
    yield fault("with-another-prekey", "BadSignatureError", "bergen has checked another one of visby", other)
    unsorted = signed(cohort=list(NAMES[::-1]))
    yield fault("unsorted", "MalformedMessageError", "a cohort stands sorted", unsorted)
    yield fault("with-a-whole-clip", "MalformedMessageError", "floats are written as floats", signed(clip=4))
    yield fault("with-a-field-more", "MalformedMessageError", "no field is unknown", signed(more=1))
    narrow = signed(layout=[{**segment, "bits": 7}])
    yield fault("with-words-too-narrow", "MalformedMessageError", "8 to 32 bits", narrow)
    huge = signed(round=2**53)
    yield fault("with-a-number-too-large", "MalformedMessageError", "numbers stay below 2**53", huge)
    spaced = genuine.replace(b":", b": ", 1)
    yield fault("with-a-space", "MalformedMessageError", "one document, one string of bytes", spaced)


def _of_updates(known: KnownRound) -> Iterator[Fault]:
    genuine = known.masked[BERGEN][1]
    update = MaskedUpdate.from_bytes(genuine)

    def fault(name: str, expect: str, why: str, answer: bytes, sender: str = BERGEN) -> Fault:
        return _fault(f"update-{name}", "receive masked update", expect, why, sender=sender, answer=answer)

    def signed(**changes: Any) -> bytes:
        parts: dict[str, Any] = {
            "announcement": update.announcement,
            "edge": BERGEN,
            "packed": bytes(update.packed),
            "commitments": update.commitments,
            "sealed": bytes(update.sealed),
        }
        return MaskedUpdate.signed(**{**parts, **changes}, key=signing_key(BERGEN)).to_bytes()

    yield fault("truncated", "MalformedMessageError", "one byte is missing", genuine[:-1])
    yield fault("over-long", "MalformedMessageError", "one byte follows", genuine + b"\0")
    yield fault("with-its-words-changed", "BadSignatureError", "changed on its way", _flipped(genuine, 60))
    yield fault("with-a-share-changed", "BadSignatureError", "changed on its way", _flipped(genuine, -100))
    yield fault("of-another", "PeerMisbehavedError", "bruges answers in bergen's name", genuine, BRUGES)
    other = signed(announcement=seed("another announcement"))
    yield fault("of-another-round", "PeerMisbehavedError", "another announcement", other)
    shorter = signed(packed=bytes(update.packed)[:-1])
    yield fault("with-a-word-less", "MalformedMessageError", "the layout says how many", shorter)
    packed = bytearray(update.packed)
    packed[22] |= 0x80  # nine words of 20 bits end in the middle of this byte
    behind = signed(packed=bytes(packed))
    yield fault("with-bits-behind-its-words", "MalformedMessageError", "they would not be in the sum", behind)
    fewer = signed(commitments=update.commitments[:3], sealed=bytes(3 * 2 * 48))
    yield fault("for-a-smaller-cohort", "PeerMisbehavedError", "four secrets are committed to", fewer)
    yield fault("of-a-stranger", "PeerMisbehavedError", "not asked", genuine, SYBIL)


def _of_survivors(known: KnownRound) -> Iterator[Fault]:
    digest = known.announcement.digest()

    def fault(name: str, expect: str, why: str, document: bytes) -> Fault:
        return _fault(f"survivors-{name}", "sign survivors", expect, why, edge=BERGEN, document=document)

    def named(*edges: EdgeId, announcement: bytes = digest) -> bytes:
        return Survivors(announcement=announcement, edges=edges).sign(CENTER)

    def signed(names: list[str]) -> bytes:
        return sign_document(Label.SURVIVORS, {"announcement": digest.hex(), "survivors": names}, key=CENTER)

    stranger = Survivors(announcement=digest, edges=SURVIVORS).sign(_MALLORY)
    yield fault("of-a-stranger", "BadSignatureError", "not this center's", stranger)
    yield fault("without-the-asked", "PeerMisbehavedError", "bergen is not in it", named(*NAMES[1:]))
    yield fault("too-few", "PeerMisbehavedError", "two of four, three are needed", named(BERGEN, BRUGES))
    yield fault("alone", "PeerMisbehavedError", "all peers of bergen are said to have dropped", named(BERGEN))
    yield fault("beyond-the-cohort", "PeerMisbehavedError", "a sybil fills the set up", named(BERGEN, BRUGES, SYBIL))
    other = named(*SURVIVORS, announcement=seed("another announcement"))
    yield fault("of-another-round", "PeerMisbehavedError", "another announcement", other)
    yield fault("unsorted", "MalformedMessageError", "survivors stand sorted", signed([*SURVIVORS[::-1]]))
    yield fault("listed-twice", "MalformedMessageError", "each once", signed([BERGEN, BERGEN, BRUGES]))
    wider = named(*NAMES)
    second = _fault(
        "survivors-a-second-set",
        "sign survivors again",
        "PeerMisbehavedError",
        "bergen has signed the set without visby: the difference of two sums would be visby",
        edge=BERGEN,
        document=wider,
    )
    yield second


def _of_signatures(known: KnownRound) -> Iterator[Fault]:
    genuine = known.signed[BERGEN][1]

    def fault(name: str, expect: str, why: str, answer: bytes, sender: str = BERGEN) -> Fault:
        return _fault(f"signature-{name}", "receive survivor signature", expect, why, sender=sender, answer=answer)

    wider = Survivors(announcement=known.announcement.digest(), edges=NAMES)
    other = SurvivorSignature.signed(wider, edge=BERGEN, key=signing_key(BERGEN)).to_bytes()
    outside = SurvivorSignature.signed(replace(wider, edges=SURVIVORS), edge=VISBY, key=signing_key(VISBY)).to_bytes()
    yield fault("truncated", "MalformedMessageError", "one byte is missing", genuine[:-1])
    yield fault("over-long", "MalformedMessageError", "one byte follows", genuine + b"\0")
    yield fault("forged", "BadSignatureError", "not bergen's", _flipped(genuine, -1))
    yield fault("of-another-set", "PeerMisbehavedError", "bergen signed the set of all four", other)
    yield fault("of-another", "PeerMisbehavedError", "bruges answers in bergen's name", genuine, BRUGES)
    yield fault("of-one-that-dropped", "PeerMisbehavedError", "visby is not in the set", outside, VISBY)


def _of_requests(known: KnownRound) -> Iterator[Fault]:
    """Faults in what bergen is asked to open: of bruges its own mask, and its mask with visby, which dropped."""
    request = UnmaskRequest.from_bytes(known.requests[BERGEN])
    places = {edge: place for place, edge in enumerate(NAMES)}

    def dealt(dealer: EdgeId, secret: EdgeId, receiver: EdgeId = BERGEN) -> bytes:
        sealed = MaskedUpdate.from_bytes(known.masked[dealer][1]).sealed
        return sealed_share(
            sealed, edges=len(NAMES), dealer=places[dealer], receiver=places[receiver], secret=places[secret]
        )

    def fault(name: str, expect: str, why: str, changed: UnmaskRequest | bytes) -> Fault:
        body = changed if isinstance(changed, bytes) else changed.to_bytes()
        given = {"edge": BERGEN, "document": known.survivors, "request": body}
        return _fault(f"request-{name}", "unmask", expect, why, **given)

    def of_bruges(*shares: bytes) -> UnmaskRequest:
        return replace(request, sealed={**request.sealed, BRUGES: shares})

    own, pair = dealt(BRUGES, BRUGES), dealt(BRUGES, VISBY)
    two = {edge: request.signatures[edge] for edge in (BERGEN, BRUGES)}
    yield fault("signed-by-too-few", "PeerMisbehavedError", "two have, three must", replace(request, signatures=two))
    word = SurvivorSignature.signed(
        Survivors(announcement=known.announcement.digest(), edges=SURVIVORS), edge=VISBY, key=signing_key(VISBY)
    ).signature
    outside = replace(request, signatures={**two, VISBY: word})
    yield fault("signed-by-one-that-dropped", "PeerMisbehavedError", "visby is not in the set", outside)
    doubled = replace(request, signatures={**two, LUEBECK: two[BRUGES]})
    yield fault("signed-by-one-twice", "BadSignatureError", "one signature under two names", doubled)
    yield fault("for-the-other-kind", "UntrustedError", "own and pair are swapped", of_bruges(pair, own))
    survivors_pair = of_bruges(own, dealt(BRUGES, LUEBECK))
    yield fault("for-two-survivors", "UntrustedError", "the mask of bruges and luebeck stays closed", survivors_pair)
    both = of_bruges(own, pair, dealt(BRUGES, LUEBECK))
    yield fault("for-both-kinds", "PeerMisbehavedError", "one share more than there are secrets", both)
    mixed = of_bruges(own, dealt(VISBY, BRUGES))
    yield fault("with-the-other-dealers-copy", "UntrustedError", "visby dealt this one", mixed)
    relabelled = of_bruges(own, dealt(LUEBECK, VISBY))
    yield fault("with-another-dealers-share", "UntrustedError", "luebeck dealt this one", relabelled)
    foreign = of_bruges(own, dealt(BRUGES, VISBY, receiver=LUEBECK))
    yield fault("with-another-receivers-share", "UntrustedError", "sealed to luebeck", foreign)
    late = replace(request, sealed={**request.sealed, VISBY: (dealt(VISBY, VISBY),)})
    yield fault("for-a-late-update", "PeerMisbehavedError", "visby has dropped, its own mask stays closed", late)
    body = request.to_bytes()
    yield fault("truncated", "MalformedMessageError", "one byte is missing", body[:-1])
    yield fault("over-long", "MalformedMessageError", "one byte follows", body + b"\0")


def _of_unmaskings(known: KnownRound) -> Iterator[Fault]:
    genuine = known.unmasked[BERGEN][1]
    opened = Unmasking.from_bytes(genuine)

    def fault(name: str, expect: str, why: str, answer: bytes, sender: str = BERGEN) -> Fault:
        return _fault(f"unmasking-{name}", "receive unmasking", expect, why, sender=sender, answer=answer)

    def signed(**changes: Any) -> bytes:
        parts: dict[str, Any] = {
            "announcement": opened.announcement,
            "edge": BERGEN,
            "survivors": opened.survivors,
            "shares": opened.shares,
        }
        return Unmasking.signed(**{**parts, **changes}, key=signing_key(BERGEN)).to_bytes()

    yield fault("truncated", "MalformedMessageError", "one byte is missing", genuine[:-1])
    yield fault("over-long", "MalformedMessageError", "one byte follows", genuine + b"\0")
    yield fault("forged", "BadSignatureError", "a share was changed on its way", _flipped(genuine, -80))
    yield fault(
        "of-another-set", "PeerMisbehavedError", "of the set of all four", signed(survivors=seed("another set"))
    )
    yield fault("with-a-share-less", "PeerMisbehavedError", "six are asked for", signed(shares=opened.shares[:-1]))
    for name, why, share in (
        ("off-the-polynomial", "nobody is left to make it good", seed("a lie")),
        ("not-below-the-prime", "a share is a number below 2**256 - 189", b"\xff" * 32),
    ):
        lie = signed(shares=(share, *opened.shares[1:]))
        answers = {BERGEN: lie.hex(), **{edge: known.unmasked[edge][1].hex() for edge in SURVIVORS[1:]}}
        yield _fault(f"unmasking-{name}", "close unmasking", "TooFewSurvivorsError", why, answers=answers)
