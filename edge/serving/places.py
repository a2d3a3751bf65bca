"""Which place an item has: a row of the shared catalogue, or the next number when this edge gets to know it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.serving.shared import Shared
from edge.texts import Index, Texts, longer


class Places:
    """Names, store keys and places of all items; a place that was given is never given to another item.

    Attributes:
        rows: places up to this one are rows of the shared catalogue.
        size: places there are, 0 among them.
        highest: store key up to which all items have a place.
        of_key: int32[highest + 1 or more], places by store key; 0: there is no such item.
    """

    def __init__(self, shared: Shared) -> None:
        self.rows = shared.rows
        self.size = self.rows + 1
        self.highest = 0
        self.of_key = np.zeros(1, np.int32)
        self._shared = shared
        self._private = Texts([""])
        self._index = Index(self._private)

    def place(self, name: str) -> int | None:
        row = self._shared.row(name)
        if row is not None:
            return row
        number = self._index.find(name)
        return None if number is None else self.rows + number

    def name(self, place: int) -> str:
        return self._shared.name(place) if place <= self.rows else self._private[place - self.rows]

    def of(self, keys: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.int64]:
        """int64[n], the places of items; those that are nowhere yet get the next ones."""
        highest = int(keys.max())
        if highest >= len(self.of_key):
            self.of_key = longer(self.of_key, highest + 1)
        places = self.of_key[keys].astype(np.int64)
        homeless = np.flatnonzero(places == 0)
        if homeless.size:
            places[homeless] = self._shared.rows_of([names[number] for number in homeless.tolist()])
            private = np.flatnonzero(places == 0)
            places[private] = self._next([names[number] for number in private.tolist()])
            self.of_key[keys] = places
            self.highest = max(self.highest, highest)
        return places

    def nbytes(self) -> int:
        """Bytes in memory, without the catalogue."""
        return self.of_key.nbytes + self._private.nbytes + self._index.nbytes

    def _next(self, names: Sequence[str]) -> NDArray[np.int64]:
        """int64[n], places after all others."""
        first, self.size = self.size, self.size + len(names)
        self._private.extend(names)
        self._index.extend(first - self.rows)
        return np.arange(first, self.size)
