import math
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Literal

import pytest

from edge.rounds import spending
from edge.rounds.spending import Spending
from protocol.errors import RefusedByPolicyError, UnavailableError
from protocol.privacy import ORDERS

DAY = 24 * 60 * 60 * 1000
CHEAP = [0.001 * order for order in ORDERS]
DEAR = [0.01 * order for order in ORDERS]


@dataclass(frozen=True)
class Allowed:
    epsilon: float | Literal["unlimited"] = "unlimited"
    delta: float = 1e-6


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spending.db"


@pytest.fixture
def books(path):
    opened = []

    def open_books(epsilon="unlimited", *, rounds_per_day=4, at=path):
        opened.append(Spending(at, Allowed(epsilon), rounds_per_day=rounds_per_day))
        return opened[-1]

    yield open_books
    for book in opened:
        book.close()


def gaussian_epsilon(rdp, delta=1e-6):
    """Proposition 12 of Canonne, Kamath and Steinke, written down once more."""
    return min(
        cost + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
        for order, cost in zip(ORDERS, rdp, strict=True)
    )


def test_nothing_asked_nothing_spent(books) -> None:
    assert (books().spent("train"), books().total()) == (0.0, 0.0)


def test_rounds_add_up_order_by_order_and_not_epsilon_by_epsilon(books) -> None:
    book = books()
    for number in range(1, 11):
        book.debit("train", CHEAP, round=number, now_ms=0)
    assert book.spent("train") == pytest.approx(gaussian_epsilon([10 * cost for cost in CHEAP]))
    assert book.spent("train") < 5 * gaussian_epsilon(CHEAP)


def test_purposes_are_told_apart_and_paid_from_one_purse(books) -> None:
    book = books()
    book.debit("train", CHEAP, round=1, now_ms=0)
    book.debit("popularity", DEAR, round=2, now_ms=0)
    assert book.spent("train") == pytest.approx(gaussian_epsilon(CHEAP))
    assert book.spent("popularity") == pytest.approx(gaussian_epsilon(DEAR))
    assert book.total() == pytest.approx(gaussian_epsilon([a + b for a, b in zip(CHEAP, DEAR, strict=True)]))


def test_a_round_beyond_the_budget_is_refused_and_costs_nothing(books) -> None:
    book = books(gaussian_epsilon([2 * cost for cost in DEAR]) * 1.001)
    book.debit("train", DEAR, round=1, now_ms=0)
    book.debit("popularity", DEAR, round=2, now_ms=0)
    before = book.total()
    with pytest.raises(RefusedByPolicyError, match="round 3") as refused:
        book.debit("train", DEAR, round=3, now_ms=0)
    assert "edge.toml" in refused.value.line()
    assert book.total() == before


def test_without_a_budget_the_books_are_kept_all_the_same(books) -> None:
    book = books("unlimited")
    for number in range(1, 50):
        book.debit("train", DEAR, round=number, now_ms=0)
    assert book.total() > 5
    with pytest.raises(RefusedByPolicyError):
        books(5.0).debit("train", CHEAP, round=50, now_ms=0)


def test_the_same_round_again_is_paid_again(books) -> None:
    # A number that comes twice comes from a restored ledger: what was sent then is not what will be sent now.
    book = books()
    for _ in range(2):
        book.debit("train", CHEAP, round=1, now_ms=0)
    assert book.total() == pytest.approx(gaussian_epsilon([2 * cost for cost in CHEAP]))


@pytest.mark.parametrize("wrong", [-0.1, math.nan, math.inf])
def test_a_price_that_refunds_or_says_nothing_is_no_price(books, wrong) -> None:
    book = books()
    with pytest.raises(ValueError, match="finite"):
        book.debit("train", [wrong, *CHEAP[1:]], round=1, now_ms=0)
    with pytest.raises(ValueError, match="argument"):
        book.debit("train", CHEAP[1:], round=1, now_ms=0)
    assert book.total() == 0


def test_what_was_spent_survives_a_restart(books) -> None:
    books().debit("train", CHEAP, round=1, now_ms=0)
    assert books().total() == pytest.approx(gaussian_epsilon(CHEAP))


def test_the_books_are_one_file(books, path) -> None:
    # With a log beside it, a copy of the file alone would be old, and a file put back beside a log would be damaged.
    books().debit("train", CHEAP, round=1, now_ms=0)
    assert list(path.parent.iterdir()) == [path]


SPENDER = """
import sys
from pathlib import Path
from types import SimpleNamespace
from edge.rounds.spending import Spending
from protocol.privacy import ORDERS
book = Spending(Path(sys.argv[1]), SimpleNamespace(epsilon="unlimited", delta=1e-6), rounds_per_day=4)
for number in range(1, 100_000):
    book.debit("train", [0.001 * order for order in ORDERS], round=number, now_ms=0)
    print(number, flush=True)
"""


@pytest.mark.parametrize("answers", [1, 7])
def test_a_learner_killed_between_debit_and_answer_has_paid(books, path, answers) -> None:
    with subprocess.Popen([sys.executable, "-c", SPENDER, str(path)], stdout=subprocess.PIPE, text=True) as spender:
        said = [spender.stdout.readline() for _ in range(answers)][-1]
        spender.send_signal(signal.SIGKILL)
        said = [said, *spender.stdout.read().splitlines()][-1]
    assert books().total() >= gaussian_epsilon([int(said) * cost for cost in CHEAP]) * (1 - 1e-9)


def test_what_a_restored_copy_has_forgotten_is_paid_at_the_highest_price(books, path, tmp_path) -> None:
    begun = time.time_ns() // 1_000_000
    book = books(rounds_per_day=4)
    book.debit("train", DEAR, round=1, now_ms=begun)
    book.debit("train", CHEAP, round=2, now_ms=begun)
    shutil.copyfile(path, tmp_path / "backup")
    for number in range(3, 11):
        book.debit("train", DEAR, round=number, now_ms=begun + (number - 3) // 4 * DAY + 1)
    truth = book.spent("train")
    book.close()
    shutil.copyfile(tmp_path / "backup", path)
    book = books(rounds_per_day=4)
    assert book.spent("train") < truth
    book.charge_for_restore(now_ms=begun + DAY + DAY // 2)
    assert book.spent("train") >= truth
    assert book.total() == pytest.approx(
        gaussian_epsilon([cheap + 9 * dear for cheap, dear in zip(CHEAP, DEAR, strict=True)])
    )


def test_all_rounds_of_a_day_may_have_been_in_its_first_minute(books) -> None:
    book = books(rounds_per_day=4)
    book.debit("train", CHEAP, round=1, now_ms=1000)
    book.charge_for_restore(now_ms=61_000)
    assert book.total() == pytest.approx(gaussian_epsilon([5 * cost for cost in CHEAP]))


def test_a_copy_from_before_the_first_private_round_is_paid_for_by_the_next(books) -> None:
    book = books(rounds_per_day=4)
    book.charge_for_restore(now_ms=time.time_ns() // 1_000_000 + DAY // 2)
    assert book.total() == 0
    book.debit("train", CHEAP, round=9, now_ms=DAY)
    assert book.total() == pytest.approx(gaussian_epsilon([5 * cost for cost in CHEAP]))
    book.debit("train", DEAR, round=10, now_ms=DAY)
    assert book.total() == pytest.approx(
        gaussian_epsilon([cheap + 5 * dear for cheap, dear in zip(CHEAP, DEAR, strict=True)])
    )


def test_a_clock_that_was_set_back_does_not_make_a_restore_free(books) -> None:
    book = books(rounds_per_day=4)
    book.debit("train", CHEAP, round=1, now_ms=5 * DAY)
    book.charge_for_restore(now_ms=2 * DAY)
    assert book.total() == pytest.approx(gaussian_epsilon([5 * cost for cost in CHEAP]))


def test_a_restore_may_leave_nothing_to_spend(books) -> None:
    book = books(epsilon=gaussian_epsilon([2 * cost for cost in DEAR]), rounds_per_day=200)
    book.debit("train", DEAR, round=1, now_ms=0)
    book.charge_for_restore(now_ms=DAY)
    with pytest.raises(RefusedByPolicyError):
        book.debit("train", CHEAP, round=2, now_ms=DAY)


def test_books_of_an_older_version_do_not_lose_what_they_say(books, monkeypatch) -> None:
    # An order that is new has no past, so no epsilon may be computed from it.
    books().debit("train", DEAR, round=1, now_ms=0)
    newer = (2, 3, 1000, 100_000)
    monkeypatch.setattr(spending, "ORDERS", newer)
    book = books()
    book.debit("train", [0.0] * 4, round=2, now_ms=0)
    both = [
        cost + math.log1p(-1 / order) - math.log(1e-6 * order) / (order - 1) for order, cost in ((2, 0.02), (3, 0.03))
    ]
    assert book.total() == pytest.approx(min(both))
    monkeypatch.setattr(spending, "ORDERS", (7777,))
    books().debit("train", [0.0], round=3, now_ms=0)
    assert books().total() == math.inf
    with pytest.raises(RefusedByPolicyError):
        books(100.0).debit("train", [0.0], round=4, now_ms=0)


def test_damaged_books_open_no_new_account(path, books) -> None:
    path.write_bytes(b"not a database at all, but long enough to be read as one" * 20)
    with pytest.raises(UnavailableError, match=r"spending\.db"):
        books()
    assert path.read_bytes().startswith(b"not a database")


def test_what_cannot_be_written_down_is_not_spent(books) -> None:
    book = books()
    book._db.execute("PRAGMA query_only = ON")
    with pytest.raises(UnavailableError):
        book.debit("train", CHEAP, round=1, now_ms=0)
    book._db.execute("PRAGMA query_only = OFF")
    book.debit("train", CHEAP, round=1, now_ms=0)
    assert book.total() == pytest.approx(gaussian_epsilon(CHEAP))
