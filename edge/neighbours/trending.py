"""What is wanted now more than usual.

An item is expected to have that share of what is wanted lately which it has in the long run; so neither a busy evening
nor a long-standing favourite is a trend. The surprise is measured in standard deviations of a count (Pearson's
residual of a Poisson count), which a single look at a forgotten item does not reach.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

SURPRISE: Final = 2.0
"""Standard deviations from which on something is a trend."""
_ONE = 1.0  # purchase's worth of doubt


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trends:
    """Of every item by its key.

    Attributes:
        score: float32[size]; above 0: it is rising, and how much; up to 0: it is not, and what is wanted most now
            stands highest; -inf: nobody wants it.
        rise: float32[size], times as much as usual.
    """

    score: NDArray[np.float32]
    rise: NDArray[np.float32]


def trends(lately: NDArray[np.float64], usually: NDArray[np.float64]) -> Trends:
    """What is rising, then what is wanted most.

    Args:
        lately: float64[size], how much each item was wanted, with a short memory.
        usually: float64[size], the same with a long one.
    """
    expected = usually * (lately.sum() / max(usually.sum(), 1e-12))
    surprise = (lately - expected) / np.sqrt(expected + _ONE)
    wanted = lately > 0
    share = lately / max(float(lately.max(initial=0)), 1e-12)
    score = np.where(surprise >= SURPRISE, surprise, share - 1)
    rise = lately / np.maximum(expected, 1e-12)
    return Trends(
        score=np.where(wanted, score, -np.inf).astype(np.float32), rise=np.where(wanted, rise, 0).astype(np.float32)
    )
