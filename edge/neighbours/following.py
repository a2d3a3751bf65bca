"""From new events to the derived books: each event is counted once, whatever is killed when.

What is read, worked out and written goes by one snapshot of the store: the books, how far they have read, and the
events behind that. It is worked out without holding up anybody, and written in one short transaction, with the new
position, only if position and events are still those it was worked out from.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.neighbours.books import ASIDE, FOLLOWER, Books, Entry
from edge.neighbours.entries import Worth
from edge.neighbours.sums import BASKETS, HalfLives, Interest
from edge.neighbours.visits import KINDS, LONGEST_MS, Lines, count
from edge.records import changes
from edge.records.changes import Recorded
from edge.records.store import Store
from protocol.errors import UnavailableError

AT_A_TIME: Final = 2_000
"""Events of one transaction."""
_BEFORE = 256  # events of one visit before the new ones that are looked at
_LOOK_BACK_MS = (
    2 * LONGEST_MS
)  # whether an older event was the first of its kind in its visit is seen from those before it
_AGAIN = 20
# The conditions repeat those of the index events_history, which SQLite uses only where it can see that. One text of
# numbers is read in a tenth of the time that so many rows take.
_OF_VISIT = """
    SELECT group_concat(id || ',' || item || ',' || type || ',' || time_ms) FROM (
        SELECT id, item, type, time_ms FROM events
        WHERE user = ? AND session IS ? AND time_ms BETWEEN ? AND ? AND id <= ? AND type <= 4 AND item IS NOT NULL
        ORDER BY id DESC LIMIT ?
    )"""
_NOBODY: dict[tuple[int, str | None], int] = {}


class Follower:
    """Reads on in the events and counts them; in one thread."""

    def __init__(
        self,
        store: Store,
        books: Books,
        *,
        changed: Callable[[Entry], None] = lambda _: None,
        renewed: Callable[[], None] = lambda: None,
    ) -> None:
        """Follow into these books.

        Args:
            changed: told what has been written, once it is on disk.
            renewed: told when others have changed more than can be said.
        """
        self._store = store
        self._books = books
        self._changed = changed
        self._renewed = renewed
        self.interest = Interest(books.half_lives)
        self._of = -1  # the generation of the books that the interest was read from

    def step(self, *, most: int = AT_A_TIME) -> int:
        """Count the next events; returns how many were read.

        Raises:
            UnavailableError: somebody else writes these books all the time; NoSpaceError: the disk is full.
        """
        for _ in range(_AGAIN):
            self.refresh()
            with self._store.reading() as db, _snapshot(db):
                position, generation = self._books.position(db), _generation(db)
                events = [] if position is None else changes.events_after(db, position, most)
                entry = _entry(db, self._books, events, position or 0, worth=worth(self.interest)) if events else None
            if position is not None and entry is None:
                return 0
            with self._store.writing() as db:
                if entry is None or position is None:
                    self._books.begin(db)
                    _count_up(db)
                elif self._still(db, position, generation, events):
                    self._books.write(db, entry)
                    self._books.move(db, events[-1].key)
                else:
                    continue
            if entry is not None:
                self.interest.put(entry.sums)
                self._changed(entry)
                return len(events)
        raise UnavailableError("the derived books change under the one who writes them", advice="is another at it?")

    def refresh(self) -> None:
        """Take in what others have changed."""
        with self._store.reading() as db, _snapshot(db):
            generation = _generation(db)
            if generation == self._of:
                return
            there = self._books.position(db) is not None
            self.interest.replace(self._books.all_sums(db) if there else ())
            self._of = generation
        self._renewed()

    def behind(self) -> int:
        """How many events there are that have not been counted, about."""
        with self._store.reading() as db:
            newest = db.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0]
            return max(int(newest) - (self._books.position(db) or 0), 0)

    def _still(self, db: sqlite3.Connection, position: int, generation: int, events: Sequence[Recorded]) -> bool:
        """Nobody has counted, erased or begun anew meanwhile."""
        if self._books.position(db) != position or _generation(db) != generation:
            return False
        asked = "SELECT count(*) FROM events WHERE id > ? AND id <= ?"
        there = db.execute(asked, (position, events[-1].key)).fetchone()[0]
        return bool(there == len(events))


def forget(db: sqlite3.Connection, events: Sequence[Recorded], *, half_lives: HalfLives) -> None:
    """Take out of all books what these events have put in; for the transaction in which they are erased. Writes.

    Args:
        events: all of a user's that are in the store, or all of a session's.
    """
    for suffix in ("", ASIDE):
        books = Books(half_lives, suffix=suffix)
        position = books.position(db)
        if position is None:  # made for other settings: of no use, and nobody can take anything out of them
            (books.drop if suffix else books.begin)(db)
            continue
        counted = sorted((event for event in events if event.key <= position), key=lambda event: event.key)
        for start in range(0, len(counted), AT_A_TIME):
            visits = dict(_NOBODY)
            before = Lines.of(counted[max(start - _BEFORE, 0) : start], visits)
            fresh = Lines.of(counted[start : start + AT_A_TIME], visits)
            entry = books.entry(db, count(before, fresh), sign=-1, worth=lambda _list, _others, weights: weights)
            books.write(db, entry)
    _count_up(db)


def make_anew(store: Store, half_lives: HalfLives, *, progress: Callable[[int], None] = lambda _: None) -> int:
    """Make the books from the first event on, beside those in use, and put them in their place; how many events.

    Args:
        progress: told how many events have been read.
    """
    books = Books(half_lives, suffix=ASIDE)
    with store.writing() as db:
        books.begin(db)
        _count_up(db)
    follower, done = Follower(store, books), 0
    while True:
        while read := follower.step():
            done += read
            progress(done)
        with store.writing() as db:
            if not changes.events_after(db, books.position(db) or 0, 1):
                books.take_place(db)
                _count_up(db)
                return done


def worth(interest: Interest) -> Worth:
    """What an entry is worth when a list is cut: rare companions are worth more than what goes with everything."""

    def told(number: int, others: NDArray[np.int64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
        if number < 0:
            return weight
        total = interest.of(others, BASKETS + number % len(KINDS), now_ms=interest.newest_ms)
        return weight / np.sqrt(np.maximum(total, 1.0))

    return told


def _entry(db: sqlite3.Connection, books: Books, events: Sequence[Recorded], position: int, *, worth: Worth) -> Entry:
    visits = dict(_NOBODY)
    fresh = Lines.of(events, visits)
    before = _before(db, events, position, visits)
    return books.entry(db, count(before, fresh), sign=1, worth=worth)


def _before(
    db: sqlite3.Connection, events: Sequence[Recorded], position: int, visits: Mapping[tuple[int, str | None], int]
) -> Lines:
    """What happened just before in the same visits, and was counted already."""
    spans: dict[tuple[int, str | None], tuple[int, int]] = {}
    for event in events:
        low, high = spans.get((event.user, event.session), (event.time_ms, event.time_ms))
        spans[event.user, event.session] = min(low, event.time_ms), max(high, event.time_ms)
    found = []
    for (user, session), number in visits.items():
        low, high = spans[user, session]
        asked = (user, session, low - _LOOK_BACK_MS, high + _LOOK_BACK_MS, position, _BEFORE)
        (text,) = db.execute(_OF_VISIT, asked).fetchone()
        if text:
            found.append((number, np.fromstring(text, np.int64, sep=",").reshape(-1, 4)))
    return Lines.older(found)


@contextmanager
def _snapshot(db: sqlite3.Connection) -> Iterator[None]:
    """All reads see one state of the store."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("COMMIT")


def _generation(db: sqlite3.Connection) -> int:
    """Changes whenever the books were changed otherwise than by counting on."""
    row = db.execute("SELECT value FROM marks WHERE name = ?", (FOLLOWER,)).fetchone()
    return int(row[0]) if row else 0


def _count_up(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO marks VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1", (FOLLOWER,))
