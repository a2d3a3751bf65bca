"""What of the shelf may be in an answer, and what of that sells best: kept from one answer to the next.

One purchase changes what is popular, and finding the most popular of a million items takes ten milliseconds. So on a
long shelf the list may be a second old; on a short one it is always new.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.serving.ranker import best
from edge.serving.shelf import POPULAR, Shelf

_SHORT: Final = 20_000
_OLDEST_SECONDS: Final = 1.0
_KEPT: Final = 64
_KEPT_LIKED: Final = 8
_MOST_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assortment:
    """What one filter leaves of a shelf.

    Attributes:
        allowed: bool[size].
        count: how many it leaves.
        popular: int64[m], those bought most, best first.
    """

    allowed: NDArray[np.bool_]
    count: int
    popular: NDArray[np.int64]
    _shelf: Shelf
    _changes: int
    _read: float


class _Liked(NamedTuple):
    allowed: NDArray[np.bool_]
    liking: NDArray[np.float32]
    places: NDArray[np.int64]


class Assortments:
    """Those that were asked for last, 64 or 16 MiB at most; each keeps its mask alive."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        """Begin empty.

        Args:
            clock: seconds that never go back.
        """
        self._clock = clock
        self._kept: OrderedDict[int, Assortment] = OrderedDict()
        self._liked: OrderedDict[tuple[int, int], _Liked] = OrderedDict()

    def clear(self) -> None:
        """Let go of all that is kept; it can be had again."""
        self._kept.clear()
        self._liked.clear()

    def of(self, shelf: Shelf, allowed: NDArray[np.bool_], *, popular: int = POPULAR) -> Assortment:
        """What this mask leaves.

        Args:
            allowed: bool[size] of this shelf; nobody changes it but the shelf itself.
            popular: so many of the most popular at least.
        """
        known = self._kept.get(id(allowed))
        if (
            known is not None
            and self._is_new(known, shelf, allowed)
            and len(known.popular) >= min(popular, known.count)
        ):
            self._kept.move_to_end(id(allowed))
            return known
        liking = np.where(allowed, shelf.popularity(), -np.inf).astype(np.float32)
        found = Assortment(
            allowed=allowed,
            count=int(np.count_nonzero(allowed)),
            popular=best(liking, max(popular, POPULAR)),
            _shelf=shelf,
            _changes=shelf.changes,
            _read=self._clock(),
        )
        self._kept[id(allowed)] = found
        self._kept.move_to_end(id(allowed))
        while len(self._kept) > _KEPT or (self.nbytes > _MOST_BYTES and len(self._kept) > 1):
            self._kept.popitem(last=False)
        return found

    def liked(self, allowed: NDArray[np.bool_], liking: NDArray[np.float32]) -> NDArray[np.int64]:
        """int64[m], the most liked of what this mask leaves, best first.

        Args:
            liking: float32[size], changed by nobody.
        """
        key = id(allowed), id(liking)
        known = self._liked.get(key)
        if known is None:  # both arrays are kept, so that no other can come to have their numbers
            places = best(np.where(allowed, liking, -np.inf).astype(np.float32), POPULAR)
            known = self._liked[key] = _Liked(allowed, liking, places)
            if len(self._liked) > _KEPT_LIKED:
                self._liked.popitem(last=False)
        return known.places

    @property
    def nbytes(self) -> int:
        """Of what is kept; the masks are shared with whoever made them."""
        return sum(each.allowed.nbytes + each.popular.nbytes for each in self._kept.values())

    def _is_new(self, known: Assortment, shelf: Shelf, allowed: NDArray[np.bool_]) -> bool:
        if known.allowed is not allowed or known._shelf is not shelf:  # noqa: SLF001 - our own record
            return False
        if known._changes == shelf.changes:  # noqa: SLF001
            return True
        return shelf.size > _SHORT and self._clock() - known._read < _OLDEST_SECONDS  # noqa: SLF001
