"""How good a ranking is on the held-out baskets: the whole catalogue is ranked, nothing is sampled."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from protocol import ranking_metrics
from simulation.datasets import Baskets

K = 10
_CHUNK = 64
_RESAMPLES = 1000


class Scorer(Protocol):
    """Whatever can rank the catalogue for the users of one site's test."""

    def scores(self, positions: NDArray[np.int64], /) -> NDArray[np.float32]:
        """float32[users, n + 1] by catalogue row, for users by their position in the test."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quality:
    """Figures of each user, and their means.

    Attributes:
        ndcg: float64[users], NDCG@10.
        recall: float64[users], Recall@10: hits over min(10, size of the basket).
    """

    ndcg: NDArray[np.float64]
    recall: NDArray[np.float64]

    @classmethod
    def over(cls, parts: Sequence["Quality"]) -> "Quality":
        """All users of several sites."""
        return cls(
            ndcg=np.concatenate([part.ndcg for part in parts]), recall=np.concatenate([part.recall for part in parts])
        )

    @classmethod
    def of_ranks(cls, ranks: NDArray[np.float64], offsets: NDArray[np.int64]) -> Self:
        """Figures of targets whose ranks are known."""
        return cls(ndcg=ranking_metrics.ndcg(ranks, offsets, k=K), recall=ranking_metrics.recall(ranks, offsets, k=K))

    def to_json(self, *, seed: int = 0) -> dict[str, Any]:
        """Means over users, and a 95 % confidence interval of NDCG@10 from a bootstrap over users."""
        return {
            "ndcg@10": float(self.ndcg.mean()),
            "recall@10": float(self.recall.mean()),
            "ndcg@10_ci95": list(confidence_interval(self.ndcg, seed=seed)),
            "users": len(self.ndcg),
        }


def evaluate(scorer: Scorer, test: Baskets) -> Quality:
    """Rank the whole catalogue for every user of a site's test."""
    parts = []
    for start in range(0, len(test), _CHUNK):
        positions = np.arange(start, min(start + _CHUNK, len(test)))
        offsets = test.offsets[start : start + len(positions) + 1]
        targets = test.rows[offsets[0] : offsets[-1]]
        ranks = ranking_metrics.target_ranks(scorer.scores(positions), targets, offsets - offsets[0])
        parts.append(Quality.of_ranks(ranks, offsets - offsets[0]))
    return Quality.over(parts)


def confidence_interval(values: NDArray[np.float64], *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean, by bootstrap over users."""
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
