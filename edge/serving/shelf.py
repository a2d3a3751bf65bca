"""Everything this site can name, under one numbering: the shared catalogue's rows, then the site's private items.

A *place* is a row of the shared catalogue (1 to n), or n + the store's key of an item that the catalogue lacks; 0 is
none. So a private item can stand beside shared ones in every ranking, without the model knowing of it.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edge.catalogue import Catalogue
from edge.serving.ranker import best
from edge.store import Past, Store

POPULAR = 100
"""How many popular items are candidates for everybody."""


class Shelf:
    """A site's items. Used by one thread at a time; built anew when items were listed."""

    def __init__(
        self, store: Store, catalogue: Catalogue | None, *, federation: NDArray[np.float32] | None = None
    ) -> None:
        """Number what the store and the catalogue know.

        Args:
            federation: float32[n+1], how often the federation bought each row; None: not known.
        """
        self.items_mark = store.items_mark()
        self._store = store
        self._catalogue = catalogue
        self._rows = len(catalogue) if catalogue else 0
        self._lists_items = store.has_items()
        self._private: dict[int, str] = {}
        self._codes: dict[str, int] = {}
        self._key_of: dict[str, int] = {}
        self._place_of_key = np.zeros(1, np.int64)
        size = self._rows + 1
        self.offered = np.full(size, not self._lists_items)
        self.offered[0] = False
        self.category = np.zeros(size, np.int32)
        self.bought = np.zeros(size, np.float32)
        self.federation = np.zeros(size, np.float32) if federation is None else federation.astype(np.float32)
        self._popular: NDArray[np.int64] | None = None
        if catalogue:
            self.category[:] = [self._code(name) for name in catalogue.categories]
        self._absorb()
        self.count_again()

    @property
    def rows(self) -> int:
        """Places up to this one are rows of the shared catalogue."""
        return self._rows

    def place(self, item: str) -> int | None:
        """Where an item stands, if this site or the catalogue knows it."""
        row = self._catalogue.row_of.get(item) if self._catalogue else None
        if row is None and (key := self._key_of.get(item)) is not None:
            row = int(self._place_of_key[key])
        return row

    def name(self, place: int) -> str:
        """The item id at a place."""
        return self._catalogue.names[place] if self._catalogue and place <= self._rows else self._private[place]

    def title(self, place: int) -> str:
        """What people call it; empty if nobody said."""
        if self._catalogue and place <= self._rows and self._catalogue.titles[place]:
            return self._catalogue.titles[place]
        item = self._store.item(self.name(place))
        return item.title if item else ""

    def places(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[n], places of store keys."""
        if keys.size and keys.max() >= len(self._place_of_key):
            self._absorb()
        return self._place_of_key[keys]

    def placed(self, past: Past) -> Past:
        """A user's past in places instead of the store's keys."""
        return Past(item=self.places(past.item), time_ms=past.time_ms, purchased=past.purchased)

    def allowed(self, categories: Iterable[str] | None, exclude: Iterable[str]) -> NDArray[np.bool_]:
        """bool[size], what may be recommended: offered, of one of these categories (None: any), not excluded."""
        mask = self.offered.copy()
        if categories is not None:
            codes = [code for name in categories if (code := self._codes.get(name)) is not None]
            mask &= np.isin(self.category, codes)
        mask[[place for name in exclude if (place := self.place(name)) is not None]] = False
        return mask

    def popularity(self) -> NDArray[np.float32]:
        """float32[size], rising with popularity: by the site's own purchases, ties by the federation's."""
        ties: NDArray[np.float32] = self.federation / (2 * self.federation.max(initial=0) + 1)
        return self.bought + ties

    def popular(self) -> NDArray[np.int64]:
        """The places bought most that are on offer, best first."""
        if self._popular is None:
            self._popular = best(np.where(self.offered, self.popularity(), -np.inf).astype(np.float32), POPULAR)
        return self._popular

    def note_purchase(self, item: str) -> None:
        """One more was bought, by an event that has just been written."""
        place = self.place(item)
        if place is None:
            self._absorb()
            place = self.place(item)
        if place is not None:
            self.bought[place] += 1
            self._popular = None

    def count_again(self) -> None:
        """Read from the store how often everything was bought."""
        counts = self._store.popularity()
        keys = np.fromiter(counts, np.int64, len(counts))
        places = self.places(keys)
        bought = np.zeros(len(self.bought), np.float32)
        bought[places] = np.fromiter(counts.values(), np.float32, len(counts))
        self.bought = bought  # replaced, not changed: a thread may do this while another reads
        self._popular = None

    def _absorb(self) -> None:
        """Take in items with keys that are new since the last look."""
        fresh = self._store.listing(after=len(self._place_of_key) - 1)
        if not fresh:
            return
        last = fresh[-1][0]
        self._grow(last)
        for key, name, listed, category, stock in fresh:
            row = self._catalogue.row_of.get(name) if self._catalogue else None
            place = self._rows + key if row is None else row
            self._place_of_key[key] = place
            if row is None:
                self._private[place] = name
                self._key_of[name] = key
            if not self._lists_items or listed:
                self.offered[place] = stock is None or stock > 0
            if listed and category:
                self.category[place] = self._code(category)
        self._popular = None

    def _grow(self, last_key: int) -> None:
        self._place_of_key = _extended(self._place_of_key, last_key + 1)
        for name in ("offered", "category", "bought", "federation"):
            setattr(self, name, _extended(getattr(self, name), self._rows + last_key + 1))

    def _code(self, category: str) -> int:
        return self._codes.setdefault(category, len(self._codes) + 1)


def _extended(array: NDArray, length: int) -> NDArray:  # type: ignore[type-arg]
    longer = np.zeros(length, array.dtype)
    longer[: len(array)] = array
    return longer
