"""The numbering of a site's items, and what is counted by it; shared by all releases of one catalogue."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edge.breaths import in_breaths
from edge.records.store import Store
from edge.releases.catalogue import Catalogue


class Numbering:
    """Places of all items: see `edge.serving.shelf`. Used by one thread at a time."""

    def __init__(self, store: Store, catalogue: Catalogue | None) -> None:
        self.items_mark = store.items_mark()
        self.changes = 0
        """Counts up whenever what is offered or bought has changed."""
        self._store = store
        self._catalogue = catalogue
        self.rows = len(catalogue) if catalogue else 0
        self._lists_items = store.has_items()
        self._private: dict[int, str] = {}
        self._codes: dict[str, int] = {}
        self._key_of: dict[str, int] = {}
        self._place_of_key = np.zeros(1, np.int64)
        size = self.rows + 1
        self.offered = np.full(size, not self._lists_items)
        self.offered[0] = False
        self.category = np.zeros(size, np.int32)
        self.bought = np.zeros(size, np.float32)
        if catalogue:
            self.category[:] = [self._code(name) for name in in_breaths(catalogue.categories)]
        self._absorb(gently=True)
        self.count_again()

    def place(self, item: str) -> int | None:
        row = self._catalogue.row_of.get(item) if self._catalogue else None
        if row is None and (key := self._key_of.get(item)) is not None:
            row = int(self._place_of_key[key])
        return row

    def name(self, place: int) -> str:
        return self._catalogue.names[place] if self._catalogue and place <= self.rows else self._private[place]

    def title(self, place: int) -> str:
        if self._catalogue and place <= self.rows and self._catalogue.titles[place]:
            return self._catalogue.titles[place]
        item = self._store.item(self.name(place))
        return item.title if item else ""

    def places(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[n], places of store keys."""
        if keys.size and keys.max() >= len(self._place_of_key):
            self._absorb()
        return self._place_of_key[keys]

    def codes(self, categories: Iterable[str]) -> list[int]:
        """The numbers of those categories that are known."""
        return [code for name in categories if (code := self._codes.get(name)) is not None]

    def note_purchase(self, item: str) -> None:
        place = self.place(item)
        if place is None:
            self._absorb()
            place = self.place(item)
        if place is not None:
            self.bought[place] += 1
            self.changes += 1

    def count_again(self) -> None:
        counts = self._store.popularity()
        keys = np.fromiter(counts, np.int64, len(counts))
        places = self.places(keys)
        bought = np.zeros(len(self.bought), np.float32)
        bought[places] = np.fromiter(counts.values(), np.float32, len(counts))
        self.bought = bought  # replaced, not changed: a thread may do this while another reads
        self.changes += 1

    def _absorb(self, *, gently: bool = False) -> None:
        """Take in items with keys that are new since the last look.

        Args:
            gently: let other threads go on every now and then: this takes long, and answers must not wait for it.
        """
        fresh = self._store.listing(after=len(self._place_of_key) - 1)
        if not fresh:
            return
        last = fresh[-1][0]
        self._grow(last)
        for key, name, listed, category, stock in in_breaths(fresh) if gently else fresh:
            row = self._catalogue.row_of.get(name) if self._catalogue else None
            place = self.rows + key if row is None else row
            self._place_of_key[key] = place
            if row is None:
                self._private[place] = name
                self._key_of[name] = key
            if not self._lists_items or listed:
                self.offered[place] = stock is None or stock > 0
            if listed and category:
                self.category[place] = self._code(category)
        self.changes += 1

    def _grow(self, last_key: int) -> None:
        self._place_of_key = _extended(self._place_of_key, last_key + 1)
        for name in ("offered", "category", "bought"):
            setattr(self, name, _extended(getattr(self, name), self.rows + last_key + 1))

    def _code(self, category: str) -> int:
        return self._codes.setdefault(category, len(self._codes) + 1)


def _extended(array: NDArray, length: int) -> NDArray:  # type: ignore[type-arg]
    longer = np.zeros(length, array.dtype)
    longer[: len(array)] = array
    return longer
