"""What is told of the items of an answer beside their titles, so that a shop needs no second look-up."""

import math
from collections.abc import Sequence
from typing import Any, Final

from edge.records.items import listed
from edge.records.store import Store
from edge.serving.facts import BUILT_IN
from edge.serving.filters import ANYTHING, Filter, refuse_unknown
from edge.serving.service import Service
from edge.serving.shelf import Shelf

_FLOAT_DIGITS: Final = 7  # what a price in 32 bits is exact to


async def at_hand(
    service: Service, wanted: Filter = ANYTHING, *, fields: Sequence[str] = (), facets: Sequence[str] = ()
) -> None:
    """Before anything is asked: what the question wants to know of the items is there, or read beside the event loop.

    Raises:
        BadInputError: no item has one of the fields.
    """
    if fields or facets or wanted.attributes or wanted.where is not None:
        filtered, told_only = {*wanted.names(), *facets} - BUILT_IN, set(fields) - BUILT_IN
        if filtered or told_only:  # what is only told is read of ten items, but its name has to be known
            await service.know(filtered)
            refuse_unknown(told_only, service.loaded.shelf)


def told(items: Sequence[str], fields: Sequence[str], shelf: Shelf, store: Store) -> list[dict[str, Any]]:
    """For each item, what is known of it under these names; what is not known is left out."""
    own = [name for name in fields if name not in BUILT_IN]
    attributes: dict[str, Any] = {}
    if own:
        with store.reading() as db:
            attributes = {name: item.attributes for name, item in listed(db, items).items()}
    return [
        {name: value for name in fields if (value := _value(name, shelf, place, attributes.get(item, {}))) is not None}
        for item in items
        if (place := shelf.place(item)) is not None
    ]


def _value(name: str, shelf: Shelf, place: int, attributes: dict[str, Any]) -> Any:
    match name:
        case "category":
            return shelf.categories[shelf.category[place]] or None
        case "brand":
            return shelf.brands[shelf.brand[place]] or None
        case "price":
            return _number(float(shelf.price[place]))
        case "stock":
            return _number(float(shelf.stock[place]))
    return attributes.get(name)


def _number(value: float) -> float | None:
    """None: not known, or not counted."""
    return float(f"{value:.{_FLOAT_DIGITS}g}") if math.isfinite(value) else None
