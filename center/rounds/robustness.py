"""What a center can do about sites that poison, though it sees sums only. Pure.

Three things help, none of them alone: outlying groups are trimmed away coordinate by coordinate, an average that no
honest cohort can produce is discarded, and so is a step after which the sites validate worse than before.
"""

import math
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from protocol.cohort import FEWEST_GROUPS
from protocol.errors import PeerMisbehavedError
from protocol.fixed_point import Layout

_CHUNK = 1 << 16
_NORM_DEVIATIONS = 1000.0
_WEIGHT_DEVIATIONS = 10.0
_ROOM = 1 + 2.0**-20  # clipping in float32 rounds, and so does computing a norm


class ImplausibleAverageError(PeerMisbehavedError):
    """No cohort of honest edges produces such an average; a round that ends in one is discarded."""


class Verdict(StrEnum):
    """What becomes of a step."""

    KEEP = "keep"
    DISCARD = "discard"


def trimmed_mean(groups: Sequence[NDArray[np.float64]], *, trim: int) -> NDArray[np.float64]:
    """Mean of each coordinate over all groups but the highest few and the lowest few.

    As long as at most `trim` groups hold a poisoner, every coordinate lies between values of honest groups.

    Args:
        groups: float64[d] each, the average of one group.
        trim: groups left out at each end; 0 is the plain mean.

    Returns:
        float64[d].

    Raises:
        ValueError: fewer than three groups, none left after trimming, other lengths, or a value that is not finite.

    Source:
        Yin, Chen, Kannan, Bartlett, Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML
        2018, definition 2. https://arxiv.org/abs/1803.01498
    """
    count = len(groups)
    if count < FEWEST_GROUPS:
        raise ValueError(f"{count} groups cannot outvote each other, it takes {FEWEST_GROUPS}")
    if not 0 <= trim < count / 2:
        raise ValueError(f"trimming {trim} of {count} groups at each end leaves none")
    if len({group.shape for group in groups}) != 1:
        raise ValueError("the groups' averages have different lengths")
    mean = np.empty(groups[0].shape)
    stack = np.empty((count, min(_CHUNK, len(mean))))
    for start in range(0, len(mean), _CHUNK):
        part = stack[:, : len(mean) - start]
        for row, group in zip(part, groups, strict=True):
            row[:] = group[start : start + _CHUNK]
        if not np.isfinite(part).all():
            raise ValueError("a group's average is not finite")
        part.sort(axis=0)
        np.mean(part[trim : count - trim], axis=0, out=mean[start : start + _CHUNK])
    return mean


def check_average(average: NDArray[np.float64], *, clip: float, slack: float = 0.0) -> None:
    """Refuse an average that is longer than any of its parts may be.

    Every honest update has a norm of at most `clip`, hence every weighted average of them; what exceeds it comes from
    an edge that broke its bound, or from a sum that wrapped around.

    Args:
        average: float64[d].
        slack: what rounding and noise may add, from `rounding_and_noise`.

    Raises:
        ImplausibleAverageError: longer than that, or not finite.
    """
    norm = float(np.linalg.norm(average))
    if not norm <= (clip + slack) * _ROOM:  # also false for NaN
        raise ImplausibleAverageError(
            f"the average has a norm of {norm:.6g}, honest edges produce at most {clip + slack:.6g}",
            advice="the round is discarded; if it happens again, an edge is broken or hostile",
        )


def rounding_and_noise(
    layout: Layout, *, edges: int, weight: float, clip: float, noise: float = 0.0, weight_unit: float = 1.0
) -> float:
    """How far rounding and noise can lengthen the average update.

    Each of n edges moves each of the d coordinates by less than one step, and its weight likewise; noise moves the
    whole sum. If that makes the update longer by at most e and the weight smaller by at most f, so that the honest sum
    had a norm of at most ``clip * (W + f)``, the average has one of at most ``(clip * (W + f) + e) / W``.

    The squared norm of the noise has the mean ``d * v``, and a square the variance ``2 * v**2 + v``. By Chebyshev it
    stays within 1,000 standard deviations but for one round in a million; the weight's noise keeps within 10 of its
    own.

    Args:
        layout: the round's; its segments ``update`` and ``weight`` count.
        weight: W, the decoded sum that the update is divided by, positive.
        noise: v, from `protocol.privacy.variance_of_sum`: steps are larger with it.
        weight_unit: what a weight of 1 is in the vector, `Privacy.unit` in a private round.

    Returns:
        What the norm may exceed `clip` by.
    """
    segments = {segment.name: segment for segment in layout}
    step, weight_step = (2.0 ** -segments[name].exponent(edges, noise=noise) for name in ("update", "weight"))
    length = segments["update"].length
    squared = length * noise + _NORM_DEVIATIONS * math.sqrt(length * (2 * noise * noise + noise))
    longer = (edges * math.sqrt(length) + math.sqrt(squared)) * step
    smaller = (edges + _WEIGHT_DEVIATIONS * math.sqrt(noise)) * weight_step / weight_unit
    return (longer + clip * smaller) / weight


def judge(before: float, after: float, *, max_drop: float) -> Verdict:
    """Is the model after a step still good enough to go on from?

    Args:
        before: NDCG of the weights before the step, as the sites measured it on their held-out baskets.
        after: of the weights after it.
        max_drop: share of `before` that may be lost, from 0 to 1.
    """
    good = after >= (1 - max_drop) * before  # false for NaN: what cannot be measured is not kept
    return Verdict.KEEP if good else Verdict.DISCARD
