"""Keeps the index up with what the shop lists, in a thread of its own: a change can be searched within a second.

A missing, damaged or outdated index is built anew beside the one that is served. Before there is any, what has been
built so far is served, and answers say so.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from edge.records.changes import ITEM_COLUMNS, item_of
from edge.records.events import Item
from edge.records.store import Store
from edge.releases.catalogue import Catalogue
from edge.search.documents import Entry
from edge.search.index import DamagedIndexError, Index, Reader
from edge.search.versions import Source, Versions, read_mark, write_mark
from protocol.errors import FederationError

_LOOK_SECONDS: Final = 0.2
_RETRY_SECONDS: Final = 30.0
_FIRST_ENTRIES: Final = 2_000  # of an index that is all there is: so many can be searched while the rest is read
_AT_A_TIME: Final = 2_000
_LISTED: Final = f"SELECT id, {ITEM_COLUMNS} FROM items WHERE listed AND id > ? ORDER BY id LIMIT ?"  # noqa: S608
_WORDS_SECONDS: Final = 20.0  # so long a new word may be completed, but is not corrected to
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What can be searched now.

    Attributes:
        source: what it was made from.
        whole: False: it is still being built, so items are missing.
    """

    reader: Reader
    source: Source
    whole: bool


class Follower:
    """The one writer of the index."""

    def __init__(
        self,
        directory: Path,
        store: Store,
        *,
        language: str,
        catalogue: Callable[[], Catalogue | None],
        also: Callable[[], None] = lambda: None,
        clock: Callable[[], float],
    ) -> None:
        """Follow a store into a folder.

        Args:
            catalogue: the shared catalogue in force.
            also: what else is looked after at each look, in the same thread.
            clock: seconds that only rise.
        """
        self.view: View | None = None
        """None: nothing has been opened or built yet."""
        self._versions = Versions(directory)
        self._store = store
        self._language = language
        self._catalogue = catalogue
        self._also = also
        self._clock = clock
        self._index: Index | None = None
        self._source: Source | None = None
        self._mark = 0
        self._learnt_at = self._built_at = -math.inf
        self._stale_words = False
        self._rebuild = self._is_building = False
        self._ending = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="search-index", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Wait until what is being written is written, or given up."""
        self._ending.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def rebuild(self) -> None:
        """Build the index anew, beside the one that is served; returns at once."""
        self._rebuild = True
        self._wake.set()

    @property
    def building(self) -> bool:
        """Whether another index is being built, or is about to be."""
        return self._rebuild or self._is_building

    def damaged(self) -> None:
        """What is served cannot be read: it is built anew, unless that has just been done."""
        self.view = None
        if self._clock() - self._built_at >= _RETRY_SECONDS:
            self.rebuild()

    def step(self) -> None:
        """Open, build or update, whatever is due.

        Raises:
            NoSpaceError: the disk is full.
            DamagedIndexError: the index cannot be written.
        """
        catalogue = self._catalogue()
        wanted = Source(
            language=self._language, catalogue=catalogue.sha256 if catalogue else "", listed=self._store.has_items()
        )
        if self._index is None and not self._rebuild:
            self._open()
        if self._rebuild or self._source != wanted:
            self._is_building = True
            try:
                self._build(wanted, catalogue)
            finally:
                self._is_building = False
        elif self._index is not None and (mark := self._store.items_mark()) != self._mark:
            self._update(self._index, catalogue, mark)
        if self._stale_words and self._clock() - self._learnt_at >= _WORDS_SECONDS and self._index and self._source:
            self._learn(self._index, self._source)

    def _open(self) -> None:
        found = self._versions.current()
        if found is None:
            return
        self._index, self._source = found
        self._mark = read_mark(self._index)
        self._versions.sweep()
        self._show(*found)

    def _build(self, source: Source, catalogue: Catalogue | None) -> None:
        """All of it, beside what is served; what changes meanwhile is taken in by the next look."""
        self._rebuild, self._built_at = False, self._clock()
        mark = self._store.items_mark()
        index = self._versions.begin(source)
        entries = self._until_ended(self._entries(source, catalogue))
        if self.view is None:
            index.put(_first(entries, _FIRST_ENTRIES), fresh=True)
            self.view = View(reader=index.reader, source=source, whole=False)
        index.put(entries, fresh=True)
        if self._ending.is_set():
            return
        write_mark(index, mark)
        self._versions.promote(index, source)
        self._index, self._source, self._mark = index, source, mark
        self._learn(index, source)
        _log.info("search index built", items=index.reader.items)

    def _update(self, index: Index, catalogue: Catalogue | None, mark: int) -> None:
        changed = self._store.items_after(self._mark)
        if self._source is not None and self._source.listed:
            kept = {key for key, item, listed in changed if listed and _on_offer(item)}
            entries = (Entry(key=key, item=_completed(item, catalogue)) for key, item, _ in changed if key in kept)
            index.put(entries, gone=[key for key, _, _ in changed if key not in kept])
            write_mark(index, mark)
            self._stale_words = True
            self._show(index, self._source)
        self._mark = mark

    def _learn(self, index: Index, source: Source) -> None:
        index.learn_words()
        self._learnt_at, self._stale_words = self._clock(), False
        self._show(index, source)

    def _show(self, index: Index, source: Source) -> None:
        self.view = View(reader=index.reader, source=source, whole=True)

    def _entries(self, source: Source, catalogue: Catalogue | None) -> Iterator[Entry]:
        if source.listed:
            yield from (
                Entry(key=key, item=_completed(item, catalogue)) for key, item in self._listed() if _on_offer(item)
            )
        elif catalogue is not None:
            yield from (Entry(key=-row, item=_shared(catalogue, row)) for row in range(1, len(catalogue) + 1))

    def _listed(self) -> Iterator[tuple[int, Item]]:
        """All listed items, some at a time: of a large shop all of them at once would fill the memory."""
        after = 0
        while True:
            with self._store.reading() as db:
                rows = db.execute(_LISTED, (after, _AT_A_TIME)).fetchall()
            if not rows:
                return
            yield from ((key, item_of(row)) for key, *row in rows)
            after = rows[-1][0]

    def _until_ended(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            if self._ending.is_set():
                return
            yield entry

    def _follow(self) -> None:
        while not self._ending.is_set():
            wait = _LOOK_SECONDS
            try:
                self.step()
                self._also()
            except DamagedIndexError as error:
                _log.warning("the search index is built anew", why=error.line())
                self._forget()
            except (FederationError, OSError) as error:
                _log.error("the search index does not follow", why=str(error))
                wait = _RETRY_SECONDS
            self._wake.wait(wait)
            self._wake.clear()

    def _forget(self) -> None:
        with suppress(OSError):
            self._versions.drop()
        self._index = self._source = self.view = None


def _first(entries: Iterator[Entry], count: int) -> Iterator[Entry]:
    for _, entry in zip(range(count), entries, strict=False):
        yield entry


def _on_offer(item: Item) -> bool:
    return item.stock is None or item.stock > 0


def _completed(item: Item, catalogue: Catalogue | None) -> Item:
    """What the site does not say of an item, the catalogue says."""
    row = catalogue.row_of.get(item.item) if catalogue else None
    if catalogue is None or row is None or (item.title and item.category and item.brand and item.price is not None):
        return item
    shared = _shared(catalogue, row)
    return replace(
        item,
        title=item.title or shared.title,
        category=item.category or shared.category,
        brand=item.brand or shared.brand,
        price=shared.price if item.price is None else item.price,
    )


def _shared(catalogue: Catalogue, row: int) -> Item:
    price = catalogue.prices[row]
    return Item(
        item=catalogue.names[row],
        title=catalogue.titles[row],
        category=catalogue.categories[row],
        brand=catalogue.brands[row],
        price=None if price is None or price != price else float(price),  # noqa: PLR0124 - nan: not known
    )
