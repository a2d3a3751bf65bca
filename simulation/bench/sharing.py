"""Sharing a seed and rebuilding it, against Flower's functions."""

import os
from typing import Any

from protocol.masking import SEED_BYTES
from protocol.secret_sharing import SHARE_BYTES, Recombination, split
from simulation.bench import flower
from simulation.bench.timing import in_turns

_TIMES = 50  # ours takes less than a millisecond


def against_flower(*, threshold: int, shares: int, repetitions: int) -> dict[str, Any]:
    """Split one seed and rebuild it from as many shares as are needed; in processor seconds.

    Ours works out Lagrange's weights each time here; a round does so once for all its seeds.
    """
    seed = os.urandom(SEED_BYTES)
    numbers = list(range(shares - threshold + 1, shares + 1))

    def ours() -> None:
        for _ in range(_TIMES):
            coefficients = os.urandom(SHARE_BYTES * (threshold - 1))
            dealt = split(seed, threshold=threshold, shares=shares, coefficients=coefficients)
            rebuilt = Recombination.at(numbers).combine([dealt[number - 1] for number in numbers])
            assert rebuilt == seed

    def flowers() -> None:
        dealt = flower.create_shares(seed, threshold, shares)
        assert flower.combine_shares(dealt[-threshold:]) == seed

    seconds = in_turns({"hanse": ours, "flower": flowers}, repetitions=repetitions)
    hanse = seconds["hanse"] / _TIMES
    return {
        "threshold": threshold,
        "shares": shares,
        "hanse_seconds": hanse,
        "flower_seconds": seconds["flower"],
        "ratio": seconds["flower"] / hanse,
    }
