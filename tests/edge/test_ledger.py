import sqlite3

import pytest

from edge.ledger import Ledger
from protocol.errors import UnavailableError

DAY = 24 * 60 * 60 * 1000


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "state.db")
    yield ledger
    ledger.close()


def test_a_round_number_is_used_once(ledger) -> None:
    ledger.begin(4, announcement=b"a", epoch=1, now_ms=0)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.begin(4, announcement=b"b", epoch=1, now_ms=0)


def test_round_and_epoch_survive_a_restart(ledger, tmp_path) -> None:
    ledger.begin(4, announcement=b"a", epoch=3, now_ms=0)
    ledger.keep_answer(4, b"words")
    again = Ledger(tmp_path / "state.db")
    assert (again.standing().last_round, again.standing().last_epoch) == (4, 3)
    assert again.answer_to(b"a") == b"words"
    again.close()


def test_a_round_that_was_begun_and_not_answered_has_no_answer(ledger) -> None:
    ledger.begin(4, announcement=b"a", epoch=1, now_ms=0)
    assert ledger.answer_to(b"a") is None
    assert ledger.standing().last_round == 4


def test_old_answers_are_not_hoarded(ledger) -> None:
    for number in range(1, 6):
        ledger.begin(number, announcement=bytes([number]), epoch=1, now_ms=0)
        ledger.keep_answer(number, b"words")
    assert [ledger.answer_to(bytes([n])) is not None for n in range(1, 6)] == [False, False, False, True, True]


def test_rounds_of_the_last_day_are_counted(ledger) -> None:
    ledger.begin(1, announcement=b"a", epoch=1, now_ms=0)
    ledger.begin(2, announcement=b"b", epoch=1, now_ms=DAY)
    assert ledger.begun_since(DAY + 1) == 1


def test_a_damaged_ledger_says_what_to_do(tmp_path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database at all, but long enough to be read as one" * 20)
    with pytest.raises(UnavailableError, match=r"state\.db"):
        Ledger(tmp_path / "state.db")
