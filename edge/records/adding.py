"""Batches of events into the books: names become keys, known keys are remembered, rows go in as they lie.

A key is looked up in the database once and then remembered, until there are too many or somebody else has committed:
another process may have erased the user.
"""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Final, Literal

from edge.records.batch import VISITOR, Batch
from edge.records.schema import PURCHASE

MOST_REMEMBERED: Final = 100_000
"""Names of users, and of items, whose keys are remembered: some 100 bytes each."""
_ADD = "INSERT INTO events ({names}) VALUES ({values}) ON CONFLICT (event_id) DO NOTHING"
_COLUMNS = ("id", "event_id", "type", "user", "item", "time_ms", "quantity", "session", "rec_id", "query", "context")
_NONE_OF_IT = {"quantity": "1"}
_LAST_EVENT = "SELECT (SELECT value FROM marks WHERE name = 'last event'), coalesce((SELECT max(id) FROM events), 0)"
_LAST_USER = """
    SELECT max(coalesce((SELECT max(id) FROM users), 0), (SELECT value FROM marks WHERE name = 'last user'))"""
_MERGED = "SELECT session, user FROM visits WHERE session IN (SELECT value FROM json_each(?))"
_ONE = {
    "users": "SELECT name, id FROM users WHERE name = ?",
    "items": "SELECT name, id FROM items WHERE name = ?",
}
_MANY = {
    "users": "SELECT name, id FROM users WHERE name IN (SELECT value FROM json_each(?))",
    "items": "SELECT name, id FROM items WHERE name IN (SELECT value FROM json_each(?))",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AddOutcome:
    """What became of offered events.

    Attributes:
        bought: the key of the item of every purchase that was offered.
    """

    added: int
    duplicates: int
    bought: Sequence[int] = ()


class Keys:
    """The keys of names seen lately. Belongs to one writing connection; used within its transactions only."""

    def __init__(self) -> None:
        self.users: dict[str, int] = {}
        self.items: dict[str, int] = {}
        self.in_order = False
        """The newest event has the highest key ever given, so SQLite gives the next one by itself."""
        self._commits_of_others = -1

    def refresh(self, db: sqlite3.Connection) -> None:
        """Forget what may not be true any more: called first in every transaction."""
        seen = db.execute("PRAGMA data_version").fetchone()[0]
        if seen != self._commits_of_others or len(self.users) > MOST_REMEMBERED:
            self.users.clear()
            self.in_order = False
            self._commits_of_others = seen
        if len(self.items) > MOST_REMEMBERED:
            self.items.clear()

    def forget(self) -> None:
        """Nothing is known: a transaction was rolled back, or people were merged or erased."""
        self.users.clear()
        self.items.clear()
        self.in_order = False


def add(db: sqlite3.Connection, batches: Sequence[Batch], keys: Keys) -> list[AddOutcome]:
    """Insert batches, one outcome each; events whose ``event_id`` is known change nothing."""
    keys.refresh(db)
    last = None if keys.in_order else _last_if_gone(db)
    keys.in_order = last is None
    outcomes = []
    for batch in batches:
        outcomes.append(_insert(db, batch, keys, first=None if last is None else last + 1))
        last = None if last is None else last + len(batch)
    return outcomes


def _last_if_gone(db: sqlite3.Connection) -> int | None:
    """The highest key that an event ever had, if that event was deleted."""
    last, newest = db.execute(_LAST_EVENT).fetchone()
    return int(last) if last > newest else None


def user_keys(db: sqlite3.Connection, names: set[str]) -> dict[str, int]:
    """The key of every user and visitor; a new one gets the next, a merged visitor that of the user."""
    ordered = sorted(names)
    keys = _known(db, "users", ordered)
    sessions = [name[1:] for name in ordered if name not in keys and name.startswith(VISITOR)]
    if sessions:
        keys.update((VISITOR + session, user) for session, user in db.execute(_MERGED, (json.dumps(sessions),)))
    missing = [name for name in ordered if name not in keys]
    if missing:
        (last,) = db.execute(_LAST_USER).fetchone()
        fresh = dict(zip(missing, count(last + 1)))
        db.executemany("INSERT INTO users (name, id) VALUES (?, ?)", fresh.items())
        keys.update(fresh)
    return keys


def item_keys(db: sqlite3.Connection, names: set[str]) -> dict[str, int]:
    """The key of every item; a new name gets the next one."""
    ordered = sorted(names)
    keys = _known(db, "items", ordered)
    missing = [name for name in ordered if name not in keys]
    if missing:
        db.executemany("INSERT INTO items (name) VALUES (?)", [(name,) for name in missing])
        keys.update(_known(db, "items", missing))
    return keys


def _known(db: sqlite3.Connection, table: Literal["users", "items"], names: Sequence[str]) -> dict[str, int]:
    """The keys of those that have one. A till sends one event at a time, and one name is found sooner than a list."""
    if len(names) == 1:
        return dict(db.execute(_ONE[table], names))
    return dict(db.execute(_MANY[table], (json.dumps(names),)))


def _insert(db: sqlite3.Connection, batch: Batch, keys: Keys, *, first: int | None) -> AddOutcome:
    items = _items(db, batch.items, keys)
    columns = (
        None if first is None else count(first),
        batch.event_ids,
        batch.types,
        _users(db, batch.people, keys),
        items,
        batch.times_ms,
        batch.quantities,
        batch.sessions,
        batch.rec_ids,
        batch.queries,
        batch.contexts,
    )
    cursor = db.executemany(
        _statement(tuple(column is not None for column in columns)),
        zip(*(column for column in columns if column is not None), strict=False),  # the count has no end
    )
    added = max(cursor.rowcount, 0)
    return AddOutcome(added=added, duplicates=len(batch) - added, bought=_bought(items, batch.types))


def _bought(items: Sequence[int | None], types: Sequence[int]) -> list[int]:
    if PURCHASE not in types:
        return []
    return [item for item, kind in zip(items, types, strict=True) if kind == PURCHASE and item is not None]


@cache
def _statement(there: tuple[bool, ...]) -> str:
    """What is the same for all events is not handed over for each of them."""
    named = [
        (name, "?" if given else _NONE_OF_IT.get(name, "NULL")) for name, given in zip(_COLUMNS, there, strict=True)
    ]
    return _ADD.format(names=", ".join(name for name, _ in named), values=", ".join(value for _, value in named))


def _users(db: sqlite3.Connection, names: Sequence[str], keys: Keys) -> list[int | None]:
    found = list(map(keys.users.get, names))
    if None in found:
        keys.users.update(user_keys(db, set(names) - keys.users.keys()))
        found = list(map(keys.users.get, names))
    return found


def _items(db: sqlite3.Connection, names: Sequence[str | None], keys: Keys) -> list[int | None]:
    """None where there is no name."""
    known = keys.items
    found = list(map(known.get, names))  # type: ignore[arg-type] # None is no name of an item
    if None in found:
        unknown = set(names) - known.keys() - {None}
        if unknown:
            known.update(item_keys(db, unknown))  # type: ignore[arg-type]
            found = list(map(known.get, names))  # type: ignore[arg-type]
    return found
