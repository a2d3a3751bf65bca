"""From places on a shelf to the keys under which the books know items, and back."""

from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from edge.serving.shelf import Shelf


class Keys:
    """Which key stands at which place, of the shelves in use; each is looked at once and then only for what is new."""

    def __init__(self) -> None:
        self._of: WeakKeyDictionary[Shelf, tuple[NDArray[np.int64], int]] = WeakKeyDictionary()

    def at(self, shelf: Shelf, places: NDArray[np.int64], *, size: int) -> NDArray[np.int64]:
        """int64[n], the keys of items at these places; 0: no event has named it.

        Args:
            size: one more than the highest key there is.
        """
        keys, known = self._of.get(shelf, (np.zeros(1, np.int64), 1))
        if known < size:
            fresh = np.arange(known, size)
            stand = shelf.places(fresh)
            if (longest := int(stand.max(initial=0))) >= len(keys):
                keys = np.concatenate([keys, np.zeros(longest + 1 - len(keys), np.int64)])
            keys[stand] = fresh
            keys[0] = 0
            self._of[shelf] = keys, size
        found: NDArray[np.int64] = keys[np.where(places < len(keys), places, 0)]
        return found
