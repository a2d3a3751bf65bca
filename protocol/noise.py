"""Skellam noise: the difference of two Poisson numbers, drawn from a seed (SPEC 4).

Sums of independent Skellam numbers are Skellam numbers again, so the noise of many edges adds up to one known law. The
methods are exact but for the 53 bits of a float64.
"""

import math
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from protocol.masking import Keystream

LARGEST_VARIANCE = 1e14
_CHUNK = 1 << 14  # a dozen float64 arrays of this length stay in the second-level cache
_SMALL_MEAN = 4096  # below: a table; from here on: rejection, where few terms of each series are exact to the last bit
_LOG_TERMS = tuple(1 / n for n in range(17, 1, -2))  # of the series of artanh, highest first


def skellam(seed: bytes, *, variance: float, size: int) -> NDArray[np.int64]:
    """Independent differences of two Poisson numbers of half the variance each: of mean 0 and this variance.

    Args:
        seed: 32 bytes, used for nothing else.
        variance: 0 to `LARGEST_VARIANCE`, in units of the integers.
        size: how many.

    Returns:
        int64[size].

    Raises:
        ValueError: a variance out of range.
    """
    if not 0 <= variance <= LARGEST_VARIANCE:  # also refuses NaN
        raise ValueError(f"noise of variance {variance}, not 0 to {LARGEST_VARIANCE}")
    noise = np.zeros(size, dtype=np.int64)
    if variance == 0:
        return noise
    stream = Keystream(seed)
    mean = variance / 2
    poisson: _Poisson = _Table.of(mean) if mean < _SMALL_MEAN else _Rejection.of(mean)
    for start in range(0, size, _CHUNK):
        part = noise[start : start + _CHUNK]
        part += poisson.draw(stream, len(part))
        part -= poisson.draw(stream, len(part))
    return noise


class _Poisson(Protocol):
    """A Poisson law, shifted by a whole number that cancels in the difference of two draws."""

    def draw(self, stream: Keystream, count: int) -> NDArray[np.int64]: ...


def _uniforms(stream: Keystream, count: int) -> NDArray[np.float64]:
    """Odd multiples of 2**-53: between 0 and 1 and never one of them."""
    raw = bytearray(8 * count)
    stream.read_into(memoryview(raw))
    uniforms = (np.frombuffer(raw, dtype="<u8") >> np.uint64(12)).astype(np.float64)
    uniforms += 0.5
    uniforms *= 2.0**-52
    return uniforms


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Inversion: the number of table entries that a uniform number has passed.

    Attributes:
        cumulative: the law's distribution function from the least to the largest number that can come up at all.
    """

    cumulative: NDArray[np.float64]

    @classmethod
    def of(cls, mean: float) -> Self:
        """Probabilities relative to the mode, as far as they matter: by Bernstein's bound, 2**-70 is outside."""
        mode = math.floor(mean)
        reach = math.ceil(40 + 10 * math.sqrt(mean))
        above = np.cumprod(mean / np.arange(mode + 1, mode + reach + 1))
        below = np.cumprod(np.arange(mode, max(mode - reach, 0), -1) / mean)
        cumulative = np.cumsum(np.concatenate([below[::-1], [1.0], above]))
        return cls(cumulative / cumulative[-1])

    def draw(self, stream: Keystream, count: int) -> NDArray[np.int64]:
        return np.searchsorted(self.cumulative, _uniforms(stream, count), side="right").astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Rejection:
    """Transformed rejection with squeeze (PTRS), for large means.

    Numbers are counted from the whole part of the mean, so that large means cost no precision.

    Source:
        W. Hoermann, The transformed rejection method for generating Poisson random variables, Insurance: Mathematics
        and Economics 12, 1993, algorithm PTRS. https://doi.org/10.1016/0167-6687(93)90997-4
        The log of the probability: C. Loader, Fast and accurate computation of binomial probabilities, 2000.
    """

    mean: float
    a: float
    b: float
    log_inverse_alpha: float
    surely: float

    @classmethod
    def of(cls, mean: float) -> Self:
        b = 0.931 + 2.53 * math.sqrt(mean)
        return cls(
            mean=mean,
            a=-0.059 + 0.02483 * b,
            b=b,
            log_inverse_alpha=math.log(1.1239 + 1.1328 / (b - 3.4)),
            surely=0.9277 - 3.6224 / (b - 2),
        )

    def draw(self, stream: Keystream, count: int) -> NDArray[np.int64]:
        drawn = np.empty(count, dtype=np.int64)
        have = 0
        while have < count:
            accepted = self._accepted(stream, proposals=(count - have) * 5 // 4 + 16)[: count - have]
            drawn[have : have + len(accepted)] = accepted
            have += len(accepted)
        return drawn

    def _accepted(self, stream: Keystream, *, proposals: int) -> NDArray[np.float64]:
        u = _uniforms(stream, proposals) - 0.5
        v = _uniforms(stream, proposals)
        margin = 0.5 - np.abs(u)
        offset = np.floor((2 * self.a / margin + self.b) * u + (self.mean % 1 + 0.43))
        accepted = (margin >= 0.07) & (v <= self.surely)  # noqa: PLR2004 - the paper's squeeze
        # So far out the probability is below 2**-100, and the series would need more terms.
        doubtful = np.flatnonzero(~accepted & (np.abs(offset) <= self.mean / 5))
        scale = self.a / margin[doubtful] ** 2 + self.b
        bar = np.log(v[doubtful] / scale) + self.log_inverse_alpha
        accepted[doubtful] = bar <= self._log_probability(offset[doubtful])
        return offset[accepted]

    def _log_probability(self, offset: NDArray[np.float64]) -> NDArray[np.float64]:
        """By the saddle point: no difference of large numbers is taken."""
        away = offset - self.mean % 1
        number = math.floor(self.mean) + offset
        ratio = away / (number + self.mean)
        square = ratio * ratio
        series = np.zeros_like(ratio)
        for term in _LOG_TERMS:
            series = (series + term) * square
        deviance = away * ratio + 2 * number * ratio * series
        stirling = (1 - 1 / (30 * number * number)) / (12 * number)
        log_probability: NDArray[np.float64] = -deviance - stirling - 0.5 * np.log(2 * math.pi * number)
        return log_probability
