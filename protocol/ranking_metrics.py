"""How good a ranking of the whole catalogue is: recall and NDCG over the items that really came next.

Full ranking only; sampled negatives change the order of models (Krichene and Rendle, KDD 2020). A user may have several
targets, the items of the next basket. Ties take their average rank, so that a constant score earns what chance would.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def target_ranks(
    scores: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]], offsets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Rank of each target among all items, from 1.

    Args:
        scores: float[users, n + 1] by catalogue row; row 0 is padding and takes no part.
        targets: int[total], rows from 1 to n; each user's are distinct.
        offsets: int64[users + 1], where in ``targets`` each user's begin.

    Returns:
        float64[total]; items of equal score share the mean of their ranks.
    """
    ranks = np.empty(len(targets), dtype=np.float64)
    for user, row in enumerate(scores[:, 1:]):
        for position in range(offsets[user], offsets[user + 1]):
            own = row[targets[position] - 1]
            better = np.count_nonzero(row > own)
            ranks[position] = better + (np.count_nonzero(row == own) + 1) / 2
    return ranks


def recall(ranks: NDArray[np.float64], offsets: NDArray[np.int64], *, k: int) -> NDArray[np.float64]:
    """Share of each user's targets among the first k, of the at most k that fit there.

    Returns:
        float64[users]; 0 for a user without targets.
    """
    sizes = np.diff(offsets)
    return _sum_by_user((ranks <= k).astype(np.float64), offsets) / np.maximum(np.minimum(sizes, k), 1)


def ndcg(ranks: NDArray[np.float64], offsets: NDArray[np.int64], *, k: int) -> NDArray[np.float64]:
    """Discounted gain of the targets among the first k, over that of the best possible order.

    Returns:
        float64[users]; 0 for a user without targets.
    """
    gain = np.where(ranks <= k, 1 / np.log2(1 + ranks), 0.0)
    ideal = np.concatenate([np.zeros(1), np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    best = ideal[np.minimum(np.diff(offsets), k)]
    return _sum_by_user(gain, offsets) / np.where(best > 0, best, 1.0)


def _sum_by_user(values: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    total = np.concatenate([np.zeros(1), np.cumsum(values)])
    return np.asarray(total[offsets[1:]] - total[offsets[:-1]], dtype=np.float64)
