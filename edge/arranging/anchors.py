"""What goes with, and what is like, the item in view or the things in the basket."""

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge.arranging.scenario import Anchor
from edge.serving.shelf import Shelf

Near: TypeAlias = Callable[[Shelf, NDArray[np.int64], int], tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Places -> what is bought or looked at with them: int64[m], best first, and weights, float32[m]."""
_NEIGHBOURS: Final = 50
MOST_LIKENED: Final = 10
"""Items whose likes are looked for, the last ones: a basket of a hundred says no more than its last ten."""


class Space(Protocol):
    """Vectors by place, as `edge.serving.vectors` has them."""

    def at(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[m, d]; zeros where none is known."""

    def similar(
        self, place: int, allowed: NDArray[np.bool_], *, k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k nearest others by cosine, best first."""


def lifts(
    anchor: Anchor, items: NDArray[np.int64], shelf: Shelf, *, near: Near | None, space: Space | None
) -> dict[int, float]:
    """By place, what is added to its score for going with these items, or being like one of the last of them."""
    found: dict[int, float] = {}
    if anchor.related and near is not None and items.size:
        places, weights = near(shelf, items, _NEIGHBOURS)
        top = float(weights.max(initial=0)) or 1.0
        _add(found, places, anchor.related * weights / top)
    if anchor.similar and space is not None:
        last = items[-MOST_LIKENED:].tolist()
        for item in last:
            places, cosines = space.similar(item, shelf.offered, k=_NEIGHBOURS)
            _add(found, places, anchor.similar * np.maximum(cosines, 0) / len(last))
    return found


def _add(found: dict[int, float], places: NDArray[np.int64], lifts: NDArray[np.floating[Any]]) -> None:
    for place, lift in zip(places.tolist(), lifts.tolist(), strict=True):
        found[place] = found.get(place, 0.0) + lift
