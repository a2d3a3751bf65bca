"""Who gets which arm: a hash decides, so nothing has to be remembered and nobody ever changes sides.

Two hashes with two salts. The layer's says in which experiment a unit is; the experiment's own says in which arm. So
the people of one experiment's control are spread evenly over all arms of the next (no carry-over), and an experiment
can grow without moving anybody between its arms.

Source:
    Kohavi, Tang and Xu, Trustworthy Online Controlled Experiments, Cambridge 2020, chapters 4 and 20; Tang, Agarwal,
    O'Brien and Meyer, Overlapping experiment infrastructure, KDD 2010: layers.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

from edge.experiments.design import BUCKETS, Arm
from edge.experiments.experiment import Experiment
from protocol.errors import BadInputError

_BITS: Final = 53
Span = tuple[int, int]


def point(salt: str, unit: str) -> float:
    """A unit's place in [0, 1): the same for the same salt and unit, and as good as random for any other."""
    digest = sha256(f"{salt}\0{unit}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - _BITS)) / (1 << _BITS)


def arm_of(experiment: Experiment, unit: str) -> Arm | None:
    """The arm of a unit; None: it is in none of this experiment."""
    bucket = int(point(experiment.layer_salt, unit) * BUCKETS)
    if not any(low <= bucket < high for low, high in experiment.spans):
        return None
    left = point(experiment.salt, unit) * experiment.design.buckets
    for arm in experiment.design.arms[:-1]:
        left -= arm.buckets
        if left < 0:
            return arm
    return experiment.design.arms[-1]


def claim(buckets: int, *, own: Sequence[Span], others: Iterable[Span], layer: str) -> tuple[Span, ...]:
    """So many buckets of a layer: those that it has already, and the lowest free ones.

    Raises:
        BadInputError: other running experiments have taken too many.
    """
    taken = [False] * BUCKETS
    for low, high in [*own, *others]:
        taken[low:high] = [True] * (high - low)
    missing = buckets - sum(high - low for low, high in own)
    free = [bucket for bucket in range(BUCKETS) if not taken[bucket]]
    if missing > len(free):
        raise BadInputError(
            f"layer {layer} has {len(free) / BUCKETS:g} of its units left, the experiment needs {missing / BUCKETS:g}",
            advice="stop another experiment, ask for less, or use another layer",
        )
    return _joined([*own, *((bucket, bucket + 1) for bucket in free[:missing])])


def _joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    joined: list[Span] = []
    for low, high in sorted(spans):
        if joined and joined[-1][1] == low:
            joined[-1] = joined[-1][0], high
        else:
            joined.append((low, high))
    return tuple(joined)
