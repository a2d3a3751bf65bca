"""What goes with an item: bought in one basket, or looked at in one visit.

How alike two items are is the cosine of the baskets (visits) they stand in, so that what is in every basket does not
win everything, drawn towards 0 where only few baskets say so. Several items are heard as the sum of what each says.

Sources: Sarwar, Karypis, Konstan and Riedl, Item-based collaborative filtering, WWW 2001 (cosine, sum over a user's
items); Linden, Smith and York, Amazon.com recommendations, IEEE Internet Computing 2003 (worked out beforehand, item by
item); Koren, Factorization meets the neighborhood, KDD 2008 (n / (n + lambda) for what rests on n observations).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge.neighbours.books import Books
from edge.neighbours.entries import Row, faded_by, unpacked
from edge.neighbours.lately import Lately
from edge.neighbours.sums import Interest
from edge.neighbours.visits import BOUGHT, KINDS, VIEWED
from edge.records.store import Store

SEEDS: Final = 20
"""So many of a user's newest items are heard."""
_DOUBT = 3.0  # baskets: a cosine that rests on so many counts half
_SMALLEST = 1e-9
_KEPT = 8_192  # lists in memory: some 10 MB at most
Kinds: TypeAlias = tuple[tuple[int, float], ...]
"""BOUGHT or VIEWED, and how much it counts."""
EVERY: Final[Kinds] = ((BOUGHT, 1.0), (VIEWED, 0.5))
"""A basket says more than a look."""
_MERGED = (EVERY,)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Company:
    """The companions of an item, best first.

    Attributes:
        item: int64[n], store keys.
        weight: float64[n], from 0 to 1.
    """

    item: NDArray[np.int64]
    weight: NDArray[np.float64]

    def head(self, most: int) -> "Company":
        """The best of them."""
        return Company(item=self.item[:most], weight=self.weight[:most])

    def times(self, share: float) -> "Company":
        return Company(item=self.item, weight=self.weight * share)

    def best_first(self) -> "Company":
        order = np.argsort(-self.weight, kind="stable")
        return Company(item=self.item[order], weight=self.weight[order])


_NOBODY: Final = Company(item=np.empty(0, np.int64), weight=np.empty(0))


class Companions:
    """Answers from the books; the lists read lately are kept in memory."""

    def __init__(self, store: Store, books: Books, interest: Interest, *, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._books = books
        self._interest = interest
        self._now_ms = now_ms
        self._lists = Lately(self._read, most=_KEPT)
        self._merged = Lately(self._merge, most=_KEPT)

    def of(self, items: Sequence[int], kinds: Kinds) -> list[Company]:
        """All known companions of each item."""
        if len(kinds) == 1:
            return self._lists.get([item * len(KINDS) + kinds[0][0] for item in items])
        return self._merged.get([(item, kinds) for item in items])

    def near(
        self, items: NDArray[np.int64], *, kinds: Kinds = EVERY, most: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """What goes with these items taken together: keys and weights, best first; none of the items themselves.

        Args:
            items: store keys, oldest first; the newest `SEEDS` different ones are heard.
            most: of the companions of each item, so many are heard.
        """
        seeds = list(dict.fromkeys(item for item in items[::-1].tolist() if item))[:SEEDS]
        heard = [company for company in self.of(seeds, kinds) if company.item.size]
        if not heard:
            return _NOBODY.item, _NOBODY.weight
        told = _added_up([company.head(most) for company in heard])
        own = np.sort(np.array(seeds, np.int64))
        other = own.take(np.searchsorted(own, told.item), mode="clip") != told.item
        found = Company(item=told.item[other], weight=told.weight[other]).best_first()
        return found.item, found.weight

    def drop(self, lists: Sequence[int]) -> None:
        """These have changed."""
        self._lists.drop(lists)
        items = {number // len(KINDS) for number in lists if number > 0}
        self._merged.drop((item, kinds) for item in items for kinds in _MERGED)

    def clear(self) -> None:
        """Any may have changed."""
        self._lists.clear()
        self._merged.clear()

    def _merge(self, asked: Sequence[tuple[int, Kinds]]) -> list[Company]:
        lists = [item * len(KINDS) + kind for item, kinds in asked for kind, _ in kinds]
        heard = iter(self._lists.get(lists))
        return [_added_up([next(heard).times(share) for _, share in kinds]).best_first() for _, kinds in asked]

    def _read(self, lists: Sequence[int]) -> list[Company]:
        known = [number for number in lists if number // len(KINDS) < self._interest.size]
        rows = []
        if known:  # else no event has been counted that names any of them, and there may be no books
            with self._store.reading() as db:
                rows = self._books.rows(db, known)
        read = dict(zip((row[0] for row in rows), self._weighed(rows), strict=True))
        return [read.get(number, _NOBODY) for number in lists]

    def _weighed(self, rows: Sequence[Row]) -> list[Company]:
        if not rows:
            return []
        parts = [unpacked(entries) for _, _, entries in rows]
        sizes = [len(others) for others, _ in parts]
        others, together = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        number, time_ms = (np.repeat(column, sizes) for column in np.array([row[:2] for row in rows], np.int64).T)
        item, kind = np.divmod(number, len(KINDS))
        mine = self._interest.of(item, kind, now_ms=time_ms)
        theirs = self._interest.of(others, kind, now_ms=time_ms)
        cosine = np.minimum(together / np.sqrt(np.maximum(mine * theirs, _SMALLEST)), 1.0)
        known = together * faded_by(self._now_ms() - time_ms, self._books.half_lives.memory_ms)
        weight = cosine * known / (known + _DOUBT)
        ends = np.cumsum(sizes)[:-1]
        pairs = zip(np.split(others, ends), np.split(weight, ends), strict=True)
        return [Company(item=item, weight=weight).best_first() for item, weight in pairs]


def _added_up(heard: Sequence[Company]) -> Company:
    """One company, by item: each once, with the sum of its weights."""
    items = np.concatenate([company.item for company in heard])
    weight = np.concatenate([company.weight for company in heard])
    order = np.argsort(items, kind="stable")
    items, weight = items[order], weight[order]
    if len(heard) == 1 or not items.size:
        return Company(item=items, weight=weight)
    first = np.ones(len(items), np.bool_)
    np.not_equal(items[1:], items[:-1], out=first[1:])
    starts = first.nonzero()[0]
    return Company(item=items[starts], weight=np.add.reduceat(weight, starts))
