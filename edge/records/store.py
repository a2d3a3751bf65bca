"""The site's own books: events, items and users in one SQLite file that never leaves the site.

One thread writes at a time, any number read; a reader sees every committed transaction and never waits for the writer.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge.records import adding, changes, documents, items, people, schema, traces
from edge.records.adding import AddOutcome
from edge.records.batch import Batch, visitor
from edge.records.changes import ITEM_COLUMNS, Recorded, item_of
from edge.records.events import Event, Item
from edge.records.people import Erased, Forget
from edge.records.schema import PURCHASE

# Types 1 to 4 are view, click, add_to_cart, purchase. The conditions repeat those of the index events_history, which
# SQLite uses only where it can see that.
# One row with two texts of numbers is read in half the time that 200 rows of three take.
_PAST = """
    SELECT group_concat(item * 8 + type), group_concat(time_ms) FROM (
        SELECT item, time_ms, type FROM events
        WHERE user = (SELECT id FROM users WHERE name = ?) AND type <= 4 AND item IS NOT NULL
        ORDER BY time_ms DESC, id DESC LIMIT ?
    )"""
_PAST_OF_SESSION = _PAST.replace(
    "(SELECT id FROM users WHERE name = ?)",
    "coalesce((SELECT user FROM visits WHERE session = ?), (SELECT id FROM users WHERE name = ?))",
)
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
_ITEM = f"SELECT {ITEM_COLUMNS} FROM items WHERE name = ? AND listed"  # noqa: S608 - our own words
_ITEMS = f"SELECT id, {ITEM_COLUMNS} FROM items WHERE listed ORDER BY id"  # noqa: S608
_LISTING = "SELECT id, name, listed, coalesce(category, ''), stock FROM items WHERE id > ? ORDER BY id"
_LISTED = "SELECT name FROM items WHERE listed AND name IN (SELECT value FROM json_each(?))"
_WRITERS_KIB, _READERS_KIB = 16_384, 2_048  # every thread that ever reads has a connection of its own
_MOST_LISTED = 100_000  # names remembered to be listed
_Result = TypeVar("_Result")


def _nothing(_db: sqlite3.Connection, _events: list[Recorded]) -> None:
    """Nothing was derived."""


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
        self._keys = adding.Keys()
        self._traces: set[bytes] = set()
        self._listed: tuple[int, set[str]] = (0, set())
        with self._plainly():
            self._writer = self._connect(_WRITERS_KIB)

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
        return self.add_groups([Batch.of(events)])[0]

    def add_groups(self, batches: Sequence[Batch]) -> list[AddOutcome]:
        """The same for several batches that share one commit, one outcome each."""
        with self.writing() as db:
            return adding.add(db, batches, self._keys)

    def put_items(self, given: Iterable[Item], *, now_ms: int | None = None) -> int:
        """List items in one transaction, replacing what was known of them; returns how many.

        Args:
            now_ms: when those are listed that are new; None: nobody knows.
        """
        with self.writing() as db:
            return items.put(db, given, now_ms=now_ms)

    def patch_items(self, given: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
        """Change some of what is known of listed items, all or none; of `attributes` those named, None takes one away.

        Raises:
            UnknownItemError: an item is not listed; nothing was changed.
            BadInputError: a changed item would be none that can be sold; nothing was changed.
        """
        with self.writing() as db:
            return items.patch(db, given)

    def remove_items(self, names: Iterable[str]) -> int:
        """Take items off the list, all or none; what was bought and seen of them stays in the books.

        Raises:
            UnknownItemError: an item is not listed; nothing was changed.
        """
        with self.writing() as db:
            return items.remove(db, names)

    def merge(self, session: str, user: str) -> int:
        """An anonymous visitor turns out to be this user; returns how many events are the user's now.

        Raises:
            BadInputError: the session belongs to another user already.
        """
        return self.forgetting(lambda db: people.merge(db, session, user))

    def erase(self, *, user: str | None = None, session: str | None = None, also: Forget = _nothing) -> Erased:
        """Delete a user, or an anonymous visitor, and all that is theirs, in one transaction; `tidy` cleans the file.

        Args:
            also: takes back what was derived from their events, in the same transaction.

        Raises:
            BadInputError: the session belongs to a user.
        """
        erased = self.forgetting(lambda db: people.erase(db, user=user, session=session, also=also))
        if erased.known:
            with self._turn:
                self._traces |= traces.of(erased.key, [*erased.names, *map(visitor, erased.names)])
        return erased

    def tidy(self) -> bool:
        """Empty the log, and leave no copy in the file of who was erased; false when that has to be tried again.

        Reads the whole file, a second a gigabyte, while others read and write.
        """
        with self._turn:
            sought = frozenset(self._traces)
        if sought:
            with self._plainly():
                if not traces.clean(self._writer, self.path, sought, turn=self._turn):
                    return False
            with self._turn:
                self._traces -= sought
        return True

    def forgetting(self, change: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """One transaction after which keys of people may be others; all of them are looked up anew."""
        with self.writing() as db:
            self._keys.forget()
            return change(db)

    def past(self, user: str, *, limit: int) -> Past:
        """A user's newest positive events, one read of a covering index; empty for an unknown user."""
        return self._past(_PAST, (user, limit))

    def past_of_session(self, session: str, *, limit: int) -> Past:
        """The same of a visitor, or of the user whom the session was merged into."""
        return self._past(_PAST_OF_SESSION, (session, visitor(session), limit))

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
        return next((item_of(row) for row in self._rows(_ITEM, (name,))), None)

    def items(self) -> Iterator[tuple[int, Item]]:
        """All listed items with their keys."""
        for key, *row in self._rows(_ITEMS):
            yield key, item_of(row)

    def unlisted(self, names: Iterable[str]) -> set[str]:
        """Which of these are not listed; an empty set if this site keeps no list of items at all."""
        mark = self.items_mark()
        if not mark:
            return set()
        if self._listed[0] != mark or len(self._listed[1]) > _MOST_LISTED:
            self._listed = mark, set()
        known = self._listed[1]
        asked = set(names) - known
        if asked:
            known.update(name for (name,) in self._rows(_LISTED, (json.dumps(sorted(asked)),)))
        return asked - known

    def has_items(self) -> bool:
        """Whether this site lists what it sells, or ever has; if not, whatever an event names is sold."""
        return self.items_mark() > 0

    def events_after(self, key: int, limit: int) -> list[Recorded]:
        """The next events after one, oldest first, for those who follow; keys rise in the order of arrival.

        Whoever derives something from them reads with `changes.events_after` within `writing`, in the transaction in
        which it is written: else an event might be erased in between, and what was derived from it would stay.
        """
        with self.reading() as db:
            return changes.events_after(db, key, limit)

    def items_after(self, mark: int) -> list[tuple[int, Item, bool]]:
        """Key, item and whether it is listed, of all that were listed, changed or taken off after a mark."""
        with self.reading() as db:
            return changes.items_after(db, mark)

    def documents(self, kind: str) -> dict[str, Any]:
        """All documents of a kind (scenario, promotion, experiment, synonyms, api_key) by name."""
        with self.reading() as db:
            return documents.read(db, kind)

    def put_document(self, kind: str, name: str, body: Any) -> None:
        """Set a document, replacing the one of that name; it is on disk when this returns.

        Raises:
            BadInputError: the name is no id, the document is too long or no JSON, or there are too many of its kind.
        """
        with self.writing() as db:
            documents.put(db, kind, name, body)

    def drop_document(self, kind: str, name: str) -> bool:
        """Remove a document; false where there was none."""
        with self.writing() as db:
            return documents.drop(db, kind, name)

    def documents_mark(self) -> int:
        """Counts up with every change of a document, whichever process made it."""
        return int(self._rows("SELECT value FROM marks WHERE name = 'documents'")[0][0])

    def items_mark(self) -> int:
        """Counts up with every change of items, whichever process made it."""
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

    def _connect(self, cache_kib: int) -> sqlite3.Connection:
        connection = schema.connect(self.path, durability=self._durability, cache_kib=cache_kib)
        self._connections.append(connection)
        return connection

    def _reader(self) -> sqlite3.Connection:
        """This thread's own connection."""
        if not hasattr(self._local, "reader"):
            self._local.reader = self._connect(_READERS_KIB)
        reader: sqlite3.Connection = self._local.reader
        return reader

    def _past(self, statement: str, values: Sequence[object]) -> Past:
        try:
            coded, times = self._reader().execute(statement, values).fetchone()
        except sqlite3.Error as error:
            raise schema.explain(error, self.path) from error
        if coded is None:
            return Past(item=np.empty(0, np.int64), time_ms=np.empty(0, np.int64), purchased=np.empty(0, np.bool_))
        keys, times_ms = np.fromstring(coded, np.int64, sep=",")[::-1], np.fromstring(times, np.int64, sep=",")[::-1]
        return Past(item=keys >> 3, time_ms=times_ms, purchased=keys & 7 == PURCHASE)

    def _rows(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        with self._plainly():
            return self._reader().execute(statement, values).fetchall()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection for reading, for parts with tables of their own. Never waits for the writer."""
        with self._plainly():
            yield self._reader()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, all of it or nothing, for parts with tables of their own; waits for its turn.

        Not in an event loop: the commit flushes to disk. Nor from within another one of the same thread.
        """
        with self._turn, self._plainly():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                self._keys.forget()  # those just given out are free again
                if self._writer.in_transaction:  # a full disk has rolled back already
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise schema.explain(error, self.path) from error


def _columns(rows: Iterable[tuple[int, ...]], width: int) -> NDArray[np.int64]:
    """int64[width, n], contiguous columns."""
    flat = np.fromiter(chain.from_iterable(rows), dtype=np.int64)
    return np.ascontiguousarray(flat.reshape(-1, width).T)
