"""A user's own habits: how often, how lately and how regularly each item was bought.

Time is measured from the user's newest purchase, not from the clock: a shop that was closed for a month, or a history
of ten years ago, means the same. All counts are baskets (distinct times), so buying three at once is not a habit.

This runs once for every answer, on some hundred numbers: what counts is how few calls of numpy there are. So all that
is summed over an item's events is one table with a column for each basket and each look, summed by one call.
"""

from dataclasses import dataclass
from math import log1p
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.records.events import DAY_MS
from edge.records.store import Past

HABITS: Final = (
    "again",  # 1: bought before
    "baskets",  # log of the number of baskets with it
    "share",  # log of their share of all baskets
    "share_since_first",  # log of their share of the baskets since it was first bought
    "recent_3_baskets",  # log of the share, an older basket counting half after 3 more
    "recent_10_baskets",
    "recent_14_days",  # the same by days
    "recent_60_days",
    "idle_baskets",  # log of the baskets since it was last bought
    "idle_days",
    "in_last_basket",
    "due_by_baskets",  # 1 when as many baskets have passed as usually lie between two purchases; less before and after
    "due_by_days",
    "twice",  # 1: bought in at least 2 baskets
    "thrice",
    "share_idle",  # share times idle_baskets
    "experience",  # log of the number of all baskets
    "attention",  # viewed, clicked or put into the cart: log of how often, half after 10 more events
)
_ROW: Final = {name: row for row, name in enumerate(HABITS)}
_LOGS: Final = slice(_ROW["baskets"], _ROW["idle_days"] + 1)
_RECENT: Final = slice(_ROW["recent_3_baskets"], _ROW["recent_60_days"] + 1)
_IDLE: Final = slice(_ROW["idle_baskets"], _ROW["idle_days"] + 1)
_DUE: Final = slice(_ROW["due_by_baskets"], _ROW["due_by_days"] + 1)
_BY_PURCHASE: Final = slice(0, _ROW["attention"])

_ONE: Final = np.float32(1)
_FLOOR: Final = np.float32(1e-3)
"""A share below one in a thousand is as good as none."""
_FADE: Final = (-np.log(2) / np.array([[3.0], [10.0], [14.0], [60.0]])).astype(np.float32)
"""Half-lives of the four recent shares: two in baskets, two in days."""
_FADE_OF_LOOKS: Final = np.float32(-np.log(2) / 10)
_SLACK: Final = np.array([[0.5], [1.0]], np.float32)
_COUNT, _SHARES, _LOOKS, _SUMS = 0, slice(1, 5), 5, 6
"""Rows of the table of sums."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Habits:
    """What is known of one user's own items.

    Attributes:
        places: int64[n], sorted, each once.
        columns: float32[len(HABITS), n].
    """

    places: NDArray[np.int64]
    columns: NDArray[np.float32]

    @property
    def features(self) -> NDArray[np.float32]:
        """float32[n, len(HABITS)]."""
        return self.columns.T


NOTHING: Final = Habits(places=np.empty(0, np.int64), columns=np.empty((len(HABITS), 0), np.float32))


def habits(past: Past) -> Habits:
    """The habits in a past whose items are places and whose times do not fall."""
    item, purchased = past.item, past.purchased
    if not item.size:
        return NOTHING
    bought = past.time_ms[purchased]
    begins = _changes(bought)  # of baskets
    times = bought[begins]
    baskets, looks = len(times), len(item) - len(bought)
    column = np.empty(len(item), np.int64)
    column[purchased] = begins.cumsum()
    if looks:
        column[~purchased] = np.arange(baskets + 1, baskets + looks + 1)
    # Sorted by item, its baskets before its looks. Column 0 is nobody's, so that no table is empty.
    width = baskets + looks + 1
    key = item * width
    key += column
    key.sort()
    once = _changes(key)
    if not once.all():
        key = key[once]
    sorted_items = key // width
    starts = _changes(sorted_items).nonzero()[0]
    places = sorted_items[starts]
    key -= sorted_items * width
    ages = _ages(times)
    table = _table(ages, looks)
    sums = np.add.reduceat(table[:, key], starts, axis=1)
    columns = np.zeros((len(HABITS), len(places)), np.float32)
    if baskets:
        _describe(columns, sums, ages, table, starts, key)
        if looks:
            columns[_BY_PURCHASE] *= columns[0]  # nothing is known by purchases of what was only looked at
    if looks:
        np.add(sums[_LOOKS], _ONE, out=columns[-1])
        np.log(columns[-1], out=columns[-1])
    return Habits(places=places, columns=columns)


def _changes(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool[n], where a value differs from the one before it; true at the first."""
    changes = np.empty(len(values), np.bool_)
    changes[:1] = True
    np.not_equal(values[1:], values[:-1], out=changes[1:])
    return changes


def _ages(times: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32[2, baskets], how many baskets and days before the newest each was."""
    ages = np.empty((2, len(times)), np.float32)
    ages[0] = np.arange(len(times) - 1, -1, -1)
    if len(times):
        ages[1] = (times[-1] - times) * (1 / DAY_MS)
    return ages


def _table(ages: NDArray[np.float32], looks: int) -> NDArray[np.float32]:
    """float32[_SUMS, 1 + baskets + looks], what each basket and each look adds to the sums of its items."""
    baskets = ages.shape[1]
    table = np.zeros((_SUMS, 1 + baskets + looks), np.float32)
    bought = table[:, 1 : 1 + baskets]
    bought[_COUNT] = 1
    shares = bought[_SHARES]
    np.multiply(_FADE.reshape(2, 2, 1), ages[:, None], out=shares.reshape(2, 2, baskets))
    np.exp(shares, out=shares)
    if looks:
        table[_LOOKS, 1 + baskets :] = np.exp(np.arange(looks - 1, -1, -1, dtype=np.float32) * _FADE_OF_LOOKS)
    return table


def _describe(
    columns: NDArray[np.float32],
    sums: NDArray[np.float32],
    ages: NDArray[np.float32],
    table: NDArray[np.float32],
    starts: NDArray[np.int64],
    key: NDArray[np.int64],
) -> None:
    """Write all habits that come from purchases; those of an item that was only looked at mean nothing.

    Args:
        starts: int64[n], where each item's run begins in `key`.
        key: int64[m], columns of the table, by item and time.
    """
    counted, baskets = sums[_COUNT], ages.shape[1]
    count = np.maximum(counted, _ONE)
    newest = starts + count.astype(np.int64)
    newest -= 1
    first = ages.take(key[starts] - 1, axis=1, mode="clip")
    last = ages.take(key[newest] - 1, axis=1, mode="clip")
    np.minimum(counted, _ONE, out=columns[_ROW["again"]])
    np.add(counted, _ONE, out=columns[_ROW["baskets"]])
    np.divide(count, np.float32(baskets), out=columns[_ROW["share"]])
    np.divide(count, first[0] + _ONE, out=columns[_ROW["share_since_first"]])
    recent = columns[_RECENT]
    np.divide(sums[_SHARES], np.add.reduce(table[_SHARES], axis=1, keepdims=True), out=recent)
    recent += _FLOOR
    idle = columns[_IDLE]
    np.add(last, _ONE, out=idle)
    # How far from the usual distance between two purchases the time since the last one is, as a ratio below 1.
    first -= last
    count -= _ONE
    first /= np.maximum(count, _ONE, out=count)
    first += _SLACK
    due = columns[_DUE]
    np.divide(idle, first, out=due)
    np.minimum(due, _ONE / due, out=due)
    columns[_ROW["in_last_basket"]] = last[0] == 0
    columns[_ROW["twice"]] = counted > 1
    columns[_ROW["thrice"]] = counted > 2  # noqa: PLR2004
    due *= columns[_ROW["twice"]]
    logs = columns[_LOGS]
    np.log(logs, out=logs)
    np.multiply(columns[_ROW["share"]], columns[_ROW["idle_baskets"]], out=columns[_ROW["share_idle"]])
    columns[_ROW["experience"]] = log1p(baskets)
