"""How many of the items found are of which category, brand, price and attribute."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tantivy import Query

from edge.search.documents import attribute_path
from edge.search.index import Reader
from edge.serving.facts import Coded, Numbers, ShelfFacts
from edge.serving.shelf import Shelf

MOST_FACETS: Final = 10
"""Names in one question."""
MOST_VALUES: Final = 50
"""Of one facet, the most common first."""
_PRICE: Final = "price"
_STEPS: Final = (1.0, 2.0, 5.0, 10.0)
_QUANTILES: Final = (0.2, 0.4, 0.6, 0.8)

Facets = Mapping[str, Sequence[Mapping[str, Any]]]


def counted(query: Query, names: Sequence[str], *, reader: Reader, bounds: Sequence[float]) -> Facets:
    """Of all items that fulfil a query, by the index."""
    if not names:
        return {}
    asked: dict[str, Any] = {}
    for number, name in enumerate(names):
        if name == _PRICE:
            asked[str(number)] = {"range": {"field": _PRICE, "ranges": _ranges(bounds)}}
        else:
            field = name if name in {"category", "brand"} else f"attributes.{attribute_path(name)}"
            asked[str(number)] = {"terms": {"field": field, "size": MOST_VALUES}}
    told = reader.searcher.aggregate(query, asked)
    return {name: _told(name, told[str(number)]["buckets"]) for number, name in enumerate(names)}


def tallied(places: NDArray[np.int64], names: Sequence[str], *, shelf: Shelf, bounds: Sequence[float]) -> Facets:
    """Of these places, by the shelf."""
    facts = ShelfFacts(shelf)
    found: dict[str, Sequence[Mapping[str, Any]]] = {}
    for name in names:
        fact = facts.fact(name)
        if name == _PRICE:
            found[name] = _by_range(shelf.price[places], bounds)
        elif isinstance(fact, Coded):
            found[name] = _by_value(fact, places)
        elif isinstance(fact, Numbers):
            values, counts = np.unique(fact.values[places], return_counts=True)
            there = ~np.isnan(values)
            found[name] = _most(zip(values[there].tolist(), counts[there].tolist(), strict=True))
    return found


def price_bounds(shelf: Shelf) -> list[float]:
    """Round prices that cut what is on offer into about five parts."""
    prices = shelf.price[shelf.offered]
    prices = prices[np.isfinite(prices) & (prices > 0)]
    if not prices.size:
        return []
    return sorted({_rounded(float(price)) for price in np.quantile(prices, _QUANTILES)})


def _rounded(price: float) -> float:
    unit = 10.0 ** np.floor(np.log10(price))
    return float(unit * min(_STEPS, key=lambda step: abs(step * unit - price)))


def _ranges(bounds: Sequence[float]) -> list[dict[str, float]]:
    ends: list[float | None] = [None, *bounds, None]
    return [_range(low, high) for low, high in pairwise(ends)]


def _range(low: float | None, high: float | None) -> dict[str, float]:
    return ({} if low is None else {"from": low}) | ({} if high is None else {"to": high})


def _told(name: str, buckets: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if name == _PRICE:
        kept = [bucket for bucket in buckets if bucket["doc_count"]]
        return [{"min": each.get("from"), "max": each.get("to"), "count": each["doc_count"]} for each in kept]
    return [{"value": _value(bucket), "count": bucket["doc_count"]} for bucket in buckets]


def _value(bucket: Mapping[str, Any]) -> Any:
    return bucket["key_as_string"] == "true" if bucket.get("key_as_string") in {"true", "false"} else bucket["key"]


def _by_range(prices: NDArray[np.float32], bounds: Sequence[float]) -> list[dict[str, Any]]:
    known = prices[~np.isnan(prices)]
    counts = np.bincount(np.searchsorted(np.array(bounds), known, side="right"), minlength=len(bounds) + 1).tolist()
    ends: list[float | None] = [None, *bounds, None]
    return [
        {"min": low, "max": high, "count": count}
        for (low, high), count in zip(pairwise(ends), counts, strict=True)
        if count
    ]


def _by_value(fact: Coded, places: NDArray[np.int64]) -> list[dict[str, Any]]:
    counts = np.bincount(fact.codes[places], minlength=1)
    found: dict[Any, int] = {}
    for code in np.flatnonzero(counts).tolist():
        value = fact.values[code]
        for one in value if isinstance(value, list) else (value,):
            if isinstance(one, str | bool | int | float):
                found[one] = found.get(one, 0) + int(counts[code])
    return _most(found.items())


def _most(counted_values: Iterable[tuple[Any, int]]) -> list[dict[str, Any]]:
    order = sorted(counted_values, key=lambda each: (-each[1], str(each[0])))
    return [{"value": value, "count": count} for value, count in order[:MOST_VALUES]]
