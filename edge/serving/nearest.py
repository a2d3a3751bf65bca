"""What of the shared catalogue lies nearest to an item: looked for once, and remembered while there is room.

Nearness does not depend on who asks, so a filter chooses from what was found; only where it leaves too little of that
is more looked at. Going through a million vectors takes 50 ms: what is not known yet can be looked for in another
thread (`Service.look_round`), so that the event loop goes on meanwhile.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.serving.ranker import Ranker

DEEP: Final = 512
"""So many are remembered of each item: enough for a filter that lets one in ten through."""
_KEPT: Final = 1_000
"""Items, of 6 kB each."""


class Rows(NamedTuple):
    """Rows of the catalogue, best first: int64[n], and their cosines, float32[n]."""

    rows: NDArray[np.int64]
    cosines: NDArray[np.float32]


class Nearest:
    """Of one release, by place; the items asked for last. For one thread, but for what `search` gives."""

    def __init__(self, ranker: Ranker) -> None:
        self._ranker = ranker
        self._kept: OrderedDict[int, Rows] = OrderedDict()

    def of(self, place: int, direction: NDArray[np.float32]) -> Rows:
        """The nearest rows, the item itself among them if it is one.

        Args:
            direction: float32[d] of length 1, the item's.
        """
        found = self._kept.get(place)
        if found is None:
            found = self.search(direction)()
            self.keep(place, found)
        else:
            self._kept.move_to_end(place)
        return found

    def takes_long(self, place: int) -> bool:
        """Whether asking for it would hold up everybody else."""
        return self._ranker.is_long and place not in self._kept

    def search(self, direction: NDArray[np.float32]) -> Callable[[], Rows]:
        """What finds them, in whatever thread."""
        return lambda: Rows(*self._ranker.nearest(direction, k=DEEP))

    def keep(self, place: int, found: Rows) -> None:
        """Remember what was found for a place."""
        self._kept[place] = found
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def forget(self, *, above: int = -1) -> None:
        """Places above this one: what is there has changed."""
        for place in [place for place in self._kept if place > above]:
            del self._kept[place]
