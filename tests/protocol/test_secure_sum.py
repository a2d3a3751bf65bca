"""A whole round between center and edges by arithmetic alone: no network, no clock, no chance."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocol.errors import (
    BadSignatureError,
    MalformedMessageError,
    NotAdmittedError,
    OutOfTurnError,
    PeerMisbehavedError,
    TooFewSurvivorsError,
)
from protocol.fixed_point import Segment, resolution
from protocol.identity import EdgeId, FederationId, Member, Roster
from protocol.masked_update import EdgeRound
from protocol.messages import Announcement, MaskedUpdate, Purpose
from protocol.secure_sum import Phase, Round

HANSE = FederationId("hanse")
NAMES = [EdgeId(name) for name in ("bergen", "bruges", "luebeck", "novgorod", "visby")]
CENTER = Ed25519PrivateKey.from_private_bytes(b"c" * 32)
LAYOUT = (Segment(name="update", length=1000, bound=4.0), Segment(name="weight", length=1, bound=1.0))
NOW = 1_700_000_000_000


class Town:
    """One edge with its keys."""

    def __init__(self, name: EdgeId, number: int) -> None:
        self.name = name
        self.identity = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        self.mask = X25519PrivateKey.from_private_bytes(bytes([number + 100]) * 32)

    def member(self) -> Member:
        return Member(
            edge=self.name,
            identity=self.identity.public_key().public_bytes_raw(),
            mask=self.mask.public_key().public_bytes_raw(),
            seal=b"seal",
            node=b"node",
        )

    def accept(self, signed: bytes, roster: Roster, *, last_round: int = 0, last_epoch: int = 0, now: int = NOW):
        return EdgeRound.accept(
            signed,
            me=self.name,
            roster=roster,
            center=CENTER.public_key(),
            last_round=last_round,
            last_epoch=last_epoch,
            now_ms=now,
        )

    def answer(self, announcement: Announcement, roster: Roster, values) -> bytes:
        turn = self.accept(announcement.sign(CENTER), roster)
        return turn.mask(values, mask_key=self.mask, identity_key=self.identity)[1]


@pytest.fixture
def towns() -> list[Town]:
    return [Town(name, number) for number, name in enumerate(NAMES, start=1)]


@pytest.fixture
def roster(towns) -> Roster:
    return Roster.of(HANSE, 3, [town.member() for town in towns])


@pytest.fixture
def announcement() -> Announcement:
    return Announcement(
        federation=HANSE,
        campaign="spring",
        round=7,
        roster_version=3,
        center_epoch=1,
        cohort=tuple(NAMES),
        purpose=Purpose.TRAIN,
        submodel="recommend",
        weights_sha256=bytes(32),
        layout=LAYOUT,
        clip=4.0,
        weight_cap=100,
        deadline_ms=NOW + 60_000,
    )


@pytest.fixture
def values() -> list[dict[str, np.ndarray | float]]:
    rng = np.random.default_rng(5)
    return [{"update": rng.uniform(-4, 4, 1000).astype(np.float32), "weight": float(rng.uniform())} for _ in NAMES]


def collect(towns, announcement, roster, values) -> Round:
    round_ = Round.announce(announcement, roster=roster)
    for town, value in zip(towns, values, strict=True):
        round_ = round_.receive(town.name, town.answer(announcement, roster, value))
    return round_


def test_the_unmasked_sum_is_the_plain_sum(towns, announcement, roster, values) -> None:
    sums = collect(towns, announcement, roster, values).close().sums()
    plain = np.sum([value["update"].astype(np.float64) for value in values], axis=0)
    allowed = len(NAMES) * resolution(LAYOUT[0], edges=len(NAMES))
    assert np.max(np.abs(sums["update"] - plain)) <= allowed
    assert sums["weight"][0] == pytest.approx(sum(value["weight"] for value in values), abs=1e-6)


def test_extreme_values_of_all_edges_do_not_wrap_around(towns, announcement, roster) -> None:
    values = [{"update": np.full(1000, 4.0, np.float32), "weight": 1.0} for _ in NAMES]
    sums = collect(towns, announcement, roster, values).close().sums()
    assert sums["update"] == pytest.approx(np.full(1000, 20.0))


def test_one_masked_update_tells_nothing_about_its_values(towns, announcement, roster) -> None:
    zeros = {"update": np.zeros(1000, np.float32), "weight": 0.0}
    words = MaskedUpdate.from_bytes(towns[0].answer(announcement, roster, zeros)).words
    assert len(np.unique(words)) > 990  # uniformly random words hardly ever repeat


def test_the_sum_of_all_but_one_is_never_revealed(towns, announcement, roster, values) -> None:
    round_ = Round.announce(announcement, roster=roster)
    for town, value in list(zip(towns, values, strict=True))[:-1]:
        round_ = round_.receive(town.name, town.answer(announcement, roster, value))
    with pytest.raises(TooFewSurvivorsError, match="visby"):
        round_.close()
    with pytest.raises(OutOfTurnError):
        round_.sums()


def test_edges_told_different_things_never_add_up(towns, announcement, roster, values) -> None:
    """The attack: the center tells one edge another clip, and adds the words itself."""
    other = replace(announcement, clip=3.0)
    words = np.zeros(1001, np.uint32)
    for town, value in zip(towns, values, strict=True):
        told = other if town.name == "visby" else announcement
        words += MaskedUpdate.from_bytes(town.answer(told, roster, value)).words
    plain = np.sum([value["update"] for value in values], axis=0)
    honest = Round.announce(announcement, roster=roster)
    forged = replace(honest, total=words, phase=Phase.SUMMED).sums()["update"]
    assert np.abs(forged - plain).mean() > 1


def test_redelivery_is_harmless(towns, announcement, roster, values) -> None:
    answer = towns[0].answer(announcement, roster, values[0])
    once = Round.announce(announcement, roster=roster).receive(NAMES[0], answer)
    assert once.receive(NAMES[0], answer) is once


def test_a_late_answer_changes_nothing(towns, announcement, roster, values) -> None:
    closed = collect(towns, announcement, roster, values).close()
    assert closed.receive(NAMES[0], b"anything") is closed


def test_a_changed_answer_is_misbehaviour(towns, announcement, roster, values) -> None:
    round_ = Round.announce(announcement, roster=roster)
    round_ = round_.receive(NAMES[0], towns[0].answer(announcement, roster, values[0]))
    with pytest.raises(PeerMisbehavedError, match="changed"):
        round_.receive(NAMES[0], towns[0].answer(announcement, roster, values[1]))


def test_an_edge_cannot_answer_for_another(towns, announcement, roster, values) -> None:
    answer = towns[0].answer(announcement, roster, values[0])
    with pytest.raises(PeerMisbehavedError, match="in the name of bergen"):
        Round.announce(announcement, roster=roster).receive(NAMES[1], answer)


def test_an_unsigned_update_is_refused(towns, announcement, roster, values) -> None:
    answer = towns[0].answer(announcement, roster, values[0])
    with pytest.raises(BadSignatureError, match="bergen"):
        Round.announce(announcement, roster=roster).receive(NAMES[0], answer[:-1] + bytes([answer[-1] ^ 1]))


def test_a_changed_word_is_refused(towns, announcement, roster, values) -> None:
    answer = bytearray(towns[0].answer(announcement, roster, values[0]))
    answer[100] ^= 1
    with pytest.raises(BadSignatureError):
        Round.announce(announcement, roster=roster).receive(NAMES[0], bytes(answer))


def test_an_answer_to_another_round_is_refused(towns, announcement, roster, values) -> None:
    answer = towns[0].answer(replace(announcement, round=8), roster, values[0])
    with pytest.raises(PeerMisbehavedError, match="another announcement"):
        Round.announce(announcement, roster=roster).receive(NAMES[0], answer)


def test_a_stranger_is_not_in_the_round(towns, announcement, roster, values) -> None:
    answer = towns[0].answer(announcement, roster, values[0])
    with pytest.raises(PeerMisbehavedError, match="danzig is not in round 7"):
        Round.announce(announcement, roster=roster).receive(EdgeId("danzig"), answer)


def test_a_round_closes_once(towns, announcement, roster, values) -> None:
    closed = collect(towns, announcement, roster, values).close()
    with pytest.raises(OutOfTurnError):
        closed.close()


def test_a_cohort_with_somebody_outside_the_roster_is_not_announced(announcement, roster) -> None:
    stranger = replace(announcement, cohort=(*NAMES[:4], EdgeId("zwolle")))
    with pytest.raises(NotAdmittedError, match="zwolle"):
        Round.announce(stranger, roster=roster)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"round": 6}, "not newer than answered round 6"),
        ({"center_epoch": 0}, "epoch 0 is over"),
        ({"roster_version": 2}, "roster 2, this edge has 3"),
        ({"federation": "other"}, "federation other"),
        ({"deadline_ms": NOW - 1}, "deadline"),
        ({"cohort": tuple(NAMES[1:])}, "bergen is not in"),
        ({"cohort": (NAMES[0], NAMES[1])}, "would show one site to another"),
    ],
)
def test_an_edge_refuses_what_the_protocol_forbids(towns, announcement, roster, change, reason) -> None:
    signed = replace(announcement, **change).sign(CENTER)
    with pytest.raises(PeerMisbehavedError, match=reason):
        towns[0].accept(signed, roster, last_round=6, last_epoch=1)


def test_an_edge_refuses_a_sybil_in_the_cohort(towns, announcement, roster) -> None:
    signed = replace(announcement, cohort=(*NAMES[:4], EdgeId("zwolle"))).sign(CENTER)
    with pytest.raises(NotAdmittedError, match="zwolle"):
        towns[0].accept(signed, roster)


def test_an_edge_refuses_an_announcement_that_the_center_did_not_sign(towns, announcement, roster) -> None:
    with pytest.raises(BadSignatureError):
        towns[0].accept(announcement.sign(Ed25519PrivateKey.from_private_bytes(b"x" * 32)), roster)


def test_an_edge_masks_once(towns, announcement, roster, values) -> None:
    turn = towns[0].accept(announcement.sign(CENTER), roster)
    turn, _ = turn.mask(values[0], mask_key=towns[0].mask, identity_key=towns[0].identity)
    with pytest.raises(OutOfTurnError):
        turn.mask(values[1], mask_key=towns[0].mask, identity_key=towns[0].identity)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 4.1])
def test_a_value_beyond_its_bound_is_never_encoded(towns, announcement, roster, wrong) -> None:
    update = np.zeros(1000, np.float32)
    update[17] = wrong
    with pytest.raises(ValueError, match="update"):
        towns[0].answer(announcement, roster, {"update": update, "weight": 1.0})


@pytest.mark.parametrize("cut", [0, 3, 36, 37, 45, 49, 2000, -1])
def test_a_truncated_update_is_malformed(towns, announcement, roster, values, cut) -> None:
    answer = towns[0].answer(announcement, roster, values[0])
    with pytest.raises(MalformedMessageError):
        MaskedUpdate.from_bytes(answer[:cut])


def test_an_over_long_update_is_malformed(towns, announcement, roster, values) -> None:
    with pytest.raises(MalformedMessageError):
        MaskedUpdate.from_bytes(towns[0].answer(announcement, roster, values[0]) + b"\0")


def test_an_announcement_means_the_same_at_both_ends(announcement) -> None:
    """Whole numbers given by a settings file must not be written in two ways: the digests would differ."""
    given = replace(announcement, clip=4, layout=(Segment(name="x", length=2, bound=3),), training={"epochs": 2})
    assert Announcement.open(given.sign(CENTER), key=CENTER.public_key()).digest() == given.digest()
