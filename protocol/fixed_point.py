"""Float updates <-> integers modulo 2**32 (SPEC 4).

A vector is cut into segments. Each segment has a bound that every honest value keeps, and a scale that follows from the
bound and the number of edges by formula, so that no sum of a whole cohort can wrap around.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from protocol.errors import MalformedMessageError

WORD_BITS = 32
_LARGEST = 2 ** (WORD_BITS - 1) - 1
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A run of words that share a bound.

    Attributes:
        name: what the values are, such as ``update`` or ``examples``.
        length: how many words.
        bound: the largest absolute value that one edge may put in.
    """

    name: str
    length: int
    bound: float

    def __post_init__(self) -> None:
        if self.length < 1 or not (math.isfinite(self.bound) and self.bound > 0):
            raise MalformedMessageError(f"segment {self.name!r}: a length and a bound are positive")

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "length": self.length, "bound": float(self.bound)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        match value:
            case {"name": str(name), "length": int(length), "bound": float(bound), **rest} if not rest:
                return cls(name=name, length=length, bound=bound)
        raise MalformedMessageError("not a segment of a vector")

    def exponent(self, edges: int) -> int:
        """The largest k with ``edges * (bound * 2**k + 1) <= 2**31 - 1``: the sum of all edges cannot wrap (SPEC 4.2).

        Raises:
            MalformedMessageError: so many edges and such a bound leave no room at all.
        """
        room = _LARGEST / edges - 1
        if room <= 0 or self.bound > room * 2.0**60:
            raise MalformedMessageError(f"segment {self.name!r} leaves no headroom for {edges} edges")
        return math.floor(math.log2(room / self.bound))


Layout = tuple[Segment, ...]


def words_of(layout: Sequence[Segment]) -> int:
    """How many words a vector of this layout has."""
    return sum(segment.length for segment in layout)


def encode(values: Mapping[str, NDArray[np.float32] | float], *, layout: Layout, edges: int) -> NDArray[np.uint32]:
    """Round to the nearest multiple of each segment's scale and write modulo 2**32.

    Args:
        values: float[length] for each segment of the layout; a number for a segment of length 1.
        layout: the announced segments.
        edges: size n of the cohort.

    Returns:
        uint32[d].

    Raises:
        ValueError: a value is missing, not finite, of another length, or beyond its bound: the caller clips, not we.
    """
    if set(values) != {segment.name for segment in layout}:
        raise ValueError(f"values for {sorted(values)}, but the layout asks for {[s.name for s in layout]}")
    words = np.empty(words_of(layout), dtype=np.uint32)
    start = 0
    for segment in layout:
        value = np.atleast_1d(np.asarray(values[segment.name], dtype=np.float64 if segment.length == 1 else np.float32))
        if value.shape != (segment.length,):
            raise ValueError(f"{segment.name} has shape {value.shape}, not ({segment.length},)")
        if not np.all(np.abs(value) <= segment.bound):  # also false for NaN
            raise ValueError(f"{segment.name} has a value that is not finite or beyond {segment.bound}")
        _quantize(value, 2.0 ** segment.exponent(edges), out=words[start : start + segment.length])
        start += segment.length
    return words


def _quantize(value: NDArray[np.floating[Any]], scale: float, *, out: NDArray[np.uint32]) -> None:
    for start in range(0, len(value), _CHUNK):
        part = value[start : start + _CHUNK].astype(np.float64)
        part *= scale
        np.rint(part, out=part)
        out[start : start + _CHUNK] = part.astype(np.int64).astype(np.uint32)


def decode(words: NDArray[np.uint32], *, layout: Layout, edges: int) -> dict[str, NDArray[np.float64]]:
    """The sums that an unmasked vector stands for, one array a segment.

    Raises:
        MalformedMessageError: the vector has another length than the layout.
    """
    if len(words) != words_of(layout):
        raise MalformedMessageError(f"{len(words)} words, but the layout has {words_of(layout)}")
    sums: dict[str, NDArray[np.float64]] = {}
    start = 0
    for segment in layout:
        signed = words[start : start + segment.length].view(np.int32)
        sums[segment.name] = signed.astype(np.float64) * 2.0 ** -segment.exponent(edges)
        start += segment.length
    return sums


def resolution(segment: Segment, *, edges: int) -> float:
    """The largest error of one edge's encoded value: half a step."""
    return 0.5 * 2.0 ** -segment.exponent(edges)
