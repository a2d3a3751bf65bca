"""What sells at this hour, on this weekday, in this region, to those who came in by this page: for who is unknown."""

from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from edge.neighbours.books import Books, Entry
from edge.neighbours.entries import faded_by, unpacked
from edge.neighbours.lifting import Lift, lift
from edge.neighbours.sums import USUAL, Interest
from edge.neighbours.visits import hour_and_weekday
from edge.records.events import CONTEXT
from edge.records.store import Store
from edge.serving.shelf import Shelf

_FRESH_MS = 5_000
_MOST_LIFTS = 2_048
_UNSEEN = 1e-6  # of all that is wanted: what no event has named, ranked by popularity


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Base:
    """What is wanted in the whole shop.

    Attributes:
        likely: float64[size], by place.
    """

    likely: NDArray[np.float64]
    made_ms: int


class Contexts:
    """Answers from the books. Used in one thread."""

    def __init__(self, store: Store, books: Books, interest: Interest) -> None:
        self._store = store
        self._books = books
        self._interest = interest
        self._bases: WeakKeyDictionary[Shelf, _Base] = WeakKeyDictionary()
        self._lifts: dict[str, tuple[int, Lift]] = {}
        self._shares: tuple[int, NDArray[np.float64]] = (0, np.zeros(1))
        self._names: dict[str, int] | None = None

    def prior(self, shelf: Shelf, context: Mapping[str, str], now_ms: int) -> NDArray[np.float32] | None:
        """float32[size], how likely each item is wanted in all these contexts at once, as if they were independent.

        Returns:
            Comparable within one answer; None while no event has been counted.
        """
        if not self._share(now_ms).any():
            return None
        likely = self._base(shelf, now_ms).likely.copy()
        for name in names_of(context, now_ms):
            heard = self._lift(name, now_ms)
            if heard.item.size:
                likely *= heard.rest
                likely[shelf.places(heard.item)] *= heard.times / heard.rest
        return likely.astype(np.float32)

    def lifts(self, shelf: Shelf, context: Mapping[str, str], place: int, now_ms: int) -> dict[str, float]:
        """How many times as often as elsewhere one item is wanted in each of these contexts."""
        found = {}
        for name in names_of(context, now_ms):
            heard = self._lift(name, now_ms)
            here = heard.times[shelf.places(heard.item) == place]
            found[name] = float(here[0]) if here.size else heard.rest
        return found

    def note(self, entry: Entry) -> None:
        """The books have changed."""
        if entry.names or entry.forgotten or any(number < 0 for number in entry.gone):
            self._names = None

    def renew(self) -> None:
        """The books are others now."""
        self._names = None
        self._lifts = {}
        self._shares = (0, np.zeros(1))

    def _base(self, shelf: Shelf, now_ms: int) -> _Base:
        base = self._bases.get(shelf)
        if base is None or now_ms - base.made_ms > _FRESH_MS or len(base.likely) != len(shelf.offered):
            shares = self._share(now_ms)
            stand = shelf.places(np.arange(len(shares)))
            popular = shelf.popularity().astype(np.float64)
            likely = _UNSEEN * popular / max(float(popular.sum()), 1.0)
            likely[stand] += shares
            base = self._bases[shelf] = _Base(likely=likely, made_ms=now_ms)
        return base

    def _share(self, now_ms: int) -> NDArray[np.float64]:
        """float64[size], of each item in all that is wanted, by key."""
        made_ms, shares = self._shares
        if not 0 <= now_ms - made_ms <= _FRESH_MS:
            (usual,) = self._interest.all((USUAL,), now_ms=now_ms)
            shares = usual / max(float(usual.sum()), 1e-12)
            self._shares = now_ms, shares
        return shares

    def _lift(self, name: str, now_ms: int) -> Lift:
        made_ms, heard = self._lifts.get(name, (-_FRESH_MS, None))
        if heard is None or not 0 <= now_ms - made_ms <= _FRESH_MS:
            heard = self._read(name, now_ms)
            if len(self._lifts) >= _MOST_LIFTS:
                self._lifts = {}
            self._lifts[name] = now_ms, heard
        return heard

    def _read(self, name: str, now_ms: int) -> Lift:
        with self._store.reading() as db:
            if self._names is None:
                self._names = self._books.names(db)
            rows = self._books.rows(db, [self._names[name]]) if name in self._names else []
        if not rows:
            return Lift(item=np.empty(0, np.int64), times=np.empty(0), rest=1.0)
        _, time_ms, entries = rows[0]
        items, counts = unpacked(entries)
        faded = counts * faded_by(now_ms - time_ms, self._books.half_lives.memory_ms)
        return lift(items, faded, self._share(now_ms))


def names_of(context: Mapping[str, str], now_ms: int) -> list[str]:
    """The contexts that a visit is in."""
    return [*hour_and_weekday(now_ms), *(f"{kind}={context[kind]}" for kind in CONTEXT if context.get(kind))]
