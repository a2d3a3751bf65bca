"""What the sums of two arms allow to be said: how far apart they are, how sure that is, whether they compare at all.

Everybody looks at a running experiment, and each look is another chance to be fooled: with fixed intervals far more
than 5 % of experiments without any effect are "significant" at some look. So the interval that is shown first
is one that holds at all times together; the fixed one stands beside it for those who look once, at the planned end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log, sqrt
from typing import Final

from edge.experiments.distributions import Z_95, chi_square_above, normal_two_sided, student_95, student_two_sided
from edge.experiments.sums import ArmSums

ALPHA: Final = 0.05
FEWEST_UNITS: Final = 100
"""Below so many units an arm the normal approximations are not believed, and nothing is said."""
FEWEST_HITS: Final = 10
"""The same for units whose value is not 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """From low to high, both in the metric's own unit."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One arm against the control.

    Attributes:
        difference: of the means, arm minus control.
        always: 95 % interval of the difference that holds at every look.
        always_p: p-value that holds at every look.
        fixed: 95 % interval for a single look, planned beforehand.
        fixed_p: p-value for a single look.
        lift: the difference as a share of the control's mean; None where that is 0.
        lift_always: 95 % interval of the lift that holds at every look.
    """

    difference: float
    always: Interval
    always_p: float
    fixed: Interval
    fixed_p: float
    lift: float | None
    lift_always: Interval | None


def compare(control: ArmSums, arm: ArmSums, *, step: float, share: bool, planned_units: int) -> Comparison | None:
    """Compare an arm with the control.

    Args:
        step: what one step of the sums is worth.
        share: every unit's value is 0 or 1.
        planned_units: of both arms together, where the interval that always holds is to be narrowest.

    Returns:
        None: there are too few units, or too few that did anything, to say something.
    """
    if min(control.units, arm.units) < FEWEST_UNITS or min(control.hits, arm.hits) < FEWEST_HITS:
        return None
    fixed, fixed_p = newcombe(control, arm) if share else welch(control, arm)
    difference = arm.mean - control.mean
    error = sqrt(_variance_of_mean(control) + _variance_of_mean(arm))
    if error == 0:
        return None
    units = control.units + arm.units
    reach = always_reach(units, planned_units=planned_units)
    lift, lift_error = relative(control, arm)
    worth = 1.0 if share else step
    return Comparison(
        difference=difference * worth,
        always=_around(difference * worth, reach * error * worth),
        always_p=always_p(difference / error, units, planned_units=planned_units),
        fixed=fixed if share else Interval(low=fixed.low * step, high=fixed.high * step),
        fixed_p=fixed_p,
        lift=lift,
        lift_always=_around(lift, reach * lift_error),
    )


def welch(control: ArmSums, arm: ArmSums) -> tuple[Interval, float]:
    """95 % interval of the difference of two means, in steps, and the p-value; variances may differ.

    Source:
        Welch, The generalization of "Student's" problem, Biometrika 1947.
    """
    a, b = _variance_of_mean(control), _variance_of_mean(arm)
    difference, error = arm.mean - control.mean, sqrt(a + b)
    if error == 0:
        return Interval(low=difference, high=difference), 1.0 if difference == 0 else 0.0
    freedom = (a + b) ** 2 / (a * a / (control.units - 1) + b * b / (arm.units - 1))
    return _around(difference, student_95(freedom) * error), student_two_sided(difference / error, freedom)


def newcombe(control: ArmSums, arm: ArmSums) -> tuple[Interval, float]:
    """95 % interval of the difference of two shares, and the p-value of the score test.

    Source:
        Newcombe, Interval estimation for the difference between independent proportions, Statistics in Medicine 1998,
        method 10: Wilson's interval for each, put together.
    """
    p, q = control.hits / control.units, arm.hits / arm.units
    (p_low, p_high), (q_low, q_high) = wilson(control.hits, control.units), wilson(arm.hits, arm.units)
    interval = Interval(
        low=q - p - sqrt((q - q_low) ** 2 + (p_high - p) ** 2),
        high=q - p + sqrt((q_high - q) ** 2 + (p - p_low) ** 2),
    )
    pooled = (control.hits + arm.hits) / (control.units + arm.units)
    error = sqrt(pooled * (1 - pooled) * (1 / control.units + 1 / arm.units))
    return interval, normal_two_sided((q - p) / error) if error else 1.0


def wilson(hits: int, units: int) -> tuple[float, float]:
    """95 % interval of one share.

    Source:
        Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927.
    """
    share, extra = hits / units, Z_95**2 / units
    middle = share + extra / 2
    reach = sqrt(share * (1 - share) * extra + extra * extra / 4)
    return (middle - reach) / (1 + extra), (middle + reach) / (1 + extra)


def relative(control: ArmSums, arm: ArmSums) -> tuple[float, float]:
    """The lift, arm / control - 1, and its standard error by the delta method; the control's mean is not 0.

    Source:
        Kohavi, Tang and Xu, Trustworthy Online Controlled Experiments, Cambridge 2020, chapter 18.
    """
    ratio = arm.mean / control.mean
    spread = _variance_of_mean(arm) + ratio * ratio * _variance_of_mean(control)
    return ratio - 1, sqrt(spread) / control.mean


def always_reach(units: int, *, planned_units: int) -> float:
    """How many standard errors an interval reaches that holds at all times together, at 95 %.

    The boundary of a normal mixture: a test of every effect at once, weighted by a normal distribution whose width
    makes the interval narrowest at the planned number of units.

    Source:
        Howard, Ramdas, McAuliffe and Sekhon, Time-uniform, nonparametric, nonasymptotic confidence sequences, Annals of
        Statistics 2021, equation 14; with estimated variances: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
        Time-uniform central limit theory and asymptotic confidence sequences, Annals of Statistics 2024.
    """
    mixed = units * _mixture(planned_units)
    return sqrt((1 + 1 / mixed) * log((1 + mixed) / ALPHA**2))


def always_p(z: float, units: int, *, planned_units: int) -> float:
    """The p-value that belongs to `always_reach`: below 5 % exactly where 0 lies outside the interval.

    Args:
        z: the difference in standard errors.

    Source:
        Johari, Koomen, Pekelis and Walsh, Always valid inference, Operations Research 2022: the mSPRT.
    """
    mixed = units * _mixture(planned_units)
    exponent = log(1 + mixed) / 2 - z * z / 2 * mixed / (1 + mixed)
    return exp(exponent) if exponent < 0 else 1.0


def mismatch(units: Sequence[int], shares: Sequence[int]) -> float:
    """How likely arms of such shares get such numbers of units by chance; below 0.001 the experiment is broken.

    Source:
        Fabijan et al., Diagnosing sample ratio mismatch in online controlled experiments, KDD 2019: a chi-square test.
    """
    everybody, whole = sum(units), sum(shares)
    if not everybody:
        return 1.0
    expected = [everybody * share / whole for share in shares]
    distance = sum((found - hoped) ** 2 / hoped for found, hoped in zip(units, expected, strict=True))
    return chi_square_above(distance, len(units) - 1)


def _mixture(planned_units: int) -> float:
    """The weighting's variance over that of one unit's value (Waudby-Smith et al., appendix B.2)."""
    bits = -2 * log(ALPHA)
    return (bits + log(1 + bits)) / planned_units


def _variance_of_mean(sums: ArmSums) -> float:
    return sums.variance / sums.units if sums.units else inf


def _around(middle: float, reach: float) -> Interval:
    return Interval(low=middle - reach, high=middle + reach)
