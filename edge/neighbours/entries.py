"""Lists of weighted items as they lie on disk, and how weights are added to many of them at once.

A list is one row: its time, and 8 bytes an item. All weights of a list fade together, so it is enough to say when they
were right: a weight w of time t is worth w * 2 ** ((t - now) / half-life).

Source: Cormode, Shkapenyuk, Srivastava and Xu, Forward decay, ICDE 2009: decayed sums are kept without touching them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from edge.neighbours.visits import EVERYTHING, Entries

LONGEST: Final = 100
"""So many items the list of an item is cut to when it has grown too long."""
LONGEST_CONTEXT: Final = 1_000
"""Likewise the list of a context."""
_SLACK = 1.6  # times as long it may grow before it is cut, so that a newcomer has time to prove itself
FAINTEST: Final = 1e-3
"""A weight below this has faded, or is what rounding has left of something taken out; it is dropped."""
_ENTRY = np.dtype([("other", "<u4"), ("weight", "<f4")])
_SHIFT = 32
_HALVING = -np.log(2)
_OTHER = (1 << _SHIFT) - 1

Row = tuple[int, int, bytes]
"""List, time, entries by item."""
Worth = Callable[[int, NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]]
"""What entries of one list (its number, their items, their weights) are worth; the most worthy stay when it is cut."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Changes:
    """What lists gain or lose, as of one time.

    Attributes:
        at: int64[n], list and item in one number, sorted, each once.
        weight: float64[n], as of `time_ms`.
    """

    at: NDArray[np.int64]
    weight: NDArray[np.float64]
    time_ms: int

    @classmethod
    def of(cls, entries: Entries, *, half_life_ms: float, sign: int = 1) -> Self:
        """Add up what concerns the same item of the same list."""
        time_ms = int(entries.time_ms.max(initial=0))
        faded = sign * entries.weight * faded_by(time_ms - entries.time_ms, half_life_ms)
        at, which = np.unique((entries.list_id << _SHIFT) + entries.other, return_inverse=True)
        return cls(at=at, weight=_added_up(which, faded, len(at)), time_ms=time_ms)

    def lists(self) -> list[int]:
        """Those that change, each once."""
        found: list[int] = np.unique(self.at >> _SHIFT).tolist()
        return found


def faded_by(age_ms: Any, half_life_ms: Any) -> Any:
    """What is left of 1 after so long; numbers or arrays."""
    return np.exp(np.asarray(age_ms) * (_HALVING / half_life_ms))  # exp2 is ten times slower where exp is vectorised


def unpacked(entries: bytes) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Items, in the order of their keys, and their weights."""
    read = np.frombuffer(entries, _ENTRY)
    return read["other"].astype(np.int64), read["weight"].copy()


def added(rows: Sequence[Row], changes: Changes, *, half_life_ms: float, worth: Worth) -> tuple[list[Row], list[int]]:
    """The lists after a change: rows to write, and lists that are empty now.

    Args:
        rows: of those lists of the change that there are, by list.
    """
    lists, times, sizes = _heads(rows)
    changed = np.unique(changes.at >> _SHIFT)
    now = np.full(len(changed), changes.time_ms)
    known = np.searchsorted(changed, lists)
    now[known] = np.maximum(now[known], times)
    held = np.frombuffer(b"".join(entries for _, _, entries in rows), _ENTRY)
    old = held["weight"] * np.repeat(faded_by(now[known] - times, half_life_ms), sizes)
    fresh = now[np.searchsorted(changed, changes.at >> _SHIFT)] - changes.time_ms
    at, which = np.unique(
        np.concatenate([(np.repeat(lists, sizes) << _SHIFT) + held["other"], changes.at]), return_inverse=True
    )
    weight = _added_up(which, np.concatenate([old, changes.weight * faded_by(fresh, half_life_ms)]), len(at))
    at, weight = at[weight > FAINTEST], weight[weight > FAINTEST]
    kept = _kept(at, weight, worth)
    return _packed(at[kept], weight[kept], changed, now)


def _added_up(which: NDArray[np.int64], weight: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """float64[length]; numpy gives integers where there is nothing to add."""
    return np.bincount(which, weight, length).astype(np.float64)


def _heads(rows: Sequence[Row]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Lists, times and lengths."""
    heads = np.array([(number, time_ms, len(entries)) for number, time_ms, entries in rows], np.int64).reshape(-1, 3)
    return heads[:, 0], heads[:, 1], heads[:, 2] // _ENTRY.itemsize


def _kept(at: NDArray[np.int64], weight: NDArray[np.float64], worth: Worth) -> NDArray[np.bool_]:
    """bool[n], all but the least worthy entries of lists that have grown too long."""
    kept = np.ones(len(at), np.bool_)
    lists, starts, sizes = np.unique(at >> _SHIFT, return_index=True, return_counts=True)
    longest = np.where(lists < 0, LONGEST_CONTEXT, LONGEST)
    for row in np.flatnonzero(sizes > _SLACK * longest).tolist():
        span = slice(starts[row], starts[row] + sizes[row])
        others = at[span] & _OTHER
        said = np.where(others == EVERYTHING, np.inf, worth(int(lists[row]), others, weight[span]))
        kept[span] = False
        kept[starts[row] + np.argpartition(-said, longest[row] - 1)[: longest[row]]] = True
    return kept


def _packed(
    at: NDArray[np.int64], weight: NDArray[np.float64], changed: NDArray[np.int64], now: NDArray[np.int64]
) -> tuple[list[Row], list[int]]:
    packed = np.empty(len(at), _ENTRY)
    packed["other"], packed["weight"] = at & _OTHER, weight
    data, wide = packed.tobytes(), _ENTRY.itemsize
    starts = np.searchsorted(at >> _SHIFT, changed) * wide
    ends = np.searchsorted(at >> _SHIFT, changed, side="right") * wide
    heads = list(zip(changed.tolist(), now.tolist(), starts.tolist(), ends.tolist(), strict=True))
    return (
        [(number, time_ms, data[start:end]) for number, time_ms, start, end in heads if start < end],
        [number for number, _, start, end in heads if start == end],
    )
