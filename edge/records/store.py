"""The site's own books: events, items and users in one SQLite file that never leaves the site.

One thread writes at a time, any number read; a reader sees every committed transaction and never waits for the writer.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edge.records import schema
from edge.records.events import Event, Item
from edge.records.schema import CODE, PURCHASE

# Types 1 to 4 are view, click, add_to_cart, purchase. The conditions repeat those of the index events_history, which
# SQLite uses only where it can see that.
_PAST = """
    SELECT item, time_ms, type FROM events
    WHERE user = (SELECT id FROM users WHERE name = ?) AND type <= 4 AND item IS NOT NULL
    ORDER BY time_ms DESC, id DESC LIMIT ?"""
_HISTORY = """
    SELECT items.name FROM (
        SELECT item, time_ms, id AS event FROM events
        WHERE user = (SELECT id FROM users WHERE name = ?) AND type <= 4 AND item IS NOT NULL
        ORDER BY time_ms DESC, id DESC LIMIT ?
    ) JOIN items ON items.id = item ORDER BY time_ms, event"""
_PURCHASE_COUNTS = """
    SELECT items.name, COUNT(*), COUNT(DISTINCT time_ms), MAX(time_ms) FROM events JOIN items ON items.id = item
    WHERE user = (SELECT id FROM users WHERE name = ?) AND type <= 4 AND item IS NOT NULL AND type = 4 GROUP BY item"""
_BEHAVIOUR = """
    SELECT user, item, time_ms, type, id FROM events WHERE type <= 4 AND item IS NOT NULL ORDER BY user, time_ms, id"""
_ADD_EVENT = """
    INSERT INTO events (event_id, type, user, item, time_ms, quantity, session, rec_id, query)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING"""
_PUT_ITEM = """
    INSERT INTO items (name, title, category, brand, price, stock, attributes, listed) VALUES (?, ?, ?, ?, ?, ?, ?, 1)
    ON CONFLICT (name) DO UPDATE SET listed = 1, title = excluded.title, category = excluded.category,
    brand = excluded.brand, price = excluded.price, stock = excluded.stock, attributes = excluded.attributes"""
_ITEM = "SELECT name, title, category, brand, price, stock, attributes FROM items WHERE name = ? AND listed"
_ITEMS = "SELECT id, name, title, category, brand, price, stock, attributes FROM items WHERE listed ORDER BY id"
_LISTING = "SELECT id, name, listed, coalesce(category, ''), stock FROM items WHERE id > ? ORDER BY id"
_LISTED = "SELECT name FROM items WHERE listed AND name IN (SELECT value FROM json_each(?))"
_FIND = {
    "users": "SELECT name, id FROM users WHERE name IN (SELECT value FROM json_each(?))",
    "items": "SELECT name, id FROM items WHERE name IN (SELECT value FROM json_each(?))",
}
_INTERN = {"users": "INSERT INTO users (name) VALUES (?)", "items": "INSERT INTO items (name) VALUES (?)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AddOutcome:
    """What became of offered events."""

    added: int
    duplicates: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Past:
    """What one user wanted, oldest first.

    Attributes:
        item: int64[n], the store's keys.
        time_ms: int64[n].
        purchased: bool[n]; False: viewed, clicked or put into the cart only.
        event: int64[n], numbers that rise in the order in which events arrived.
    """

    item: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    purchased: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Behaviour:
    """What all users wanted, sorted by user and time; the columns that training reads.

    Attributes:
        user: int64[n], the store's keys.
        item: int64[n], the store's keys; `Store.item_names` tells what they are.
        time_ms: int64[n].
        purchased: bool[n]; False: viewed, clicked or put into the cart only.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    purchased: NDArray[np.bool_]
    event: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PurchaseCount:
    """How often one user bought one item.

    Attributes:
        lines: purchase events.
        baskets: distinct times, which is what a basket is.
        last_ms: time of the newest.
    """

    lines: int
    baskets: int
    last_ms: int


class Store:
    """An open store. Every method may raise NoSpaceError, UnavailableError (locked) or BadInputError (damaged)."""

    def __init__(self, path: Path, *, durability: str) -> None:
        self.path = path
        self._durability = durability
        self._turn = threading.Lock()
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        with self._plainly():
            self._writer = self._connect()

    @classmethod
    def open(cls, path: Path, *, durability: str = "full") -> Self:
        """Open the store, making or migrating it where needed.

        Args:
            durability: `full`, a committed event survives a power cut; `normal`, it survives kill -9 and is faster.

        Raises:
            BadInputError: the file is damaged, no store, or of a newer edge; it is left as it is.
            NoSpaceError: the disk is full.
            UnavailableError: the file cannot be opened.
        """
        schema.prepare(path)
        return cls(path, durability=durability)

    def add_events(self, events: Iterable[Event]) -> AddOutcome:
        """Add events in one transaction; those whose ``event_id`` is known change nothing.

        When this returns, the events are on disk.
        """
        return self.add_groups([list(events)])[0]

    def add_groups(self, groups: Sequence[Sequence[Event]]) -> list[AddOutcome]:
        """The same for several groups that share one commit, one outcome each."""
        with self._writing() as db:
            users = _keys(db, "users", {event.user for group in groups for event in group})
            items = _keys(db, "items", {event.item for group in groups for event in group if event.item is not None})
            return [_insert(db, group, users, items) for group in groups]

    def put_items(self, items: Iterable[Item]) -> int:
        """List items in one transaction, replacing what was known of them; returns how many."""
        rows = [
            (
                *(item.item, item.title, item.category, item.brand, item.price, item.stock),
                json.dumps(item.attributes, sort_keys=True, ensure_ascii=False) if item.attributes else None,
            )
            for item in items
        ]
        with self._writing() as db:
            db.executemany(_PUT_ITEM, rows)
            db.execute("UPDATE marks SET value = value + 1 WHERE name = 'items'")
        return len(rows)

    def past(self, user: str, *, limit: int) -> Past:
        """A user's newest positive events, one read of a covering index; empty for an unknown user."""
        item, time_ms, kind = _columns(self._rows(_PAST, (user, limit)), 3)[:, ::-1]
        return Past(item=item, time_ms=time_ms, purchased=kind == PURCHASE)

    def history(self, user: str, *, limit: int) -> list[str]:
        """The items of a user's newest views, clicks, add-to-carts and purchases, oldest first."""
        return [name for (name,) in self._rows(_HISTORY, (user, limit))]

    def purchase_counts(self, user: str) -> dict[str, PurchaseCount]:
        """How often, in how many baskets, and when last a user bought each item."""
        rows = self._rows(_PURCHASE_COUNTS, (user,))
        return {name: PurchaseCount(lines=lines, baskets=baskets, last_ms=last) for name, lines, baskets, last in rows}

    def behaviour(self) -> Behaviour:
        """All positive events by user and time, read in the order of the covering index."""
        with self._plainly():
            user, item, time_ms, kind, event = _columns(self._reader().execute(_BEHAVIOUR), 5)
        return Behaviour(user=user, item=item, time_ms=time_ms, purchased=kind == PURCHASE, event=event)

    def item_names(self, *, after: int = 0) -> dict[int, str]:
        """Names of all items ever listed or seen in an event, by key; only keys above `after`."""
        return dict(self._rows("SELECT id, name FROM items WHERE id > ? ORDER BY id", (after,)))

    def listing(self, *, after: int = 0) -> list[tuple[int, str, int, str, int | None]]:
        """Key, name, whether listed, category and stock of every item with a key above `after`, by key."""
        return self._rows(_LISTING, (after,))

    def popularity(self) -> dict[int, int]:
        """Purchase events by item key."""
        return dict(self._rows("SELECT item, events FROM counts WHERE type = ?", (PURCHASE,)))

    def item(self, name: str) -> Item | None:
        """One listed item, or None."""
        return next((_item(row) for row in self._rows(_ITEM, (name,))), None)

    def items(self) -> Iterator[tuple[int, Item]]:
        """All listed items with their keys."""
        for key, *row in self._rows(_ITEMS):
            yield key, _item(row)

    def unlisted(self, names: Iterable[str]) -> set[str]:
        """Which of these are not listed; an empty set if this site keeps no list of items at all."""
        if not self.has_items():
            return set()
        asked = set(names)
        known = self._rows(_LISTED, (json.dumps(sorted(asked)),))
        return asked - {name for (name,) in known}

    def has_items(self) -> bool:
        """Whether this site lists what it sells; if not, whatever an event names is sold."""
        return bool(self._rows("SELECT 1 FROM items WHERE listed LIMIT 1"))

    def items_mark(self) -> int:
        """Counts up with every `put_items`, whichever process called it."""
        return int(self._rows("SELECT value FROM marks WHERE name = 'items'")[0][0])

    def event_count(self) -> int:
        return int(self._rows("SELECT COALESCE(SUM(events), 0) FROM counts")[0][0]) + int(
            self._rows("SELECT COUNT(*) FROM events WHERE item IS NULL")[0][0]
        )

    def user_known(self, user: str) -> bool:
        return bool(self._rows("SELECT 1 FROM users WHERE name = ?", (user,)))

    def foreign_commits(self) -> int:
        """A number that changes when another process has committed something."""
        # The writing connection makes all commits of this process, and SQLite counts those of the others for it.
        with self._turn, self._plainly():
            return int(self._writer.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        with self._turn:
            while self._connections:
                self._connections.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> sqlite3.Connection:
        connection = schema.connect(self.path, durability=self._durability)
        self._connections.append(connection)
        return connection

    def _reader(self) -> sqlite3.Connection:
        """This thread's own connection."""
        if not hasattr(self._local, "reader"):
            self._local.reader = self._connect()
        reader: sqlite3.Connection = self._local.reader
        return reader

    def _rows(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        with self._plainly():
            return self._reader().execute(statement, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing."""
        with self._turn, self._plainly():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:  # a full disk has rolled back already
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise schema.explain(error, self.path) from error


def _insert(
    db: sqlite3.Connection, events: Sequence[Event], users: Mapping[str, int], items: Mapping[str, int]
) -> AddOutcome:
    cursor = db.executemany(
        _ADD_EVENT,
        [
            (
                *(event.event_id, CODE[event.type], users[event.user]),
                *(None if event.item is None else items[event.item], event.time_ms, event.quantity),
                *(event.session, event.rec_id, event.query),
            )
            for event in events
        ],
    )
    added = max(cursor.rowcount, 0)
    return AddOutcome(added=added, duplicates=len(events) - added)


def _keys(db: sqlite3.Connection, table: str, names: set[str]) -> dict[str, int]:
    """The key of every name; a new name gets the next one."""
    ordered = sorted(names)
    keys: dict[str, int] = dict(db.execute(_FIND[table], (json.dumps(ordered),)))
    missing = [name for name in ordered if name not in keys]
    if missing:
        db.executemany(_INTERN[table], [(name,) for name in missing])
        keys.update(db.execute(_FIND[table], (json.dumps(missing),)))
    return keys


def _columns(rows: Iterable[tuple[int, ...]], width: int) -> NDArray[np.int64]:
    """int64[width, n], contiguous columns."""
    flat = np.fromiter(chain.from_iterable(rows), dtype=np.int64)
    return np.ascontiguousarray(flat.reshape(-1, width).T)


def _item(row: Sequence[object]) -> Item:
    name, title, category, brand, price, stock, attributes = row
    return Item(
        item=str(name),
        title=str(title),
        category=str(category),
        brand=str(brand),
        price=price if isinstance(price, float) else None,
        stock=stock if isinstance(stock, int) else None,
        attributes=json.loads(attributes) if isinstance(attributes, str) else {},
    )
