"""A user's own habits: how often, how lately and how regularly each item was bought.

Time is measured from the user's newest event, not from the clock: a shop that was closed for a month, or a history of
ten years ago, means the same. All counts are baskets (distinct times), so buying three at once is not a habit.
"""

from dataclasses import dataclass
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
_FLOOR = 1e-3  # a share below one in a thousand is as good as none


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Habits:
    """What is known of one user's own items.

    Attributes:
        places: int64[n], sorted, each once.
        features: float64[n, len(HABITS)].
    """

    places: NDArray[np.int64]
    features: NDArray[np.float64]


def habits(past: Past) -> Habits:
    """The habits in a past whose items are places; oldest first."""
    places = np.unique(past.item)
    features = np.zeros((len(places), len(HABITS)))
    if past.purchased.any():
        item, columns = _purchases(past.item[past.purchased], past.time_ms[past.purchased])
        features[np.searchsorted(places, item), : columns.shape[1]] = columns
    looked = past.item[~past.purchased]
    if looked.size:
        weight = np.exp2(-np.arange(looked.size)[::-1] / 10.0)
        features[:, -1] = np.log1p(np.bincount(np.searchsorted(places, looked), weight, minlength=len(places)))
    return Habits(places=places, features=features)


def _purchases(item: NDArray[np.int64], time_ms: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Items bought, sorted, and all habits but the last column."""
    times, basket = np.unique(time_ms, return_inverse=True)
    items, which = np.unique(item, return_inverse=True)
    total, width = len(times), len(items)
    which, basket = np.divmod(np.unique(which * total + basket), total)  # an item counts once a basket
    # Sorted by item, then basket: an item's first and last basket are the ends of its run.
    starts = np.flatnonzero(np.r_[True, which[1:] != which[:-1]])
    first, last = basket[starts], basket[np.r_[starts[1:], len(basket)] - 1]
    count = np.bincount(which, minlength=width).astype(np.float64)
    baskets_ago = np.arange(total - 1, -1, -1, dtype=np.float64)
    days_ago = (times[-1] - times) / DAY_MS

    def recent(age: NDArray[np.float64], half_life: float) -> NDArray[np.float64]:
        weight = np.exp2(-age / half_life)
        share: NDArray[np.float64] = np.bincount(which, weight[basket], minlength=width) / weight.sum()
        return np.log(_FLOOR + share)

    several = count > 1
    usual_baskets = (last - first) / np.maximum(count - 1, 1)
    usual_days = (days_ago[first] - days_ago[last]) / np.maximum(count - 1, 1)
    share, idle = np.log(count / total), np.log1p(baskets_ago[last])
    columns = (
        np.ones(width),
        np.log1p(count),
        share,
        np.log(count / (total - first)),
        recent(baskets_ago, 3),
        recent(baskets_ago, 10),
        recent(days_ago, 14),
        recent(days_ago, 60),
        idle,
        np.log1p(days_ago[last]),
        last == total - 1,
        several * np.exp(-np.abs(np.log((baskets_ago[last] + 1) / (usual_baskets + 0.5)))),
        several * np.exp(-np.abs(np.log((days_ago[last] + 1) / (usual_days + 1)))),
        several,
        count > 2,  # noqa: PLR2004 - thrice
        share * idle,
        np.full(width, np.log1p(total)),
    )
    return items, np.stack(columns, axis=1).astype(np.float64)
