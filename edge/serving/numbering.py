"""The numbering of a site's items, and what is known of them by it; shared by all releases of one catalogue."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge.breaths import breathe
from edge.records.changes import ITEM_COLUMNS, item_of
from edge.records.events import Item
from edge.records.store import Store
from edge.releases.catalogue import Catalogue
from edge.serving.attributes import Attributes, Column, Reading
from edge.serving.places import Places
from edge.serving.shared import Shared
from edge.texts import Texts, Vocabulary, longer
from protocol.content import Description

_LISTING: Final = """
    SELECT id, name, listed, title, category, brand, price, stock FROM items WHERE id > ? AND id <= ? ORDER BY id"""
_CHANGED: Final = f"""
    SELECT mark, id, listed, {ITEM_COLUMNS} FROM items WHERE (mark, id) > (?, ?) ORDER BY mark, id LIMIT ?
"""  # noqa: S608 - our own words
_AT_A_TIME: Final = 512
_LAST: Final = 2**62  # of one mark: the key of no item is higher
_Row: TypeAlias = tuple[int, str, int, str | None, str | None, str | None, float | None, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """An item that was listed, changed or taken off.

    Attributes:
        mark: the store's, at that change.
        key: the store's.
    """

    mark: int
    key: int
    listed: bool
    item: Item


class Numbering:
    """Places of all items: see `edge.serving.shelf`. Used by one thread at a time.

    Attributes:
        store: where the items stand.
        version: counts up whenever an item has changed or a new one has come.
        changes: counts up whenever what is offered or bought has changed.
        categories, brands: what the codes of arrays `category` and `brand` mean.
        described: int32[size], the version in which title, category or brand of an item changed last.
    """

    offered: NDArray[np.bool_]
    listed: NDArray[np.bool_]
    category: NDArray[np.int32]
    brand: NDArray[np.int32]
    price: NDArray[np.float32]
    stock: NDArray[np.float32]
    bought: NDArray[np.float32]
    described: NDArray[np.int32]

    def __init__(self, store: Store, catalogue: Catalogue | None) -> None:
        self._looked = store.items_mark(), _LAST
        self.version = self.changes = 0
        self.categories, self.brands = Vocabulary(), Vocabulary()
        self.store = store
        self._shared = Shared(catalogue, categories=self.categories, brands=self.brands)
        self._places = Places(self._shared)
        self._lists_items = store.has_items()
        self._attributes = Attributes(store)
        self._titles = Texts()
        self._room = self._first_room()
        self._show()
        self._absorb()
        self.count(store.popularity())

    @property
    def items_mark(self) -> int:
        """The store's, up to which changes of items are known."""
        return self._looked[0]

    @property
    def rows(self) -> int:
        """Places up to this one are rows of the shared catalogue."""
        return self._places.rows

    @property
    def size(self) -> int:
        """Places there are, 0 among them."""
        return self._places.size

    def place(self, item: str) -> int | None:
        """Where an item stands, if this site or the catalogue knows it."""
        return self._places.place(item)

    def name(self, place: int) -> str:
        """The item id at a place."""
        return self._places.name(place)

    def title(self, place: int) -> str:
        """The catalogue's where it has one, else the site's own."""
        if place <= self.rows and self._shared.titled[place]:
            return self._shared.title(place)
        return self._titles[place] if place < len(self._titles) else ""

    def description(self, place: int) -> Description:
        """What is said of an item: title, brand and category."""
        return self.title(place), self.brands.names[self.brand[place]], self.categories.names[self.category[place]]

    def attributes(self) -> set[str]:
        """The names under which listed items say something; one that is no longer used may be among them."""
        return self._attributes.names()

    def column(self, name: str) -> Column | None:
        """An attribute of all items; read once, then kept up to date."""
        return self._attributes.column(name, place_of_key=self._places.of_key, size=self.size)

    def lacks(self, names: Collection[str]) -> bool:
        """Whether a question about these attributes would have to wait for the store."""
        return self._attributes.lacks(names)

    def begin_reading(self, names: Collection[str]) -> Reading:
        """What is not known of these attributes, to be read in any thread; `finish_reading` in any case."""
        return self._attributes.begin(names, place_of_key=self._places.of_key, size=self.size)

    def finish_reading(self, reading: Reading) -> None:
        """Take in what was read."""
        self._attributes.finish(reading, size=self.size)

    def drop_caches(self) -> None:
        """Let go of what can be had again."""
        self._attributes.clear()

    def places(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[n], places of store keys."""
        if keys.size and keys.max() > self._places.highest:
            self._absorb()
        return self._places.of_key[keys].astype(np.int64)

    def note_purchases(self, keys: Sequence[int]) -> None:
        places = self.places(np.asarray(keys, np.int64))  # first: what is new makes the array a longer one
        np.add.at(self.bought, places, 1)
        self.changes += 1

    def note_purchase(self, item: str) -> None:
        place = self.place(item)
        if place is None:
            self._absorb()
            place = self.place(item)
        if place is not None:
            self.bought[place] += 1
            self.changes += 1

    def count(self, purchases: Mapping[int, int]) -> None:
        """How often the item of each store key was bought."""
        places = self.places(np.fromiter(purchases, np.int64, len(purchases)))
        self.bought[:] = 0
        self.bought[places] = np.fromiter(purchases.values(), np.float32, len(purchases))
        self.changes += 1

    def changed(self, *, most: int) -> list[Changed]:
        """The next items that were listed, changed or taken off since the last look. In any thread."""
        with self.store.reading() as db:
            return [
                Changed(mark=mark, key=key, listed=bool(listed), item=item_of(row))
                for mark, key, listed, *row in db.execute(_CHANGED, (*self._looked, most))
            ]

    def take_in(self, changed: Sequence[Changed]) -> None:
        """Take in what has changed, in that order; new items get new places."""
        if not changed:
            return
        if (highest := max(one.key for one in changed)) > self._places.highest:
            self._absorb(highest)  # there may be others before it that were only seen in events
        rows = [
            (one.key, each.item, one.listed, each.title, each.category, each.brand, each.price, each.stock)
            for one in changed
            for each in (one.item,)
        ]
        for place, one in zip(self._put(rows).tolist(), changed, strict=True):
            self._attributes.put(place, one.item.attributes if one.listed else {})
        if (lists_items := self.store.has_items()) != self._lists_items:
            self._lists_items = lists_items
            self.offered[1:] = (self.listed[1:] | (not lists_items)) & (self.stock[1:] > 0)
        self._looked = changed[-1].mark, changed[-1].key
        self._changed()

    def nbytes(self) -> int:
        """Bytes in memory, without the catalogue."""
        arrays = [*self._room.values(), self._shared.categories, self._shared.brands]
        texts = self._places.nbytes() + self._titles.nbytes + self._attributes.nbytes()
        return texts + sum(array.nbytes for array in arrays)

    def _absorb(self, highest: int = _LAST) -> None:
        """Take in items with keys that are new since the last look, up to this one."""
        before = self._places.highest
        with self.store.reading() as db:
            fresh = db.execute(_LISTING, (before, highest))
            while rows := fresh.fetchmany(_AT_A_TIME):
                self._put(rows)
                breathe()
        if self._places.highest > before:
            self._changed()

    def _changed(self) -> None:
        self.version += 1
        self.changes += 1

    def _put(self, rows: Sequence[_Row]) -> NDArray[np.int64]:
        """Note what a site says of items; what it does not say is the catalogue's. Returns int64[n], their places.

        What is off the list keeps its name: somebody may have bought it, and the model reads what that was.
        """
        keys, names, listed, titles, categories, brands, prices, stocks = zip(*rows, strict=True)
        places, said = self._places.of(np.array(keys, np.int64), names), np.array(listed, np.bool_)
        self._show()
        row, shared = np.where(places <= self.rows, places, 0), self._shared
        stock, price = np.array(stocks, np.float32), np.array(prices, np.float32)  # nan: not said
        stock[~said | np.isnan(stock)] = np.inf
        price[~said] = np.nan
        self.listed[places], self.stock[places] = said, stock
        self.offered[places] = (said | (not self._lists_items)) & (stock > 0)
        self.price[places] = np.where(np.isnan(price), shared.prices[row], price)
        category = _codes(self.categories, categories, otherwise=shared.categories[row])
        brand = _codes(self.brands, brands, otherwise=shared.brands[row])
        renamed = self._put_titles(places, [title or "" for title in titles], untitled=~shared.titled[row])
        changed = renamed | (self.category[places] != category) | (self.brand[places] != brand)
        self.category[places], self.brand[places] = category, brand
        self.described[places[changed]] = self.version + 1
        return places

    def _put_titles(
        self, places: NDArray[np.int64], titles: Sequence[str], *, untitled: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Note the site's own titles where the catalogue has none; bool[n], where it is another one than before."""
        changed = np.zeros(len(places), np.bool_)
        self._titles.lengthen(self.size if untitled.any() else 0)
        for number in np.flatnonzero(untitled).tolist():
            place, title = int(places[number]), titles[number]
            if self._titles[place] != title:
                self._titles[place] = title
                changed[number] = True
        return changed

    def _first_room(self) -> dict[str, NDArray[Any]]:
        """What the catalogue knows, by place."""
        count = self.size
        room: dict[str, NDArray[Any]] = {
            "offered": np.full(count, not self._lists_items),
            "listed": np.zeros(count, np.bool_),
            "category": self._shared.categories.copy(),
            "brand": self._shared.brands.copy(),
            "price": self._shared.prices.copy(),
            "stock": np.full(count, np.inf, np.float32),
            "bought": np.zeros(count, np.float32),
            "described": np.zeros(count, np.int32),
        }
        room["offered"][0] = False
        return room

    def _show(self) -> None:
        """Arrays have room for more than there is; what is seen of them ends with the last place."""
        if self.size > len(self._room["offered"]):
            self._room = {name: longer(array, self.size) for name, array in self._room.items()}
        if self.size > len(getattr(self, "offered", ())):
            for name, array in self._room.items():
                setattr(self, name, array[: self.size])
            self._attributes.lengthen(self.size)


def _codes(vocabulary: Vocabulary, texts: Sequence[str | None], *, otherwise: NDArray[np.int32]) -> NDArray[np.int32]:
    """int32[n], the codes of texts; of empty ones, the others."""
    codes = np.fromiter((vocabulary.code(text or "") for text in texts), np.int32, len(texts))
    return np.where(codes > 0, codes, otherwise)
