"""Everything this site can name, under one numbering: the shared catalogue's rows, then the site's private items.

A *place* is a row of the shared catalogue (1 to n), or a number above n of an item that the catalogue lacks, given in
the order in which this edge got to know them; 0 is none. So a private item can stand beside shared ones everywhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge.records.store import Past, Store
from edge.releases.catalogue import Catalogue
from edge.serving.attributes import Column
from edge.serving.numbering import Changed, Numbering
from edge.serving.ranker import best

POPULAR = 100
"""How many popular items are candidates for everybody."""
MOST_FOLLOWED = 256
"""Changed items that are taken in between two answers; more of them would keep a shopper waiting."""
_PAGE = 4_096


class Shelf:
    """A site's items as one release sees them. Used by one thread at a time.

    Releases of the same catalogue share the numbering, which is what takes long to build (`beside`). Arrays are by
    place and are replaced by longer ones when new items come: whoever keeps one keeps a look at the past.
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
    def version(self) -> int:
        """Counts up whenever an item has changed or a new one has come; what is bought does not count."""
        return self._site.version

    @property
    def changes(self) -> int:
        """Counts up whenever what is offered or bought has changed."""
        return self._site.changes

    @property
    def size(self) -> int:
        """How long the arrays are: the highest place and 0."""
        return self._site.size

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
        """int32[size], a number for each category; 0: none is known. The site's own word before the catalogue's."""
        return self._site.category

    @property
    def categories(self) -> Sequence[str]:
        """By their numbers; the first is empty."""
        return self._site.categories.names

    @property
    def brand(self) -> NDArray[np.int32]:
        """int32[size], a number for each brand; 0: none is known. The site's own word before the catalogue's."""
        return self._site.brand

    @property
    def brands(self) -> Sequence[str]:
        """By their numbers; the first is empty."""
        return self._site.brands.names

    @property
    def price(self) -> NDArray[np.float32]:
        """float32[size], the site's own, else the catalogue's; nan: not known."""
        return self._site.price

    @property
    def stock(self) -> NDArray[np.float32]:
        """float32[size], pieces on the shelf; infinite: not counted."""
        return self._site.stock

    @property
    def described(self) -> NDArray[np.int32]:
        """int32[size], the version in which title, category or brand of an item changed last."""
        return self._site.described

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

    def lists(self, item: str) -> bool:
        """Whether this site lists it, as far as its items have been followed."""
        place = self._site.place(item)
        return place is not None and bool(self._site.listed[place])

    def name(self, place: int) -> str:
        """The item id at a place."""
        return self._site.name(place)

    def title(self, place: int) -> str:
        """What people call it; empty if nobody said."""
        return self._site.title(place)

    def category_codes(self, names: Iterable[str]) -> list[int]:
        """The numbers of those categories that are known."""
        return self._site.categories.find(names)

    def brand_codes(self, names: Iterable[str]) -> list[int]:
        """The numbers of those brands that are known."""
        return self._site.brands.find(names)

    def attributes(self) -> set[str]:
        """The names under which items say something."""
        return self._site.attributes()

    def column(self, name: str) -> Column | None:
        """What items say under an attribute's name; None: none says anything. Read from the store the first time."""
        return self._site.column(name)

    def follow(self) -> bool:
        """Take in what has changed of items since the last look; False: it is more than that, and nothing was done."""
        changed = self._site.changed(most=MOST_FOLLOWED + 1)
        if len(changed) > MOST_FOLLOWED:
            return False
        self._site.take_in(changed)
        return True

    def changed(self) -> Sequence[Changed]:
        """What has changed of items since the last look, the next few thousand of it. In any thread."""
        return self._site.changed(most=_PAGE)

    def take_in(self, changed: Sequence[Changed]) -> None:
        """Take in what has changed, in that order; new items get new places."""
        self._site.take_in(changed)

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
            mask &= np.isin(self.category, self._site.categories.find(categories))
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

    def note_purchases(self, keys: Sequence[int]) -> None:
        """These were bought, by events that have just been written: the store's keys, one for each event."""
        self._site.note_purchases(keys)

    def note_purchase(self, item: str) -> None:
        """One more was bought, by an event that has just been written."""
        self._site.note_purchase(item)

    def count(self, purchases: Mapping[int, int]) -> None:
        """Take over how often everything was bought, as `Store.popularity` tells it."""
        self._site.count(purchases)

    def nbytes(self) -> int:
        """Bytes in memory, without the catalogue."""
        return self._site.nbytes() + self._federation.nbytes
