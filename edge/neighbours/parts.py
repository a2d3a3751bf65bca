"""The parts of a past that may be why an item is recommended: single events, and events with something in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.records.store import Past
from edge.serving.shelf import Shelf

NEWEST: Final = 32
"""So many of the newest events are looked at one by one."""
_OWN = 8
_SEVERAL = 2  # events make a group
_ALIKE = 0.25  # prices that differ by no more than that share are about the same


class Kind(StrEnum):
    """What a reason names. A closed set."""

    EVENT = "event"
    ITEM = "item"
    CATEGORY = "category"
    BRAND = "brand"
    PRICE = "price"
    SEQUENCE = "sequence"
    HABITS = "habits"
    COMPANION = "companion"
    POPULARITY = "popularity"
    CONTEXT = "context"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Some events of a past.

    Attributes:
        place: the item that it may explain; 0: any.
        gone: bool[t], the events.
    """

    kind: Kind
    place: int
    gone: NDArray[np.bool_]

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self.gone))


def parts_of(past: Past, places: Sequence[int], shelf: Shelf) -> list[Part]:
    """All that may explain one of these items.

    Args:
        past: its items are places.
    """
    found = [_event(past, at) for at in _looked_at(past, places)]
    for place in places:
        own = past.item == place
        groups = {Kind.ITEM: own, **_alike(past, place, shelf)}
        found += [
            Part(kind=kind, place=place, gone=gone)
            for kind, gone in groups.items()
            if np.count_nonzero(gone) >= _SEVERAL
        ]
    return found


def _looked_at(past: Past, places: Sequence[int]) -> list[int]:
    """The newest events, and those that were about one of the items."""
    count = len(past.item)
    chosen = set(range(max(count - NEWEST, 0), count))
    for place in places:
        chosen.update(np.flatnonzero(past.item == place)[-_OWN:].tolist())
    return sorted(chosen)


def _event(past: Past, at: int) -> Part:
    gone = np.zeros(len(past.item), np.bool_)
    gone[at] = True
    return Part(kind=Kind.EVENT, place=0, gone=gone)


def _alike(past: Past, place: int, shelf: Shelf) -> dict[Kind, NDArray[np.bool_]]:
    """Events about other items that have something in common with this one."""
    other, found = past.item != place, {}
    for kind, column in ((Kind.CATEGORY, shelf.category), (Kind.BRAND, shelf.brand)):
        if column[place]:
            found[kind] = other & (column[past.item] == column[place])
    price = float(shelf.price[place])
    if price > 0:  # false where it is not known
        with np.errstate(invalid="ignore"):
            found[Kind.PRICE] = other & (np.abs(shelf.price[past.item] - price) <= _ALIKE * price)
    return found
