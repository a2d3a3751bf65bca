"""The derived books in ``store.db``: lists of what goes with what, and sums of each item, with how far they have read.

They say nothing that the events do not say. So they are made by whoever needs them, dropped when they are of another
format or other half-lives, and made anew beside the old ones where those are of use meanwhile.
"""

# ruff: noqa: S608 - names of tables are our own words

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.neighbours.entries import Changes, Row, Worth, added
from edge.neighbours.sums import COLUMNS, HalfLives, Sums, summed
from edge.neighbours.visits import Counted, Entries

FOLLOWER: Final = "neighbours"
ASIDE: Final = "_anew"
"""Ends the names of books that are being made anew."""
_FORMAT = 1
_MOST_NAMES = 1_000  # contexts that are told apart; more would be a list of visits
_AT_A_TIME = 1_024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """What is to be written: made without holding up anybody, written in a moment.

    Attributes:
        lists: new contents.
        gone: lists that are empty now.
        names: contexts that are new, with their lists.
        forgotten: lists of contexts that gave way to them.
        sums: new values; all of an item that is gone are 0.
    """

    lists: Sequence[Row]
    gone: Sequence[int]
    names: Mapping[str, int]
    forgotten: Sequence[int]
    sums: Sums

    def touched(self) -> list[int]:
        """All lists that change."""
        return [*(row[0] for row in self.lists), *self.gone, *self.forgotten]


class Books:
    """One set of tables. Holds no connection: every method is given one, and writes only where it is said."""

    def __init__(self, half_lives: HalfLives, *, suffix: str = "") -> None:
        self.half_lives = half_lives
        self._suffix = suffix
        self._name = f"{FOLLOWER}{suffix}"
        self._lists, self._items, self._names = self._tables(suffix)

    @staticmethod
    def _tables(suffix: str) -> tuple[str, str, str]:
        return f"neighbour_lists{suffix}", f"neighbour_items{suffix}", f"neighbour_names{suffix}"

    def position(self, db: sqlite3.Connection) -> int | None:
        """The last event that was counted; None: there are no books, or they are of another kind."""
        row = db.execute("SELECT event FROM followers WHERE name = ?", (self._name,)).fetchone()
        return int(row[0]) if row and self._is_ours(db) else None

    def exist(self, db: sqlite3.Connection) -> bool:
        """Whether there are any, ours or not."""
        return bool(db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (self._names,)).fetchone())

    def begin(self, db: sqlite3.Connection) -> None:
        """Drop what there is and begin with empty books. Writes."""
        self.drop(db)
        db.execute(
            f"CREATE TABLE {self._lists} (id INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, entries BLOB) STRICT"
        )
        db.execute(
            f"CREATE TABLE {self._items} (item INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, bought REAL NOT NULL, "
            "viewed REAL NOT NULL, usual REAL NOT NULL, hot REAL NOT NULL) STRICT"
        )
        db.execute(f"CREATE TABLE {self._names} (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT")
        db.execute(f"INSERT INTO {self._names} VALUES (0, ?)", (self._kind(),))
        self.move(db, 0)

    def drop(self, db: sqlite3.Connection) -> None:
        """Writes."""
        for table in (self._lists, self._items, self._names):
            db.execute(f"DROP TABLE IF EXISTS {table}")
        db.execute("DELETE FROM followers WHERE name = ?", (self._name,))

    def move(self, db: sqlite3.Connection, event: int) -> None:
        """All events up to this one are counted. Writes."""
        db.execute(
            "INSERT INTO followers VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET event = excluded.event",
            (self._name, event),
        )

    def take_place(self, db: sqlite3.Connection) -> None:
        """Stand where the books of this kind without a suffix stood. Writes."""
        old, position = Books(self.half_lives), self.position(db)
        old.drop(db)
        for mine, theirs in zip(self._tables(self._suffix), self._tables(""), strict=True):
            db.execute(f"ALTER TABLE {mine} RENAME TO {theirs}")
        db.execute("DELETE FROM followers WHERE name = ?", (self._name,))
        old.move(db, position or 0)

    def names(self, db: sqlite3.Connection) -> dict[str, int]:
        """The lists of contexts."""
        return dict(db.execute(f"SELECT name, id FROM {self._names} WHERE id < 0"))

    def rows(self, db: sqlite3.Connection, lists: Sequence[int]) -> list[Row]:
        """Those there are, in order."""
        asked = (
            f"SELECT id, time_ms, entries FROM {self._lists} WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id"
        )
        return db.execute(asked, (json.dumps(lists),)).fetchall()

    def _sums(self, db: sqlite3.Connection, items: NDArray[np.int64]) -> Sums:
        asked = f"SELECT {COLUMNS} FROM {self._items} WHERE item IN (SELECT value FROM json_each(?))"
        return Sums.of(db.execute(asked, (json.dumps(items.tolist()),)).fetchall())

    def all_sums(self, db: sqlite3.Connection) -> Iterator[Sums]:
        """All items, some thousand at a time."""
        rows = db.execute(f"SELECT {COLUMNS} FROM {self._items}")
        while some := rows.fetchmany(_AT_A_TIME):
            yield Sums.of(some)

    def entry(self, db: sqlite3.Connection, counted: Counted, *, sign: int, worth: Worth) -> Entry:
        """What the books will say after this was added (sign 1) or taken out (-1)."""
        fresh, forgotten, entries = self._named(db, counted, sign=sign)
        memory = self.half_lives.memory_ms
        changes = Changes.of(entries, half_life_ms=memory, sign=sign)
        lists, gone = added(self.rows(db, changes.lists()), changes, half_life_ms=memory, worth=worth)
        sums = summed(self._sums(db, np.unique(counted.item)), counted, half_lives=self.half_lives, sign=sign)
        return Entry(lists=lists, gone=gone, names=fresh, forgotten=forgotten, sums=sums)

    def write(self, db: sqlite3.Connection, entry: Entry) -> None:
        """Writes."""
        nothing = ~entry.sums.value.any(axis=1)
        vanished = entry.sums.item[nothing].tolist()
        values = zip(entry.sums.item.tolist(), entry.sums.time_ms.tolist(), *entry.sums.value.T.tolist(), strict=True)
        db.executemany(f"INSERT INTO {self._names} VALUES (?, ?)", [(at, name) for name, at in entry.names.items()])
        db.executemany(f"INSERT OR REPLACE INTO {self._lists} VALUES (?, ?, ?)", entry.lists)
        db.executemany(f"INSERT OR REPLACE INTO {self._items} VALUES (?, ?, ?, ?, ?, ?)", values)
        for table, column, numbers in (
            *((table, "id", [*entry.gone, *entry.forgotten]) for table in (self._lists, self._names)),
            (self._items, "item", vanished),
        ):
            db.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(number,) for number in numbers])

    def _named(
        self, db: sqlite3.Connection, counted: Counted, *, sign: int
    ) -> tuple[dict[str, int], list[int], Entries]:
        """New contexts, lists that give way to them, and the entries under the numbers that contexts have here."""
        known, fresh, forgotten = self.names(db), {}, []
        lowest = min(known.values(), default=0)
        for kind, names in _by_kind(name for name in counted.names if sign > 0 and name not in known).items():
            room = _MOST_NAMES - sum(name.startswith(kind) for name in known)
            if room < len(names):
                stale = self._stale(db, kind, counted)
                forgotten += stale
                room += len(stale)
            for name in names[: max(room, 0)]:
                fresh[name] = lowest = lowest - 1
        numbers = np.array([*(fresh.get(name) or known.get(name, 0) for name in counted.names), 0], np.int64)
        given = counted.entries
        lists = np.where(given.list_id < 0, numbers[np.maximum(-1 - given.list_id, 0)], given.list_id)
        return fresh, forgotten, replace(given, list_id=lists).where(lists != 0)

    def _stale(self, db: sqlite3.Connection, kind: str, counted: Counted) -> list[int]:
        """Contexts of a kind that nobody was in for a half-life."""
        since = int(counted.time_ms.max(initial=0) - self.half_lives.memory_ms)
        asked = (
            f"SELECT name, {self._names}.id FROM {self._names} LEFT JOIN {self._lists} USING (id) "
            "WHERE substr(name, 1, ?) = ? AND coalesce(time_ms, 0) < ?"
        )
        seen = set(counted.names)
        return [number for name, number in db.execute(asked, (len(kind), kind, since)) if name not in seen]

    def _is_ours(self, db: sqlite3.Connection) -> bool:
        if not self.exist(db):
            return False
        row = db.execute(f"SELECT name FROM {self._names} WHERE id = 0").fetchone()
        return bool(row) and row[0] == self._kind()

    def _kind(self) -> str:
        """What must be the same for books to be of use."""
        return f"format {_FORMAT}, half-lives {self.half_lives.memory_ms:.0f} and {self.half_lives.trend_ms:.0f} ms"


def _by_kind(names: Iterable[str]) -> dict[str, list[str]]:
    """``region=DE`` under ``region=``."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(f"{name.partition('=')[0]}=", []).append(name)
    return found
