import sqlite3
from dataclasses import replace

import pytest

from edge.rounds.ledger import Ledger
from protocol.announcement import Announcement, Purpose
from protocol.errors import RefusedByPolicyError, UnavailableError
from protocol.fixed_point import Segment
from protocol.identity import EdgeId, FederationId

DAY = 24 * 60 * 60 * 1000
ASKED = Announcement(
    federation=FederationId("hanse"),
    campaign="spring",
    round=4,
    key_epoch=1,
    roster_version=1,
    center_epoch=3,
    cohort=(EdgeId("riga"),),
    prekeys=(bytes(32),),
    purpose=Purpose.TRAIN,
    submodel="recommend",
    weights_sha256=bytes(32),
    window=0,
    layout=(Segment(name="update", length=1, bound=1.0),),
    clip=1.0,
    coordinate_clip=1.0,
    weight_cap=1,
    deadline_ms=1,
)


def asked(number, *, weights=None):
    return replace(ASKED, round=number, weights_sha256=bytes([number if weights is None else weights]) * 32)


def counted(number, *, window):
    return replace(ASKED, round=number, purpose=Purpose.POPULARITY, window=window)


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "state.db")
    yield ledger
    ledger.close()


def test_a_round_number_is_used_once(ledger) -> None:
    ledger.begin(asked(4), until=0, now_ms=0)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.begin(asked(4, weights=9), until=0, now_ms=0)


def test_a_question_is_answered_once(ledger) -> None:
    ledger.begin(asked(4), until=0, now_ms=0)
    ledger.keep_answer(4, b"words")
    with pytest.raises(RefusedByPolicyError, match="answered this question in round 4"):
        ledger.begin(asked(5, weights=4), until=0, now_ms=0)
    assert ledger.standing().last_round == 4


def test_what_was_begun_and_never_answered_has_told_nobody_anything(ledger) -> None:
    """Killed while it trained: its events are counted in the next round, and the question is free."""
    ledger.begin(counted(4, window=1), until=70, now_ms=0)
    assert ledger.mark(counted(5, window=1)) == 0
    ledger.begin(counted(5, window=1), until=70, now_ms=0)


def test_a_reopened_question_may_be_answered_again(ledger) -> None:
    ledger.begin(asked(4), until=0, now_ms=0)
    ledger.reopen(4)
    ledger.begin(asked(5, weights=4), until=0, now_ms=0)


def test_what_a_window_counted_is_counted_never_again(ledger) -> None:
    ledger.begin(counted(4, window=1), until=70, now_ms=0)
    ledger.keep_answer(4, b"words")
    assert ledger.mark(counted(5, window=2)) == 70
    ledger.reopen(4)
    assert ledger.mark(counted(5, window=1)) == 0


def test_round_and_epoch_survive_a_restart(ledger, tmp_path) -> None:
    ledger.begin(asked(4), until=0, now_ms=0)
    ledger.keep_answer(4, b"words")
    ledger.note_opened(4)
    ledger.follow(8)
    again = Ledger(tmp_path / "state.db")
    assert (again.standing().last_round, again.standing().last_epoch) == (4, 3)
    assert again.answer_to(asked(4).digest()) == b"words"
    assert again.has_opened(asked(4).digest())
    assert again.last_key_epoch() == 8
    again.close()


def test_a_round_that_was_begun_and_not_answered_has_no_answer(ledger) -> None:
    ledger.begin(asked(4), until=0, now_ms=0)
    assert ledger.answer_to(asked(4).digest()) is None
    assert ledger.standing().last_round == 4


def test_old_answers_are_not_hoarded(ledger) -> None:
    for number in range(8, 13):
        ledger.begin(asked(number), until=0, now_ms=0)
        ledger.keep_answer(number, b"words")
    kept = [ledger.answer_to(asked(n).digest()) is not None for n in range(8, 13)]
    assert kept == [False, False, False, True, True]


def test_rounds_of_the_last_day_are_counted(ledger) -> None:
    ledger.begin(asked(1), until=0, now_ms=0)
    ledger.begin(asked(2), until=0, now_ms=DAY)
    assert ledger.begun_since(DAY + 1) == 1


def test_a_damaged_ledger_says_what_to_do(tmp_path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database at all, but long enough to be read as one" * 20)
    with pytest.raises(UnavailableError, match=r"state\.db"):
        Ledger(tmp_path / "state.db")
