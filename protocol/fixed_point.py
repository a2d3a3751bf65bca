"""Float updates <-> integers modulo 2**bits (SPEC 4).

A vector is cut into segments. Each segment has a bound that every honest value keeps, a width, and a scale that follows
from both, the number of edges and the noise by formula, so that no sum of a whole cohort can wrap around.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from protocol.errors import MalformedMessageError
from protocol.masking import CHUNK_WORDS, Keystream

WORD_BITS = 32
_FEWEST_BITS = 8
_FURTHEST_BOUND = 2.0**60  # beyond it, or below its inverse, float32 could not hold a scaled value
_TAIL_NATS = 45.054566736396445  # 65 ln 2: two tails of e**-this are 2**-64. Written out, so that both sides agree


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A run of words that share a bound.

    Attributes:
        name: what the values are, such as ``update`` or ``examples``.
        length: how many words.
        bound: the largest absolute value that one edge may put in.
        bits: how many bits of each word travel, 8 to 32.
    """

    name: str
    length: int
    bound: float
    bits: int = WORD_BITS

    def __post_init__(self) -> None:
        if self.length < 1 or not 1 / _FURTHEST_BOUND <= self.bound <= _FURTHEST_BOUND:  # also refuses NaN
            raise MalformedMessageError(f"segment {self.name!r}: no length {self.length} or bound {self.bound}")
        if not _FEWEST_BITS <= self.bits <= WORD_BITS:
            raise MalformedMessageError(f"segment {self.name!r}: words of {self.bits} bits")

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "length": self.length, "bound": float(self.bound), "bits": self.bits}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        match value:
            case {"name": str(name), "length": int(length), "bound": float(bound), "bits": int(bits), **rest} if (
                not rest and not isinstance(length, bool)
            ):
                return cls(name=name, length=length, bound=bound, bits=bits)
        raise MalformedMessageError("not a segment of a vector")

    @property
    def limit(self) -> float:
        """The bound, or the float32 next to it if that is larger: what clipping in float32 leaves."""
        return max(self.bound, float(np.float32(self.bound)))

    def exponent(self, edges: int, *, noise: float = 0.0) -> int:
        """The largest k with ``edges * (limit * 2**k + 1) + tail <= 2**(bits - 1) - 1`` (SPEC 4.2).

        So no sum of all edges wraps; with noise, a word does with a probability below 2**-64. The arithmetic is of
        whole numbers: k is not announced, each side computes it.

        Args:
            edges: size n of the cohort.
            noise: variance of the Skellam noise of all n edges together, in units of the integers.

        Raises:
            MalformedMessageError: so many edges, such a bound and so much noise leave no room at all.
        """
        room = 2 ** (self.bits - 1) - 1 - edges - _tail(noise)
        if room <= 0:
            raise MalformedMessageError(
                f"segment {self.name!r}: {self.bits} bits leave no room for {edges} edges and noise of variance {noise}"
            )
        numerator, denominator = self.limit.as_integer_ratio()
        return _floor_log2(room * denominator, numerator * edges)


def _tail(variance: float) -> int:
    """What Skellam noise of this variance exceeds with a probability of at most 2**-64.

    Bernstein's bound: ``P(|X| >= x) <= 2 exp(-x**2 / (2 (v + x/3)))``, solved for x. It holds because
    ``log E exp(sX) = v (cosh s - 1) <= v (exp(s) - 1 - s) <= v s**2 / (2 (1 - s/3))`` for 0 < s < 3; put
    ``s = x / (v + x/3)`` into Chernoff's ``exp(log E exp(sX) - s x)``; X and -X have one law.
    """
    if variance == 0:
        return 0
    return math.ceil(_TAIL_NATS / 3 + math.sqrt(_TAIL_NATS**2 / 9 + 2 * _TAIL_NATS * variance))


def _floor_log2(numerator: int, denominator: int) -> int:
    """The largest k with ``denominator * 2**k <= numerator``, both positive."""
    k = numerator.bit_length() - denominator.bit_length()
    fits = denominator << k <= numerator if k >= 0 else denominator <= numerator << -k
    return k if fits else k - 1


Layout = tuple[Segment, ...]


def words_of(layout: Sequence[Segment]) -> int:
    """How many words a vector of this layout has."""
    return sum(segment.length for segment in layout)


def encode(
    values: Mapping[str, NDArray[np.floating[Any]] | float],
    *,
    layout: Layout,
    edges: int,
    seed: bytes | None,
    variance: float = 0.0,
    noise: NDArray[np.int64] | None = None,
) -> NDArray[np.uint32]:
    """Round to whole multiples of each segment's step and write modulo 2**32.

    Args:
        values: float[length] for each segment of the layout; a number for a segment of length 1.
        layout: the announced segments.
        edges: size n of the cohort.
        seed: 32 bytes, used for this one call: round up or down at random, so that the mean is the value. None: round
            to the nearest.
        variance: of the noise of all n edges together; it takes headroom.
        noise: int64[d], added to the integers.

    Returns:
        uint32[d]; of a narrower segment only the low bits count.

    Raises:
        ValueError: a value is missing, not finite, of another length, or beyond its bound: the caller clips, not we.
    """
    if set(values) != {segment.name for segment in layout}:
        raise ValueError(f"values for {sorted(values)}, but the layout asks for {[s.name for s in layout]}")
    words = np.empty(words_of(layout), dtype=np.uint32)
    if noise is not None and noise.shape != words.shape:
        raise ValueError(f"noise has shape {noise.shape}, not {words.shape}")
    rounding = Rounding(seed)
    for segment, place in _places(layout):
        value = _array(values[segment.name])
        if value.shape != (segment.length,):
            raise ValueError(f"{segment.name} has shape {value.shape}, not ({segment.length},)")
        scale = 2.0 ** segment.exponent(edges, noise=variance)
        for part, out in _chunks(value, words[place]):
            _check_bound(part, segment)
            rounding.round(part, scale, out=out.view(np.int32))
    if noise is not None:
        for part, out in _chunks(noise, words):
            np.add(out, part.astype(np.uint32), out=out)
    return words


def _places(layout: Layout) -> Iterator[tuple[Segment, slice]]:
    start = 0
    for segment in layout:
        yield segment, slice(start, start + segment.length)
        start += segment.length


def _array(value: NDArray[np.floating[Any]] | float) -> NDArray[np.floating[Any]]:
    array = np.atleast_1d(np.asarray(value))
    return array if array.dtype == np.float32 else array.astype(np.float64)


def _chunks(values: NDArray[Any], words: NDArray[np.uint32]) -> Iterator[tuple[NDArray[Any], NDArray[np.uint32]]]:
    for start in range(0, len(words), CHUNK_WORDS):
        yield values[start : start + CHUNK_WORDS], words[start : start + CHUNK_WORDS]


def _check_bound(part: NDArray[np.floating[Any]], segment: Segment) -> None:
    if not -segment.limit <= float(part.min()) <= float(part.max()) <= segment.limit:  # also false for NaN
        raise ValueError(f"{segment.name} has a value that is not finite or beyond {segment.bound}")


# For each kind of float: the integer of the same size, how many of its bits are not the fraction, and those of 1.
_BITS_OF: dict[np.dtype[Any], tuple[np.dtype[Any], Any, Any]] = {
    np.dtype(np.float32): (np.dtype(np.uint32), np.uint32(9), np.float32(1).view(np.uint32)),
    np.dtype(np.float64): (np.dtype(np.uint64), np.uint64(12), np.float64(1).view(np.uint64)),
}


class Rounding:
    """How scaled values become integers: y to ``floor(y)`` or one more, the latter with probability ``y - floor(y)``.

    So the mean of the integer is y, and an integer stays as it is. Works in the precision of the values, float32 or
    float64: scaling by a power of two is exact, and so are all other steps, except that the fraction is compared at a
    resolution of 2**-23 or 2**-52.
    """

    def __init__(self, seed: bytes | None) -> None:
        """Start with 32 bytes that are used for nothing else, or with None to round to the nearest, ties to even."""
        self._stream = None if seed is None else Keystream(seed)
        self._buffers = {np.dtype(kind): np.empty((3, CHUNK_WORDS), kind) for kind in (np.float32, np.float64)}

    def round(self, values: NDArray[np.floating[Any]], scale: float, *, out: NDArray[np.int32]) -> None:
        """Scale and round at most `CHUNK_WORDS` values.

        Args:
            values: float32[m] or float64[m], with ``abs(values) * scale < 2**31``.
            scale: a power of two.
            out: int32[m].
        """
        scaled, floor, uniform = self._buffers[values.dtype][:, : len(values)]
        np.multiply(values, scale, out=scaled)
        if self._stream is None:
            np.rint(scaled, out=floor)
        else:
            self._draw(uniform)
            np.floor(scaled, out=floor)
            np.subtract(scaled, floor, out=scaled)
            np.add(uniform, scaled, out=uniform)
            np.floor(uniform, out=uniform)  # 1, or 2 with the probability of the fraction
            np.subtract(uniform, 1, out=uniform)
            np.add(floor, uniform, out=floor)  # exact: adds 0 where the floats lie further apart than 1
        np.copyto(out, floor, casting="unsafe")

    def _draw(self, uniform: NDArray[np.floating[Any]]) -> None:
        """Fill with floats of 1 <= u < 2: random bits behind the sign and the exponent of 1."""
        assert self._stream is not None
        self._stream.read_into(uniform.view(np.uint8).data)
        whole, sign_and_exponent, one = _BITS_OF[uniform.dtype]
        bits = uniform.view(whole)
        np.right_shift(bits, sign_and_exponent, out=bits)
        np.bitwise_or(bits, one, out=bits)


def decode(
    words: NDArray[np.uint32], *, layout: Layout, edges: int, variance: float = 0.0
) -> dict[str, NDArray[np.float64]]:
    """The sums that an unmasked vector stands for, one array a segment.

    Args:
        words: uint32[d]; of a narrower segment the high bits may be anything.
        layout: the announced segments.
        edges: size n of the cohort.
        variance: the same as for `encode`.

    Raises:
        MalformedMessageError: the vector has another length than the layout.
    """
    if len(words) != words_of(layout):
        raise MalformedMessageError(f"{len(words)} words, but the layout has {words_of(layout)}")
    sums: dict[str, NDArray[np.float64]] = {}
    for segment, place in _places(layout):
        unused = WORD_BITS - segment.bits
        signed = (words[place] << np.uint32(unused)).view(np.int32) >> np.int32(unused)
        sums[segment.name] = signed.astype(np.float64)
        sums[segment.name] *= 2.0 ** -segment.exponent(edges, noise=variance)
    return sums


def resolution(segment: Segment, *, edges: int, variance: float = 0.0) -> float:
    """The step: one edge's encoded value is off by less than this, and rounded to the nearest by at most half of it."""
    return 2.0 ** -segment.exponent(edges, noise=variance)
