"""How much more than elsewhere items are wanted in one context: in a region, at an hour.

The share of an item in a context is its observed share, drawn towards its share in the whole shop, so that ten sales in
a village do not outvote the shop. How far is learnt from the context itself (empirical Bayes): shares that vary no more
than counts do by chance are drawn all the way.

Source: the context's counts are taken to be Dirichlet-multinomial around the shop's shares; the strength m of that
prior follows from the overdispersion (n + m) / (1 + m) of Pearson's statistic (Mosimann, Biometrika 1962).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.neighbours.visits import EVERYTHING

_FEWEST = 2  # kinds of items, below which nothing can vary
_LEAST_SHARE = 1e-9
_LEAST_LIFT = 1e-3  # what was not wanted here so far is not ruled out
_STRONGEST: Final = 1e12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lift:
    """How much more often than elsewhere items are wanted in a context.

    Attributes:
        item: int64[n], store keys.
        times: float64[n], their share here over their share in the whole shop.
        rest: the same of all other items together.
    """

    item: NDArray[np.int64]
    times: NDArray[np.float64]
    rest: float


def lift(items: NDArray[np.int64], counts: NDArray[np.float64], shares: NDArray[np.float64]) -> Lift:
    """What one context says.

    Args:
        items: int64[n], store keys; `EVERYTHING` among them.
        counts: float64[n], how much each was wanted in this context, as of now.
        shares: float64[size], of each item in the whole shop, by key.
    """
    named = items != EVERYTHING
    total = float(counts[~named].sum())
    item, count = items[named], counts[named]
    share = np.maximum(shares[item], _LEAST_SHARE)
    left, left_share = max(total - count.sum(), 0.0), max(1.0 - share.sum(), _LEAST_SHARE)
    every, all_shares = np.r_[count, left], np.r_[share, left_share]
    strength = strength_of(every, all_shares, total)
    times = (every + strength * all_shares) / ((total + strength) * all_shares)
    times = np.maximum(times, _LEAST_LIFT)
    return Lift(item=item, times=times[:-1], rest=float(times[-1]))


def strength_of(counts: NDArray[np.float64], shares: NDArray[np.float64], total: float) -> float:
    """How many observations the whole shop's shares are worth beside those of the context; the method of moments.

    Args:
        counts: float64[n] that add up to the total.
        shares: float64[n] that add up to 1.
    """
    if len(counts) < _FEWEST or total <= 0:
        return _STRONGEST
    expected = total * shares
    dispersion = float(((counts - expected) ** 2 / expected).sum()) / (len(counts) - 1)
    if dispersion <= 1:
        return _STRONGEST
    return min(max((total - dispersion) / (dispersion - 1), 1.0), _STRONGEST)
