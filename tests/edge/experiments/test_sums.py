import numpy as np
import pytest

from edge.experiments.sums import STEPS, ArmSums


def sums_of(steps):
    return ArmSums(
        units=len(steps),
        total=int(steps.sum()),
        squares=int((steps.astype(object) ** 2).sum()),
        hits=int((steps > 0).sum()),
    )


def test_the_sum_of_two_sites_is_what_one_site_with_all_units_would_have(rng):
    here, there = rng.integers(0, STEPS, 700), rng.integers(0, STEPS, 300)
    assert sums_of(here) + sums_of(there) == sums_of(np.concatenate([here, there]))


def test_mean_and_variance_are_numpys(rng):
    steps = rng.integers(0, STEPS, 1_000)
    assert sums_of(steps).mean == pytest.approx(steps.mean(), rel=1e-12)
    assert sums_of(steps).variance == pytest.approx(steps.var(ddof=1), rel=1e-12)


def test_variance_of_nearly_equal_large_values_is_not_lost_in_rounding():
    steps = np.array([STEPS, STEPS, STEPS - 1] * 700_000)
    assert sums_of(steps).variance == pytest.approx(steps.var(ddof=1), rel=1e-9)


@pytest.mark.parametrize("units", [0, 1])
def test_nobody_and_one_have_no_variance(units):
    assert ArmSums(units=units, total=units * 5, squares=units * 25, hits=units).variance == 0
    assert ArmSums().mean == 0
