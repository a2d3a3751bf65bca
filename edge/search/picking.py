"""From a question and a filter to places on the shelf, best first.

What the index can tell of a filter or an order it tells while it looks. For the rest (an expression, what sells) all
items that fit are looked at on the shelf, whose prices, stock and counts are those of this moment.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tantivy import Occur, Order, Query

from edge.search.answers import Ask, Sort
from edge.search.filtering import Wanted, in_the_index
from edge.search.following import View
from edge.search.matching import By, Matches, match, matching_keys
from edge.search.synonyms import Synonyms
from edge.serving.ranker import best
from edge.serving.shelf import Shelf

MOST_LOOKED_AT: Final = 20_000
"""Items that are asked one by one what the index cannot tell; those behind them count as if they did not fit."""
_FIRST_LOOK: Final = 1_000
_BY: Final = MappingProxyType(
    {
        Sort.PRICE_UP: By("price", Order.Asc),
        Sort.PRICE_DOWN: By("price", Order.Desc),
        Sort.NEWEST: By("added", Order.Desc),
    }
)
_NOBODY: Final = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picked:
    """What fits, best first.

    Attributes:
        places: int64[m], not necessarily all that fit.
        scores: float32[m]; 0 where the order is not one of relevance.
        hits: how many fit with every word.
        matches: what the index said; None: it was not asked.
        all_places: int64[hits], when called: all that fit, in any order.
        in_index: whether exactly what `matches` says fits, so that the index can count it.
    """

    places: NDArray[np.int64]
    scores: NDArray[np.float32]
    hits: int
    matches: Matches | None
    all_places: Callable[[], NDArray[np.int64]]
    in_index: bool = False

    @property
    def complete(self) -> int:
        """How many of the first hold every word."""
        return min(self.hits, len(self.places))


NOBODY: Final = Picked(places=_NOBODY, scores=np.empty(0, np.float32), hits=0, matches=None, all_places=lambda: _NOBODY)


def pick(ask: Ask, view: View, shelf: Shelf, allowed: NDArray[np.bool_], *, most: int, synonyms: Synonyms) -> Picked:
    """Items that hold what was typed.

    Args:
        allowed: bool[size], what the filter lets through and is on offer.
        most: so many places are wanted.
    """
    wanted, by = in_the_index(ask.filter), _BY.get(ask.sort)

    def look(count: int) -> Matches:
        return match(ask.text, view.reader, most=count, clauses=wanted.clauses, synonyms=synonyms, by=by)

    if ask.sort is Sort.POPULARITY:
        return _by_sales(look(1), view, shelf, allowed, most=most)
    if wanted.whole:
        return _as_found(look(most), view, shelf, allowed, sorted_by=by)
    found = look(max(most, _FIRST_LOOK))
    every = _every(found, view, shelf, allowed)
    if found.hits > len(found.keys) and np.count_nonzero(allowed[_places(found.keys, view, shelf)]) < most:
        found = look(MOST_LOOKED_AT)
    picked = _as_found(found, view, shelf, allowed, sorted_by=by)
    hits = len(every)
    return Picked(places=picked.places, scores=picked.scores, hits=hits, matches=found, all_places=lambda: every)


def browse(ask: Ask, view: View | None, shelf: Shelf, allowed: NDArray[np.bool_], *, most: int) -> Picked:
    """Whatever the filter lets through; what sells best first, unless another order was asked for."""
    every = np.flatnonzero(allowed)
    if ask.sort is Sort.NEWEST and view is not None:
        places = _newest(ask, view, shelf, allowed, most=most)
    elif ask.sort in {Sort.PRICE_UP, Sort.PRICE_DOWN}:
        price = shelf.price[every]
        order = np.argsort(-price if ask.sort is Sort.PRICE_DOWN else price, kind="stable")  # nan comes last
        places = every[order[:most]]
    else:
        places = every[best(shelf.popularity()[every], most)]
    scores = np.zeros(len(places), np.float32)
    return Picked(places=places, scores=scores, hits=len(every), matches=None, all_places=lambda: every)


def _as_found(found: Matches, view: View, shelf: Shelf, allowed: NDArray[np.bool_], *, sorted_by: By | None) -> Picked:
    """In the order of the index, without what is no longer on offer or never was allowed."""
    places = _places(found.keys, view, shelf)
    kept = allowed[places]
    scores = np.zeros(len(places), np.float32) if sorted_by else np.array(found.scores, np.float32)
    if not kept.all():
        places, scores = places[kept], scores[kept]
    return Picked(
        places=places,
        scores=scores,
        hits=found.hits,
        matches=found,
        all_places=lambda: _every(found, view, shelf, allowed),
        in_index=True,
    )


def _by_sales(found: Matches, view: View, shelf: Shelf, allowed: NDArray[np.bool_], *, most: int) -> Picked:
    every = _every(found, view, shelf, allowed)
    places = every[best(shelf.popularity()[every], most)]
    scores = np.zeros(len(places), np.float32)
    return Picked(places=places, scores=scores, hits=len(every), matches=found, all_places=lambda: every)


def _newest(ask: Ask, view: View, shelf: Shelf, allowed: NDArray[np.bool_], *, most: int) -> NDArray[np.int64]:
    wanted: Wanted = in_the_index(ask.filter)
    query = Query.boolean_query([(Occur.Must, Query.all_query()), *wanted.clauses])
    count = most if wanted.whole else MOST_LOOKED_AT
    found = view.reader.searcher.search(query, count, count=False, order_by_field="added", order=Order.Desc)
    places = _places(view.reader.keys([address for _, address in found.hits]), view, shelf)
    return places[allowed[places]][:most]


def _every(found: Matches, view: View, shelf: Shelf, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
    places = _places(matching_keys(found, view.reader, most=MOST_LOOKED_AT), view, shelf)
    return places[allowed[places]]


def _places(keys: Sequence[int], view: View, shelf: Shelf) -> NDArray[np.int64]:
    """int64[n], where the keys of an index stand; 0, which is never allowed, for what the shelf does not know."""
    found = np.array(keys, np.int64)
    return shelf.places(found) if view.source.listed else -found
