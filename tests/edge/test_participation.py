"""What an edge answers when the center asks: nothing twice, nothing unasked, nothing beyond its policy."""

from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.keys import Keys
from edge.ledger import Ledger
from edge.participation import Participation
from edge.settings import PolicySettings
from protocol import lessons
from protocol.identity import EdgeId, FederationId, Roster
from protocol.messages import Announcement, MaskedUpdate, Purpose
from protocol.transport import Request

CENTER = Ed25519PrivateKey.from_private_bytes(b"c" * 32)
NAMES = [EdgeId(name) for name in ("bergen", "bruges", "visby")]
NOW = 1_700_000_000_000
WEIGHTS = b"weights"


class CountingLesson:
    """Says the same every time, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def layout(self, _announcement, _weights):
        return lessons.popularity_layout(9)

    def values(self, _announcement, _weights):
        self.asked += 1
        return {"counts": np.arange(10, dtype=np.float32), "weight": 1.0}


@pytest.fixture(scope="module")
def keys() -> list[Keys]:
    return [Keys.generate() for _ in NAMES]


@pytest.fixture
def lesson() -> CountingLesson:
    return CountingLesson()


@pytest.fixture
def participation(keys, lesson, tmp_path):
    roster = Roster.of(FederationId("hanse"), 1, [k.member(name) for k, name in zip(keys, NAMES, strict=True)])
    ledger = Ledger(tmp_path / "state.db")
    yield Participation(
        me=NAMES[0],
        keys=keys[0],
        center=CENTER.public_key(),
        roster=lambda: roster,
        policy=PolicySettings(min_cohort=3),
        ledger=ledger,
        lessons={"popularity": lesson},
        now_ms=lambda: NOW,
    )
    ledger.close()


ASKED = Announcement(
    federation=FederationId("hanse"),
    campaign="spring",
    round=5,
    roster_version=1,
    center_epoch=1,
    cohort=tuple(NAMES),
    purpose=Purpose.POPULARITY,
    submodel="recommend",
    weights_sha256=sha256(WEIGHTS).digest(),
    layout=lessons.popularity_layout(9),
    clip=1.0,
    weight_cap=100,
    deadline_ms=NOW + 1,
)


def request(announcement: Announcement, weights: bytes = WEIGHTS) -> Request:
    return Request(action="masked-update", announcement=announcement.sign(CENTER), weights=weights)


def test_the_answer_is_signed_by_this_edge_for_this_announcement(participation, keys) -> None:
    update = MaskedUpdate.from_bytes(participation.answer(request(ASKED)).body)
    assert (update.edge, update.announcement) == (NAMES[0], ASKED.digest())
    update.check(keys[0].identity.public_key())


def test_asked_again_it_sends_the_stored_bytes_and_computes_nothing(participation, lesson) -> None:
    first, second = participation.answer(request(ASKED)), participation.answer(request(ASKED))
    assert first.body == second.body
    assert lesson.asked == 1


def test_one_round_number_is_never_computed_for_two_announcements(participation, lesson) -> None:
    participation.answer(request(ASKED))
    other = participation.answer(request(replace(ASKED, campaign="autumn")))
    assert "not newer than answered round 5" in other.error
    assert lesson.asked == 1


def test_a_round_begun_before_a_crash_is_dropped_not_computed_again(participation, lesson) -> None:
    participation.ledger.begin(5, announcement=ASKED.digest(), epoch=1, now_ms=NOW)
    assert participation.answer(request(ASKED)).error is not None
    assert lesson.asked == 0


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (request(ASKED, weights=b"other weights"), "not the announced ones"),
        (request(replace(ASKED, purpose=Purpose.TRAIN)), "nothing here answers"),
        (request(replace(ASKED, layout=lessons.popularity_layout(8))), "layout"),
        (request(replace(ASKED, clip=1e9)), "policy refuses a clip"),
        (request(replace(ASKED, cohort=tuple(NAMES[1:]))), "bergen is not in"),
        (Request(action="masked-update", announcement=b"{}", weights=WEIGHTS), "not a signed document"),
    ],
)
def test_a_refusal_uses_no_round_number_up(participation, lesson, asked, why) -> None:
    assert why in participation.answer(asked).error
    assert lesson.asked == 0
    assert participation.ledger.standing().last_round == 0
