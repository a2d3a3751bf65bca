"""The vectors of tests/vectors, told to our own code as they would be told to another implementation."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import audit, binary, content, errors, rec_id, round_keys
from protocol.acceptance import Standing
from protocol.announcement import Announcement
from protocol.blocks import BlockCipher
from protocol.bundle import CARD, Manifest, describe
from protocol.epoch import EpochCall, PairRoot
from protocol.epoch_keys import EpochKeys
from protocol.fixed_point import encode
from protocol.identity import FederationId, Roster
from protocol.masked_update import EdgeRound
from protocol.masking import Keystream, keystream
from protocol.release import Offer, Ring, queue_place
from protocol.rings import RingPolicy
from protocol.round_keys import Use
from protocol.sealing import ContentKey, SealingKey, decrypt
from protocol.secure_sum import Phase, Round
from simulation.vectors import recording as vectors

FOLDER = Path(__file__).parents[1] / "vectors"
EPOCH = json.loads((FOLDER / "epoch.json").read_text("utf-8"))
RELEASE = json.loads((FOLDER / "release.json").read_text("utf-8"))
CONTENT = json.loads((FOLDER / "content.json").read_text("utf-8"))
WHOLE = json.loads((FOLDER / "round.json").read_text("utf-8"))
FAULTS = sorted((FOLDER / "faults").glob("*.json"))
NAMES = sorted(EPOCH["identity_keys"])
SURVIVORS = sorted(WHOLE["survivor_signatures"])


def key(text: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text))


CENTER, OFFLINE = key(EPOCH["center_key"]), key(EPOCH["roster_key"])
IDENTITY = {edge: key(text) for edge, text in EPOCH["identity_keys"].items()}
ROSTER = Roster.open(bytes.fromhex(EPOCH["roster"]), key=OFFLINE.public_key(), federation=FederationId("hanse"))
CALL = EpochCall.open(bytes.fromhex(EPOCH["call"]), key=CENTER.public_key())


def begin(edge) -> EpochKeys:
    prekey = SealingKey.from_bytes(bytes.fromhex(EPOCH["prekey_secrets"][edge]))
    return EpochKeys.begin(CALL, me=edge, prekey=prekey, identity_key=IDENTITY[edge])


def deal(edge, prekeys: bytes) -> EpochKeys:
    randomness = bytes.fromhex(EPOCH["randomness"][edge])
    return begin(edge).deal(prekeys, roster=ROSTER, identity_key=IDENTITY[edge], randomness=randomness)[0]


def dealt(edge) -> EpochKeys:
    return deal(edge, binary.join([bytes.fromhex(prekey) for prekey in EPOCH["prekeys"].values()]))


def roots_for(edge) -> bytes:
    papers = [paper for roots in EPOCH["roots"].values() for paper in binary.split(bytes.fromhex(roots))]
    return binary.join([paper for paper in papers if PairRoot.open(paper, roster=ROSTER).receiver == edge])


@pytest.fixture(scope="module")
def keys():
    return {edge: dealt(edge).keep(roots_for(edge), roster=ROSTER) for edge in NAMES}


def accept(edge, keys, document: bytes, *, last_round=6, last_epoch=1, now_ms=0) -> EdgeRound:
    return EdgeRound.accept(
        document,
        me=edge,
        roster=ROSTER,
        center=CENTER.public_key(),
        keys=keys[edge],
        standing=Standing(last_round=last_round, last_epoch=last_epoch),
        now_ms=now_ms,
    )


def mask(edge, keys):
    turn = accept(edge, keys, bytes.fromhex(WHOLE["announcement"]))
    values = {name: np.array(value, np.float32) for name, value in WHOLE["values"][edge].items()}
    entropy = bytes.fromhex(WHOLE["entropy"][edge])
    secrets = keys[edge].at_round(turn.announcement.round)[1]
    return turn.mask(values, secrets=secrets, identity_key=IDENTITY[edge], entropy=entropy)


def sign(turn: EdgeRound, document: bytes):
    return turn.sign_survivors(document, center=CENTER.public_key(), identity_key=IDENTITY[turn.me])


def unmask(turn: EdgeRound, document: bytes, request: bytes):
    return turn.unmask(document, request, center=CENTER.public_key(), roster=ROSTER, identity_key=IDENTITY[turn.me])


def center(until: Phase) -> Round:
    """The center of the known round, when it has come to this phase."""
    asked = Announcement.open(bytes.fromhex(WHOLE["announcement"]), key=CENTER.public_key())
    round_ = Round.announce(asked, roster=ROSTER)
    for phase, answers in (
        (Phase.MASKING, WHOLE["masked_updates"]),
        (Phase.SIGNING, WHOLE["survivor_signatures"]),
        (Phase.UNMASKING, WHOLE["unmaskings"]),
    ):
        if phase is until:
            break
        for edge in SURVIVORS:
            round_ = round_.receive(edge, phase, bytes.fromhex(answers[edge]))
        round_ = round_.close_phase()
    return round_


def test_epoch(keys) -> None:
    for edge in NAMES:
        assert begin(edge).published.hex() == EPOCH["prekeys"][edge]
        assert {peer: state.hex() for peer, state in keys[edge].states.items()} == EPOCH["states"][edge]


def test_derivations_of_the_round(keys) -> None:
    asked = Announcement.open(bytes.fromhex(WHOLE["announcement"]), key=CENTER.public_key())
    digest = asked.digest()
    assert digest.hex() == WHOLE["announcement_digest"]
    for edge in NAMES:
        entropy, secrets = bytes.fromhex(WHOLE["entropy"][edge]), keys[edge].at_round(asked.round)[1]
        assert {peer: secret.hex() for peer, secret in secrets.items()} == WHOLE["pair_secrets"][edge]
        for peer, secret in secrets.items():
            assert round_keys.mask_seed(secret, announcement=digest).hex() == WHOLE["pair_mask_seeds"][edge][peer]
            sealing = round_keys.sealing_key(secret, announcement=digest, dealer=edge, receiver=peer)
            assert sealing.hex() == WHOLE["sealing_keys"][edge][peer]
        own = {use: round_keys.own(entropy, use, announcement=digest) for use in Use}
        assert own[Use.OWN_MASK].hex() == WHOLE["own_mask_seeds"][edge]
        assert own[Use.ROUNDING].hex() == WHOLE["rounding_seeds"][edge]
        assert keystream(own[Use.SHARES], 4 * 2 * 32).hex() == WHOLE["share_coefficients"][edge]
        values = {name: np.array(value, np.float32) for name, value in WHOLE["values"][edge].items()}
        words = encode(values, layout=asked.layout, edges=4, seed=own[Use.ROUNDING])
        assert words.astype("<u4").tobytes().hex() == WHOLE["encoded_words"][edge]


def test_every_message_of_an_edge(keys) -> None:
    survivors = bytes.fromhex(WHOLE["survivors"])
    for edge in NAMES:
        turn, update = mask(edge, keys)
        assert update.hex() == WHOLE["masked_updates"][edge]
        given_up = turn.abandon(identity_key=IDENTITY[edge])[1]
        assert given_up.hex() == WHOLE["abandonments"][edge]
        if edge in SURVIVORS:
            turn, signature = sign(turn, survivors)
            assert signature.hex() == WHOLE["survivor_signatures"][edge]
            _, opened = unmask(turn, survivors, bytes.fromhex(WHOLE["unmask_requests"][edge]))
            assert opened.hex() == WHOLE["unmaskings"][edge]


def test_every_step_of_the_center() -> None:
    assert center(Phase.SIGNING).survivors.sign(CENTER).hex() == WHOLE["survivors"]
    unmasking = center(Phase.UNMASKING)
    assert {edge: unmasking.unmask_request(edge).hex() for edge in SURVIVORS} == WHOLE["unmask_requests"]
    summed = center(Phase.SUMMED)
    assert summed.total.astype("<u4").tobytes().hex() == WHOLE["sum_words"]
    assert {name: total.tolist() for name, total in summed.sums().items()} == WHOLE["sums"]


def test_the_sum_is_that_of_the_survivors() -> None:
    """The vectors themselves make sense: what was recorded is a sum."""
    for name, total in WHOLE["sums"].items():
        plain = np.sum([WHOLE["values"][edge][name] for edge in SURVIVORS], axis=0)
        assert total == pytest.approx(plain, abs=1e-3)
    assert WHOLE["sums"]["counts"] == [6, 60, 3000]


def test_a_release() -> None:
    content_key = ContentKey(number=3, secret=bytes.fromhex(RELEASE["content_key"]))
    files = {path: bytes.fromhex(f["pattern"]) * f["times"] for path, f in RELEASE["files"].items()}
    cipher = BlockCipher(content_key)
    manifest = Manifest.from_bytes(bytes.fromhex(RELEASE["manifest"]))
    assert describe(files.items(), cipher=cipher) == manifest
    assert manifest.bundle_digest == RELEASE["bundle_digest"]
    (block,) = manifest.files[CARD].blocks
    assert cipher.open(bytes.fromhex(RELEASE["card_block"]), expected=block) == files[CARD]
    metadata = bytes.fromhex(RELEASE["encrypted_metadata"])
    assert metadata[:8].hex() == RELEASE["content_key_id"]
    assert decrypt(metadata, key=content_key, topic=RELEASE["topic"]) == b"timestamp"


@pytest.mark.parametrize("item", CONTENT["items"], ids=lambda item: item["why"])
def test_what_an_item_says_of_itself(item) -> None:
    described = item["title"], item["brand"], item["category"]
    assert content.buckets_of(described) == item["buckets"]
    buckets = np.arange(content.BUCKETS)[:, None]
    embeddings = ((buckets * (2 * np.arange(4) + 3)) % 257 - 128) / 64
    table = np.vstack([np.zeros(4), embeddings]).astype(np.float32)
    vector = content.mean_vectors(table, content.token_table([described]))[1]
    assert vector.astype("<f2").tobytes().hex() == item["vector"]


def test_what_is_said_of_a_release() -> None:
    offer = Offer.from_custom(RELEASE["target"], RELEASE["custom"])
    assert {site: queue_place(site, offer.sha256) for site in RELEASE["queue_places"]} == RELEASE["queue_places"]
    rings = RingPolicy.open(bytes.fromhex(RELEASE["rings"]), key=OFFLINE.public_key(), federation=FederationId("hanse"))
    assert [rings.ring_of(site) for site in ("bergen", "luebeck", "visby")] == [Ring.CANARY, Ring.ALL, Ring.EARLY]
    assert rec_id.parse(RELEASE["rec_id"]) == rec_id.RecId(version=8, sha256_prefix=offer.sha256[:8])
    entries = [audit.Entry.from_bytes(bytes.fromhex(entry)) for entry in RELEASE["audit"]]
    assert audit.check_chain(entries) == RELEASE["audit_head"]


RECEIVED = {
    "receive masked update": Phase.MASKING,
    "receive survivor signature": Phase.SIGNING,
    "receive unmasking": Phase.UNMASKING,
}


def take_the_step(step: str, given: dict, keys) -> None:
    """Do what a fault says to whom it says it, in the state that the step is taken in."""
    raw = {name: bytes.fromhex(value) for name, value in given.items() if name in RAW}
    edge = given.get("edge")
    match step:
        case "open roster":
            Roster.open(raw["document"], key=OFFLINE.public_key(), federation=FederationId("hanse"), known_version=3)
        case "deal roots":
            deal(edge, raw["prekeys"])
        case "keep roots":
            dealt(edge).keep(raw["roots"], roster=ROSTER)
        case "accept":
            told = {"last_round": given["last_round"], "last_epoch": given["last_center_epoch"]}
            accept(edge, keys, raw["document"], now_ms=given["now_ms"], **told)
        case "sign survivors":
            sign(mask(edge, keys)[0], raw["document"])
        case "sign survivors again":
            signed, _ = sign(mask(edge, keys)[0], bytes.fromhex(WHOLE["survivors"]))
            sign(signed, raw["document"])
        case "unmask":
            signed, _ = sign(mask(edge, keys)[0], bytes.fromhex(WHOLE["survivors"]))
            unmask(signed, raw["document"], raw["request"])
        case "close unmasking":
            round_ = center(Phase.UNMASKING)
            for name, answer in given["answers"].items():
                round_ = round_.receive(name, Phase.UNMASKING, bytes.fromhex(answer))
            round_.close_phase()
        case _:
            phase = RECEIVED[step]
            center(phase).receive(given["sender"], phase, raw["answer"])


RAW = {"document", "prekeys", "roots", "request", "answer"}


@pytest.mark.parametrize("path", FAULTS, ids=lambda path: path.stem)
def test_fault(path, keys) -> None:
    given = json.loads(path.read_text("utf-8"))
    with pytest.raises(getattr(errors, given["expect"])) as refused:
        take_the_step(given["step"], given, keys)
    assert type(refused.value).__name__ == given["expect"]


def test_every_step_is_refused_for_something_and_taken_otherwise(keys) -> None:
    """The same steps with what the known round says: so it is the fault that is refused."""
    steps = {json.loads(path.read_text("utf-8"))["step"] for path in FAULTS}
    prekeys = binary.join([bytes.fromhex(prekey) for prekey in EPOCH["prekeys"].values()]).hex()
    honest = {
        "open roster": {"document": EPOCH["roster"]},
        "deal roots": {"edge": "bergen", "prekeys": prekeys},
        "keep roots": {"edge": "luebeck", "roots": roots_for("luebeck").hex()},
        "accept": {
            "edge": "bergen",
            "document": WHOLE["announcement"],
            "last_round": 6,
            "last_center_epoch": 1,
            "now_ms": 0,
        },
        "sign survivors": {"edge": "bergen", "document": WHOLE["survivors"]},
        "sign survivors again": {"edge": "bergen", "document": WHOLE["survivors"]},
        "unmask": {
            "edge": "bergen",
            "document": WHOLE["survivors"],
            "request": WHOLE["unmask_requests"]["bergen"],
        },
        "close unmasking": {"answers": WHOLE["unmaskings"]},
        "receive masked update": {"sender": "bergen", "answer": WHOLE["masked_updates"]["bergen"]},
        "receive survivor signature": {"sender": "bergen", "answer": WHOLE["survivor_signatures"]["bergen"]},
        "receive unmasking": {"sender": "bergen", "answer": WHOLE["unmaskings"]["bergen"]},
    }
    assert set(honest) == steps
    for step, given in honest.items():
        take_the_step(step, given, keys)


def test_mask_streams() -> None:
    """Made by OpenSSL's command, not by our code."""
    for known in json.loads((FOLDER / "mask_stream.json").read_text("utf-8")):
        stream = bytearray(4 * known["count"])
        Keystream(bytes.fromhex(known["seed"])).read_into(memoryview(stream))
        words = np.frombuffer(stream, "<u4")
        assert words[: len(known["first"])].tolist() == known["first"]
        assert words[-len(known["last"]) :].tolist() == known["last"]


def test_vectors_are_written_the_same_each_time(tmp_path) -> None:
    """`make vectors` leaves no difference behind."""
    shutil.copy(FOLDER / "epoch.json", tmp_path)
    vectors.write(tmp_path)
    written = {path.relative_to(tmp_path): path.read_text("utf-8") for path in tmp_path.rglob("*.json")}
    assert len(written) == len(FAULTS) + 4
    for path, text in written.items():
        assert text == (FOLDER / path).read_text("utf-8"), path
