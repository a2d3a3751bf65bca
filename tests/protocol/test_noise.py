import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from protocol import noise
from protocol.noise import LARGEST_VARIANCE, skellam

SEED = b"n" * 32
SIZE = 200_000
JUST_REJECTION = 2.0 * noise._SMALL_MEAN
VARIANCES = [0.01, 0.5, 7.3, 100.0, 3000.5, JUST_REJECTION * (1 - 1e-9), JUST_REJECTION, 12_345.6, 1e6, 1e8]
HUGE = [1e11, LARGEST_VARIANCE]


def poisson(mean, size):
    """One half of the noise, with the shift that cancels in the difference taken back."""
    if mean < noise._SMALL_MEAN:
        least = max(math.floor(mean) - math.ceil(40 + 10 * math.sqrt(mean)), 0)
        return noise._Table.of(mean).draw(noise.Keystream(SEED), size) + least
    return noise._Rejection.of(mean).draw(noise.Keystream(SEED), size) + math.floor(mean)


@pytest.mark.parametrize("variance", VARIANCES + HUGE)
def test_noise_has_the_mean_and_variance_that_privacy_is_reckoned_with(variance):
    numbers = skellam(SEED, variance=variance, size=SIZE).astype(np.float64)
    assert abs(numbers.mean()) < 4.5 * math.sqrt(variance / SIZE)
    fourth = variance + 3 * variance**2  # the fourth central moment of a Skellam law
    assert abs(numbers.var() - variance) < 4.5 * math.sqrt((fourth - variance**2) / SIZE)


@pytest.mark.parametrize("variance", VARIANCES)
def test_noise_has_the_law_of_skellam(variance):
    """Chi-square against scipy, single numbers where few can come up and bins of about one per cent where many."""
    numbers = skellam(SEED, variance=variance, size=SIZE)
    half = variance / 2
    edges = np.unique(np.round(math.sqrt(variance) * stats.norm.ppf(np.linspace(0.01, 0.99, 99)))).astype(np.int64)
    below = np.concatenate([[0.0], stats.skellam.cdf(edges, half, half), [1.0]])
    expected = np.diff(below) * SIZE
    found = np.bincount(np.searchsorted(edges, numbers, side="left"), minlength=len(edges) + 1)
    keep = expected > 5
    expected, found = expected[keep], found[keep]
    statistic = np.sum((found - expected) ** 2 / expected)
    assert stats.chi2.sf(statistic, max(len(expected) - 1, 1)) > 1e-3


@pytest.mark.parametrize("variance", HUGE)
def test_huge_noise_is_as_good_as_normal(variance):
    """Beyond 1e8 a Skellam law differs from a normal one by less than anything a test could see."""
    numbers = skellam(SEED, variance=variance, size=SIZE)
    assert stats.kstest(numbers / math.sqrt(variance), "norm").pvalue > 1e-3
    assert stats.chisquare(np.bincount(numbers % 64)).pvalue > 1e-3, "the lowest bits are noise too"


@pytest.mark.parametrize("mean", [0.3, 9.99, 700.5, 4095.9, 4096.0, 5000.25, 1e5])
def test_each_half_has_the_law_of_poisson(mean):
    """The difference hides what is skew in a half: look at one half alone."""
    numbers = poisson(mean, SIZE)
    edges = np.unique(stats.poisson.ppf(np.linspace(0.005, 0.995, 100), mean))
    expected = np.diff(np.concatenate([[0.0], stats.poisson.cdf(edges, mean), [1.0]])) * SIZE
    found = np.bincount(np.searchsorted(edges, numbers, side="left"), minlength=len(edges) + 1)
    keep = expected > 5
    statistic = np.sum((found[keep] - expected[keep]) ** 2 / expected[keep])
    assert stats.chi2.sf(statistic, max(keep.sum() - 1, 1)) > 1e-3


@pytest.mark.parametrize("mean", [4096.0, 4096.7, 123_456.25])
def test_the_probability_that_rejection_works_with_is_the_law_to_the_last_digits(mean):
    """Against the recurrence p(k + 1) / p(k) = mean / (k + 1), which is exact, and against the sum of all being 1."""
    law = noise._Rejection.of(mean)
    reach = int(mean / 5)
    offsets = np.arange(-reach, reach + 1, dtype=np.float64)
    logs = law._log_probability(offsets)
    ratios = np.log(mean / (math.floor(mean) + offsets[1:]))
    assert np.allclose(np.diff(logs), ratios, rtol=0, atol=2e-11)
    assert math.fsum(np.exp(logs)) == pytest.approx(1, abs=1e-13)


@pytest.mark.parametrize("mean", [4095.5, 4096.5, 1e7])
def test_far_from_the_mean_noise_does_come_up(mean):
    """A sampler that cuts its tails breaks the privacy of whoever is found there."""
    numbers = poisson(mean, 2_000_000)
    for chance in (1e-3, 1e-4, 1e-5, 3e-6):
        for beyond in (
            np.sum(numbers > (bar := stats.poisson.isf(chance, mean))) - 2_000_000 * stats.poisson.sf(bar, mean),
            np.sum(numbers <= (bar := stats.poisson.ppf(chance, mean))) - 2_000_000 * stats.poisson.cdf(bar, mean),
        ):
            assert abs(beyond) < 4 * math.sqrt(2_000_000 * chance)


def test_noise_of_one_word_says_nothing_of_the_next():
    numbers = skellam(SEED, variance=1e6, size=SIZE)
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.01


def test_noise_of_many_edges_adds_up():
    """What each edge adds is a share: the sum has the law that privacy is reckoned with."""
    total = sum(skellam(bytes([edge]) * 32, variance=50.0, size=SIZE // 4) for edge in range(20))
    assert abs(total.var() / 1000 - 1) < 4.5 * math.sqrt(2 / (SIZE // 4))
    assert (
        stats.kstest(total + stats.uniform.rvs(-0.5, size=len(total), random_state=1), "norm", (0, 1000**0.5)).pvalue
        > 1e-3
    )


@settings(deadline=None)
@given(variance=st.floats(1e-6, 1e14), size=st.integers(0, 300), seed=st.binary(min_size=32, max_size=32))
def test_any_variance_gives_as_many_numbers_as_asked_and_the_same_again(variance, size, seed):
    numbers = skellam(seed, variance=variance, size=size)
    assert numbers.shape == (size,)
    assert numbers.dtype == np.int64
    assert np.array_equal(numbers, skellam(seed, variance=variance, size=size))
    assert np.all(np.abs(numbers) <= 40 + 12 * math.sqrt(variance))


def test_another_seed_gives_other_noise():
    one, other = (skellam(bytes([n]) * 32, variance=1e6, size=1000) for n in (1, 2))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.15


def test_no_variance_is_no_noise():
    assert not np.any(skellam(SEED, variance=0.0, size=5))


@pytest.mark.parametrize("variance", [-1.0, math.nan, math.inf, LARGEST_VARIANCE * 1.01])
def test_a_variance_out_of_range_is_refused(variance):
    with pytest.raises(ValueError, match="variance"):
        skellam(SEED, variance=variance, size=5)
