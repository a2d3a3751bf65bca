"""What the users of this site have spent of their privacy: booked before anything leaves, and never refunded.

The books are one SQLite file without companions, so that a copy of it is whole. They add up Renyi divergences, order by
order, because those simply add up; epsilon is computed from the sums when it is asked for. A debit is on disk before
`debit` returns: what is booked and then not sent, after a crash say, stays spent.

A copy that was restored lacks what was spent after it was made. Nobody can say how much that was, but the site's own
policy says how many rounds it can have been at most. Those are booked as unknown rounds, each at the price of the
dearest round in the books, even one that is booked only later.
"""

import json
import math
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self

from protocol.errors import RefusedByPolicyError, UnavailableError
from protocol.privacy import ORDERS

UNLIMITED: Literal["unlimited"] = "unlimited"
_DAY_MS = 24 * 60 * 60 * 1000
_TABLES = (
    (
        "CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, purpose TEXT NOT NULL,"
        " round INTEGER NOT NULL, unknown_rounds INTEGER NOT NULL) STRICT"
    ),
    "CREATE TABLE IF NOT EXISTS accounts (purpose TEXT PRIMARY KEY, account TEXT NOT NULL) STRICT",
)
_ENTRY = "INSERT INTO entries (at_ms, purpose, round, unknown_rounds) VALUES (?, ?, ?, ?)"


class Budget(Protocol):
    """What a site's operator allows, such as the section `privacy` of ``edge.toml``."""

    @property
    def epsilon(self) -> float | Literal["unlimited"]:
        """What one user may lose over the life of these books, all purposes together."""

    @property
    def delta(self) -> float:
        """The chance with which epsilon may not hold."""


@dataclass(frozen=True, slots=True)
class _Account:
    """Renyi divergences of one purpose, in nats by order: the sum, and that of the dearest round."""

    total: Mapping[int, float]
    dearest: Mapping[int, float]

    def booked(self, price: Mapping[int, float]) -> Self:
        """With one round more; an order that this program has come to know only now stays unknown."""
        orders = self.total.keys() & price.keys()
        return type(self)(
            {order: self.total[order] + price[order] for order in orders},
            {order: max(self.dearest[order], price[order]) for order in orders},
        )

    def to_text(self) -> str:
        return json.dumps({str(order): (self.total[order], self.dearest[order]) for order in self.total})

    @classmethod
    def from_text(cls, text: str) -> Self:
        both = {int(order): (float(total), float(dearest)) for order, (total, dearest) in json.loads(text).items()}
        return cls(
            {order: total for order, (total, _) in both.items()},
            {order: dearest for order, (_, dearest) in both.items()},
        )


class Spending:
    """The books of one site."""

    def __init__(self, path: Path, budget: Budget, *, rounds_per_day: int) -> None:
        """Open, or create.

        Args:
            rounds_per_day: begun in 24 hours at most, by this site's policy.

        Raises:
            UnavailableError: not a database, or not writable.
        """
        self._budget = budget
        self._rounds_per_day = rounds_per_day
        self._path = path
        try:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            # A rollback journal keeps all in one file; EXTRA flushes its removal too, lest a power cut undo a commit.
            self._db.execute("PRAGMA journal_mode=DELETE")
            self._db.execute("PRAGMA synchronous=EXTRA")
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        with self._transaction():
            for table in _TABLES:
                self._db.execute(table)
            if self._newest_ms() is None:
                self._db.execute(_ENTRY, (time.time_ns() // 1_000_000, "opened", 0, 0))

    def close(self) -> None:
        self._db.close()

    def debit(self, purpose: str, rdp: Sequence[float], *, round: int, now_ms: int) -> None:  # noqa: A002 - its name
        """Book one round, durably, or refuse it.

        Args:
            rdp: Renyi divergence in nats at each of `protocol.privacy.ORDERS`.

        Raises:
            RefusedByPolicyError: with it the users of this site would have spent more than the budget.
            UnavailableError: it could not be written down.
        """
        price = _price(rdp)
        with self._transaction():
            accounts = self._accounts()
            known = accounts.get(purpose)
            accounts[purpose] = known.booked(price) if known else _Account(price, price)
            self._check(self._epsilon(accounts.values()), round)
            self._db.execute(
                "INSERT INTO accounts (purpose, account) VALUES (?, ?)"
                " ON CONFLICT (purpose) DO UPDATE SET account = excluded.account",
                (str(purpose), accounts[purpose].to_text()),
            )
            self._db.execute(_ENTRY, (now_ms, str(purpose), round, 0))

    def _check(self, epsilon: float, number: int) -> None:
        budget = self._budget
        if budget.epsilon != UNLIMITED and not epsilon <= float(budget.epsilon):
            raise RefusedByPolicyError(
                f"this site's policy refuses round {number}: it would make epsilon {epsilon:.3g} at delta"
                f" {budget.delta:g}, the budget is {budget.epsilon:g}",
                advice="privacy.epsilon in edge.toml",
            )

    def charge_for_restore(self, *, now_ms: int) -> None:
        """Book the most that can have been spent since the newest entry: this file is a copy that was put back.

        Call it once for each restore. It never refuses; what it books may leave nothing to spend.
        """
        with self._transaction():
            newest_ms = self._newest_ms()
            days = max(1, math.ceil((now_ms - (now_ms if newest_ms is None else newest_ms)) / _DAY_MS))
            self._db.execute(_ENTRY, (now_ms, "restored", 0, days * self._rounds_per_day))

    def spent(self, purpose: str) -> float:
        """Epsilon of all rounds of one purpose, at the budget's delta."""
        account = self._accounts().get(purpose)
        return self._epsilon([account] if account else [])

    def total(self) -> float:
        """Epsilon of all rounds together: less than the sum over the purposes."""
        return self._epsilon(self._accounts().values())

    def _epsilon(self, accounts: Iterable[_Account]) -> float:
        accounts = list(accounts)
        if not accounts:
            return 0.0
        unknown = self._db.execute("SELECT sum(unknown_rounds) FROM entries").fetchone()[0]
        orders = sorted(set.intersection(*(set(account.total) for account in accounts)))
        sums = [
            sum(account.total[order] for account in accounts)
            + unknown * max(account.dearest[order] for account in accounts)
            for order in orders
        ]
        return _epsilon(orders, sums, delta=self._budget.delta)

    def _accounts(self) -> dict[str, _Account]:
        rows = self._db.execute("SELECT purpose, account FROM accounts")
        return {purpose: _Account.from_text(text) for purpose, text in rows}

    def _newest_ms(self) -> int | None:
        row = self._db.execute("SELECT at_ms FROM entries ORDER BY id DESC LIMIT 1").fetchone()
        return int(row[0]) if row else None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _unavailable(self, error: sqlite3.Error) -> UnavailableError:
        return UnavailableError(f"{self._path}: {error}", advice="what was spent must not be guessed")


def _price(rdp: Sequence[float]) -> dict[int, float]:
    if any(not 0 <= value < math.inf for value in rdp):  # also true for NaN; a negative price would be a refund
        raise ValueError("a round costs something finite at every order")
    return dict(zip(ORDERS, map(float, rdp), strict=True))


def _epsilon(orders: Sequence[int], rdp: Sequence[float], *, delta: float) -> float:
    """The conversion of Canonne, Kamath and Steinke (arXiv:2004.00010, proposition 12), at the best of these orders."""
    from dp_accounting.rdp import compute_epsilon  # noqa: PLC0415 - a second of imports that only private rounds need

    return float(compute_epsilon(orders, rdp, delta)[0]) if orders else math.inf
