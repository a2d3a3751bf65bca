"""Everything this site can name, under one numbering: the shared catalogue's rows, then the site's private items.

A *place* is a row of the shared catalogue (1 to n), or n + the store's key of an item that the catalogue lacks; 0 is
none. So a private item can stand beside shared ones in every ranking, without the model knowing of it.
"""

from collections.abc import Iterable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge.records.store import Past, Store
from edge.releases.catalogue import Catalogue
from edge.serving.numbering import Numbering
from edge.serving.ranker import best

POPULAR = 100
"""How many popular items are candidates for everybody."""


class Shelf:
    """A site's items as one release sees them. Used by one thread at a time; built anew when items were listed.

    Releases of the same catalogue share the numbering, which is what takes long to build (`beside`).
    """

    def __init__(self, site: Numbering, *, federation: NDArray[np.float32] | None = None) -> None:
        """Look at these items with a release's eyes.

        Args:
            federation: float32[n+1], how often the federation bought each row; None: not known.
        """
        self._site = site
        self._federation = np.zeros(0, np.float32) if federation is None else federation.astype(np.float32)
        self._popular: NDArray[np.int64] | None = None
        self._popular_of = -1

    @classmethod
    def of(cls, store: Store, catalogue: Catalogue | None, *, federation: NDArray[np.float32] | None = None) -> Self:
        """Number what the store and the catalogue know, and look at it."""
        return cls(Numbering(store, catalogue), federation=federation)

    def beside(self, federation: NDArray[np.float32] | None) -> Self:
        """The same items for another release of the same catalogue; what one shelf learns, the other knows."""
        return type(self)(self._site, federation=federation)

    @property
    def numbering(self) -> Numbering:
        """What shelves of one catalogue share: a purchase noted here is noted there."""
        return self._site

    @property
    def items_mark(self) -> int:
        """The store's, when its items were read."""
        return self._site.items_mark

    @property
    def rows(self) -> int:
        """Places up to this one are rows of the shared catalogue."""
        return self._site.rows

    @property
    def offered(self) -> NDArray[np.bool_]:
        """bool[size], what is sold here."""
        return self._site.offered

    @property
    def category(self) -> NDArray[np.int32]:
        """int32[size], a number for each category; 0: none is known."""
        return self._site.category

    @property
    def bought(self) -> NDArray[np.float32]:
        """float32[size], purchases at this site."""
        return self._site.bought

    @property
    def federation(self) -> NDArray[np.float32]:
        """float32[size], purchases in the whole federation; 0 of a private item."""
        if len(self._federation) < len(self._site.bought):
            longer = np.zeros(len(self._site.bought), np.float32)
            longer[: len(self._federation)] = self._federation
            self._federation = longer
        return self._federation

    def place(self, item: str) -> int | None:
        """Where an item stands, if this site or the catalogue knows it."""
        return self._site.place(item)

    def name(self, place: int) -> str:
        """The item id at a place."""
        return self._site.name(place)

    def title(self, place: int) -> str:
        """What people call it; empty if nobody said."""
        return self._site.title(place)

    def places(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[n], places of store keys."""
        return self._site.places(keys)

    def placed(self, past: Past) -> Past:
        """A user's past in places instead of the store's keys."""
        return Past(item=self.places(past.item), time_ms=past.time_ms, purchased=past.purchased)

    def allowed(self, categories: Iterable[str] | None, exclude: Iterable[str]) -> NDArray[np.bool_]:
        """bool[size], what may be recommended: offered, of one of these categories (None: any), not excluded."""
        mask = self.offered.copy()
        if categories is not None:
            mask &= np.isin(self.category, self._site.codes(categories))
        mask[[place for name in exclude if (place := self.place(name)) is not None]] = False
        return mask

    def popularity(self) -> NDArray[np.float32]:
        """float32[size], rising with popularity: by the site's own purchases, ties by the federation's."""
        ties: NDArray[np.float32] = self.federation / (2 * self.federation.max(initial=0) + 1)
        return self.bought + ties

    def popular(self) -> NDArray[np.int64]:
        """The places bought most that are on offer, best first."""
        if self._popular is None or self._popular_of != self._site.changes:
            self._popular_of = self._site.changes
            self._popular = best(np.where(self.offered, self.popularity(), -np.inf).astype(np.float32), POPULAR)
        return self._popular

    def note_purchase(self, item: str) -> None:
        """One more was bought, by an event that has just been written."""
        self._site.note_purchase(item)

    def count_again(self) -> None:
        """Read from the store how often everything was bought."""
        self._site.count_again()
