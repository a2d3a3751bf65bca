"""What each item amounts to: how many baskets and visits had it, how much it was wanted in the long run and lately."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from edge.neighbours.entries import FAINTEST, faded_by
from edge.neighbours.visits import Counted
from edge.records.events import DAY_MS
from edge.settings import NeighbourSettings

COLUMNS: Final = "item, time_ms, bought, viewed, usual, hot"
"""Of the table."""
BASKETS: Final = 0
VISITS: Final = 1
USUAL: Final = 2
HOT: Final = 3
_WIDTH = 4
_Table = tuple[NDArray[np.int64], NDArray[np.float64]]
_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfLives:
    """After so long a thing that happened counts half.

    Attributes:
        memory_ms: for what goes with what, and what sells where and when.
        trend_ms: for what is wanted lately.
    """

    memory_ms: float
    trend_ms: float

    @classmethod
    def of(cls, settings: NeighbourSettings) -> Self:
        """As the settings say."""
        return cls(memory_ms=settings.half_life_days * DAY_MS, trend_ms=settings.trend_half_life_hours * _HOUR_MS)

    def by_column(self) -> NDArray[np.float64]:
        """float64[4]."""
        return np.array([self.memory_ms, self.memory_ms, self.memory_ms, self.trend_ms])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sums:
    """Of some items, each as of its own time.

    Attributes:
        item: int64[n], store keys.
        time_ms: int64[n].
        value: float64[n, 4]: baskets, visits, and how much it was wanted: usually, and lately.
    """

    item: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    value: NDArray[np.float64]

    @classmethod
    def of(cls, rows: Sequence[tuple[float, ...]]) -> Self:
        """Rows of the table."""
        table = np.array(rows, np.float64).reshape(-1, 2 + _WIDTH)
        return cls(item=table[:, 0].astype(np.int64), time_ms=table[:, 1].astype(np.int64), value=table[:, 2:])


def summed(old: Sums, counted: Counted, *, half_lives: HalfLives, sign: int) -> Sums:
    """The sums of all items that were counted, after that.

    Args:
        old: of those of them that have any.
        sign: 1: it is added; -1: it is taken out.
    """
    lives = half_lives.by_column()
    item, which = np.unique(counted.item, return_inverse=True)
    at = np.searchsorted(item, old.item)
    time_ms = np.full(len(item), counted.time_ms.max(initial=0))
    time_ms[at] = np.maximum(time_ms[at], old.time_ms)
    value = np.zeros((len(item), _WIDTH))
    value[at] = old.value * faded_by((time_ms[at] - old.time_ms)[:, None], lives)
    gained = counted.sums[:, [0, 1, 2, 2]]  # how much it was wanted goes into both
    np.add.at(value, which, sign * gained * faded_by((time_ms[which] - counted.time_ms)[:, None], lives))
    value[value < FAINTEST] = 0
    return Sums(item=item, time_ms=time_ms, value=value)


class Interest:
    """The sums of all items, in memory. Written by the thread that follows, read by any."""

    def __init__(self, half_lives: HalfLives) -> None:
        self.half_lives = half_lives
        self.newest_ms = 0
        """Time of the newest event that was counted."""
        self.size = 1
        """One more than the highest key."""
        self._table = np.zeros(1, np.int64), np.zeros((1, _WIDTH))

    def put(self, sums: Sums) -> None:
        """Take in new values."""
        self._table = _with(self._table, sums)
        self.size = max(self.size, int(sums.item.max(initial=0)) + 1)
        self.newest_ms = max(self.newest_ms, int(sums.time_ms.max(initial=0)))

    def replace(self, parts: Iterable[Sums]) -> None:
        """Forget what there is for these."""
        table, size = (np.zeros(1, np.int64), np.zeros((1, _WIDTH))), 1
        for sums in parts:
            table, size = _with(table, sums), max(size, int(sums.item.max(initial=0)) + 1)
        self._table, self.size = table, size
        self.newest_ms = int(table[0].max())

    def of(
        self, items: NDArray[np.int64], column: int | NDArray[np.int64], *, now_ms: int | NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """float64[n], what they are worth at a time; 0 of those unknown. Each may have a column and time of its own."""
        time_ms, value = self._table
        known = np.where(items < len(time_ms), items, 0)
        age_ms = now_ms - time_ms[known]
        faded: NDArray[np.float64] = value[known, column] * faded_by(age_ms, self.half_lives.by_column()[column])
        return faded

    def all(self, columns: Sequence[int], *, now_ms: int) -> list[NDArray[np.float64]]:
        """float64[size] each, of every item by its key."""
        time_ms, value = (column[: self.size] for column in self._table)
        ages = (now_ms - time_ms).astype(np.float32)  # half as exact takes a quarter of the time
        lives = self.half_lives.by_column().astype(np.float32)
        return [value[:, column] * faded_by(ages, lives[column]) for column in columns]


def _with(table: _Table, sums: Sums) -> _Table:
    """The table with these in it: itself, or a longer one with room for more."""
    time_ms, value = table
    highest = int(sums.item.max(initial=0))
    if highest >= len(time_ms):
        more = max(highest + 1, len(time_ms) * 5 // 4) - len(time_ms)
        time_ms = np.concatenate([time_ms, np.zeros(more, np.int64)])
        value = np.concatenate([value, np.zeros((more, _WIDTH))])
    time_ms[sums.item], value[sums.item] = sums.time_ms, sums.value
    return time_ms, value
