"""scipy is the oracle here and nowhere else: the serving process does without it."""

import pytest
from scipy import stats

from edge.experiments.distributions import (
    Z_95,
    chi_square_above,
    normal_two_sided,
    student_95,
    student_two_sided,
)

FREEDOMS = [0.5, 1, 2.3, 5, 30, 198.7, 1e4, 1e6]


@pytest.mark.parametrize("freedom", FREEDOMS)
@pytest.mark.parametrize("t", [0, 0.01, 0.5, 1, 2, 3, 8, 40])
def test_students_tails_are_scipys(t, freedom):
    assert student_two_sided(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_students_bounds_are_scipys(freedom):
    assert student_95(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-7)


@pytest.mark.parametrize("freedom", range(1, 12))
@pytest.mark.parametrize("x", [0, 0.001, 0.5, 1, 3, 8, 20, 100])
def test_chi_squares_tails_are_scipys(x, freedom):
    assert chi_square_above(x, freedom) == pytest.approx(stats.chi2.sf(x, freedom), rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("z", [0, 0.3, -1, Z_95, 4, 9])
def test_normal_tails_are_scipys(z):
    assert normal_two_sided(z) == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-12)
    assert pytest.approx(stats.norm.ppf(0.975)) == Z_95
