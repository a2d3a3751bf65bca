"""Tails of three distributions, without a statistics library in the serving process.

Source:
    Abramowitz and Stegun, Handbook of Mathematical Functions, 6.5.29, 6.5.31 and 26.5.8: the series and the continued
    fractions of the incomplete gamma and beta functions, the fractions evaluated by Lentz's method.
"""

from collections.abc import Iterator
from itertools import count
from math import erfc, exp, lgamma, log, log1p, sqrt
from typing import Final

Z_95: Final = 1.959963984540054
"""97.5 % of a normal distribution lie below."""
_TINY: Final = 1e-300
_PRECISION: Final = 1e-15
_MOST_TERMS: Final = 10_000
_HALVINGS: Final = 80


def normal_two_sided(z: float) -> float:
    """How likely a standard normal variable lies as far from 0."""
    return erfc(abs(z) / sqrt(2))


def student_two_sided(t: float, freedom: float) -> float:
    """How likely a variable of Student's distribution lies as far from 0.

    Args:
        freedom: degrees of freedom, above 0, not necessarily whole.
    """
    return _beta_share(freedom / (freedom + t * t), t * t / (freedom + t * t), freedom / 2, 0.5)


def student_95(freedom: float) -> float:
    """97.5 % of Student's distribution lie below."""
    low, high = 0.0, 2.0
    while student_two_sided(high, freedom) > 0.05:  # noqa: PLR2004 - 2.5 % on each side
        high *= 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if student_two_sided(middle, freedom) > 0.05 else (low, middle)  # noqa: PLR2004
    return (low + high) / 2


def chi_square_above(x: float, freedom: int) -> float:
    """How likely a chi-square variable is at least x."""
    a, half = freedom / 2, x / 2
    if half <= 0:
        return 1.0
    scale = exp(a * log(half) - half - lgamma(a))
    if half < a + 1:
        term = total = 1 / a
        for n in range(1, _MOST_TERMS):
            term *= half / (a + n)
            total += term
            if term < total * _PRECISION:
                break
        return max(0.0, 1 - scale * total)
    return scale / _lentz(half + 1 - a, ((n * (a - n), half + 2 * n + 1 - a) for n in count(1)))


def _beta_share(x: float, y: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), with y = 1 - x, which may be too small to show in x."""
    if x <= 0 or y <= 0:
        return float(y <= 0)
    if x > (a + 1) / (a + b + 2):  # there the fraction of the other side is the quick one
        return 1 - _beta_share(y, x, b, a)
    scale = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * _log(x, y) + b * _log(y, x))
    return scale / (a * _lentz(1.0, _beta_terms(x, a, b)))


def _log(x: float, y: float) -> float:
    """The logarithm of x = 1 - y, exact at both ends."""
    return log(x) if x < y else log1p(-y)


def _beta_terms(x: float, a: float, b: float) -> Iterator[tuple[float, float]]:
    for m in count():
        yield -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)), 1.0
        n = m + 1
        yield n * (b - n) * x / ((a + 2 * n - 1) * (a + 2 * n)), 1.0


def _lentz(first: float, terms: Iterator[tuple[float, float]]) -> float:
    """The continued fraction first + p1/(q1 + p2/(q2 + ...))."""
    value, c, d = first, first, 0.0
    for p, q in terms:
        d = 1 / (q + p * d or _TINY)
        c = q + p / c or _TINY
        value *= c * d
        if abs(c * d - 1) < _PRECISION:
            break
    return value
