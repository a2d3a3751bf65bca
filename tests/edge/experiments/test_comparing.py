from math import log, sqrt

import numpy as np
import pytest
from scipy import stats

from edge.experiments.comparing import (
    ALPHA,
    always_p,
    always_reach,
    compare,
    mismatch,
    newcombe,
    relative,
    welch,
    wilson,
)
from edge.experiments.sums import ArmSums


def summed(values):
    values = np.asarray(values)
    return ArmSums(
        units=len(values), total=int(values.sum()), squares=int((values**2).sum()), hits=int((values > 0).sum())
    )


def shares(hits, units):
    return ArmSums(units=units, total=hits, squares=hits, hits=hits)


def test_welch_from_sums_is_scipys_from_values(rng):
    control, arm = rng.poisson(40, 230), rng.poisson(43, 180) * 2
    interval, p = welch(summed(control), summed(arm))
    oracle = stats.ttest_ind(arm, control, equal_var=False)
    assert p == pytest.approx(oracle.pvalue, rel=1e-7)
    assert (interval.low, interval.high) == pytest.approx(tuple(oracle.confidence_interval(0.95)), rel=1e-7)


def test_wilsons_interval_is_scipys():
    for hits, units in [(0, 20), (3, 20), (56, 70), (20, 20), (12_345, 100_000)]:
        oracle = stats.binomtest(hits, units).proportion_ci(method="wilson")
        assert wilson(hits, units) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


@pytest.mark.parametrize(
    ("arm", "control", "interval"),
    [  # Newcombe 1998, table II, method 10
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((6, 7), (2, 7), (0.0582, 0.8062)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((10, 10), (0, 10), (0.6075, 1.0000)),
    ],
)
def test_newcombes_interval_is_the_one_he_printed(arm, control, interval):
    found, _ = newcombe(shares(*control), shares(*arm))
    assert (found.low, found.high) == pytest.approx(interval, abs=5e-5)


def test_p_value_of_two_shares_is_scipys_chi_square():
    _, p = newcombe(shares(130, 1_000), shares(168, 1_100))
    assert p == pytest.approx(stats.chi2_contingency([[130, 870], [168, 932]], correction=False).pvalue, rel=1e-9)


def test_delta_methods_error_is_what_resampling_finds(rng):
    control, arm = rng.exponential(100, 2_000).astype(int), rng.exponential(300, 2_500).astype(int)
    lift, error = relative(summed(control), summed(arm))
    again = [rng.choice(arm, len(arm)).mean() / rng.choice(control, len(control)).mean() - 1 for _ in range(4_000)]
    assert lift == pytest.approx(arm.mean() / control.mean() - 1, rel=1e-12)
    assert error == pytest.approx(np.std(again), rel=0.05)


def test_sample_ratio_is_judged_as_scipy_does():
    assert mismatch([5_080, 4_920], [1, 1]) == pytest.approx(stats.chisquare([5_080, 4_920]).pvalue, rel=1e-9)
    assert mismatch([900, 2_100, 3_050], [15, 35, 50]) == pytest.approx(
        stats.chisquare([900, 2_100, 3_050], np.array([15, 35, 50]) * 60.5).pvalue, rel=1e-9
    )
    assert mismatch([0, 0], [1, 1]) == 1


def test_the_interval_that_always_holds_is_the_mixture_that_the_paper_prints():
    # Waudby-Smith et al. 2024, theorem 2.2, written as they do, with their rho tuned as in their equation for t*.
    n, planned = 700, 3_000
    rho = sqrt((-2 * log(ALPHA) + log(-2 * log(ALPHA) + 1)) / planned)
    theirs = sqrt(2 * (n * rho**2 + 1) / (n**2 * rho**2) * log(sqrt(n * rho**2 + 1) / ALPHA))
    assert always_reach(n, planned_units=planned) / sqrt(n) == pytest.approx(theirs, rel=1e-12)


def test_the_interval_that_always_holds_is_tuned_to_the_planned_units():
    best = min(range(100, 100_000, 100), key=lambda planned: always_reach(10_000, planned_units=planned))
    assert best == pytest.approx(10_000, rel=0.15)  # their closed form is an approximation
    assert 1.96 < always_reach(10_000, planned_units=10_000) < 3.2


def test_the_p_value_is_below_five_percent_exactly_where_zero_lies_outside():
    reach = always_reach(4_000, planned_units=10_000)
    assert (
        always_p(reach * 1.0001, 4_000, planned_units=10_000)
        < 0.05
        < always_p(reach * 0.9999, 4_000, planned_units=10_000)
    )
    assert always_p(0, 4_000, planned_units=10_000) == 1


@pytest.mark.parametrize(("units", "hits"), [(99, 50), (5_000, 9)])
def test_nothing_is_said_from_a_handful(units, hits):
    few, many = shares(hits, units), shares(300, 3_000)
    assert compare(few, many, step=1, share=True, planned_units=10_000) is None
    assert compare(many, few, step=1, share=True, planned_units=10_000) is None
    assert compare(many, many, step=1, share=True, planned_units=10_000) is not None


def test_a_mean_is_told_in_the_metrics_own_unit(rng):
    control, arm = rng.exponential(2_000, 5_000).astype(int), rng.exponential(2_600, 5_000).astype(int)
    said = compare(summed(control), summed(arm), step=0.01, share=False, planned_units=10_000)
    assert said.difference == pytest.approx((arm.mean() - control.mean()) / 100)
    for interval in (said.always, said.fixed):
        assert interval.low < said.difference < interval.high
    assert said.always.low < said.fixed.low  # looking whenever one likes has its price
    assert said.always.low > 0
    assert said.always_p < 0.05
    assert said.lift == pytest.approx(0.3, abs=0.1)
    assert said.lift_always.low < said.lift < said.lift_always.high


LOOKS = np.arange(200, 6_001, 200)


def peeked(rng, *, effect=0.0, delay=False):
    """z at each look at a running experiment whose units buy with 10 %, some of them only later."""
    units = LOOKS[-1]
    arm = rng.random(units) < 0.5
    bought = rng.random(units) < 0.1 + effect * arm
    seen_at = np.arange(units) + (rng.integers(0, 3_000, units) if delay else 0)
    found = []
    for look in LOOKS:
        known = bought[:look] & (seen_at[:look] < look)
        control, other = (
            shares(int(known[arm[:look] == side].sum()), int((arm[:look] == side).sum())) for side in (False, True)
        )
        found.append((control, other))
    return found


def outside(pairs, *, which, effect=0.0):
    """At which looks the true effect lies outside the interval."""
    said = [compare(*pair, step=1, share=True, planned_units=4_000) for pair in pairs]
    intervals = [getattr(one, which) for one in said if one is not None]
    return [not interval.low <= effect <= interval.high for interval in intervals]


@pytest.mark.parametrize("delay", [False, True])
def test_looking_all_the_time_fools_the_fixed_interval_and_not_the_other(rng, delay):
    runs = [peeked(rng, delay=delay) for _ in range(400)]
    fooled = {which: np.mean([any(outside(run, which=which)) for run in runs]) for which in ("fixed", "always")}
    assert fooled["fixed"] > 0.15
    assert fooled["always"] <= 0.05


def test_one_look_at_the_end_is_wrong_in_five_percent(rng):
    wrong = [outside(peeked(rng, effect=0.03)[-1:], which="fixed", effect=0.03)[0] for _ in range(1_000)]
    assert 0.03 < np.mean(wrong) < 0.07


def test_a_real_effect_is_found(rng):
    found = [any(outside(peeked(rng, effect=0.05), which="always")) for _ in range(100)]
    assert np.mean(found) > 0.9
