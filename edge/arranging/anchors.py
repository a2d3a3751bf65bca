"""What goes with, and what is like, the item in view or the things in the basket."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from edge.arranging.scenario import Anchor
from edge.serving.shelf import Shelf

Near: TypeAlias = Callable[[Shelf, NDArray[np.int64], int], tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Places -> what is bought or looked at with them: int64[m], best first, and weights, float32[m]."""
_NEIGHBOURS: Final = 50
_KEPT: Final = 2_000


class Space(Protocol):
    """Vectors by place, as `edge.serving.vectors` has them."""

    def at(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[m, d]; zeros where none is known."""

    def similar(
        self, place: int, allowed: NDArray[np.bool_], *, k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k nearest others by cosine, best first."""


class Anchors:
    """Looks up what is near; what is like an item is looked for once, since items in view are few. For one thread."""

    def __init__(self) -> None:
        self._similar: WeakKeyDictionary[Space, _Similar] = WeakKeyDictionary()

    def lifts(
        self, anchor: Anchor, items: NDArray[np.int64], shelf: Shelf, *, near: Near | None, space: Space | None
    ) -> dict[int, float]:
        """By place, what is added to its score for going with these items, or being like one of them."""
        found: dict[int, float] = {}
        if anchor.related and near is not None and items.size:
            places, weights = near(shelf, items, _NEIGHBOURS)
            top = float(weights.max(initial=0)) or 1.0
            _add(found, places, anchor.related * weights / top)
        if anchor.similar and space is not None:
            kept = self._similar.setdefault(space, _Similar())
            for item in items.tolist():
                places, cosines = kept.to(item, shelf, space)
                _add(found, places, anchor.similar * np.maximum(cosines, 0) / len(items))
        return found


class _Similar:
    def __init__(self) -> None:
        self._version = -1
        self._kept: OrderedDict[int, tuple[NDArray[np.int64], NDArray[np.float32]]] = OrderedDict()

    def to(self, item: int, shelf: Shelf, space: Space) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if self._version != shelf.version:
            self._version = shelf.version
            self._kept.clear()
        found = self._kept.get(item)
        if found is None:
            found = self._kept[item] = space.similar(item, shelf.offered, k=_NEIGHBOURS)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found


def _add(found: dict[int, float], places: NDArray[np.int64], lifts: NDArray[np.floating[Any]]) -> None:
    for place, lift in zip(places.tolist(), lifts.tolist(), strict=True):
        found[place] = found.get(place, 0.0) + lift
