"""The arithmetic of cohorts: enough for two thirds, and never two sums."""

import pytest

from protocol import cohort
from protocol.errors import PeerMisbehavedError


@pytest.mark.parametrize(("edges", "threshold"), [(3, 3), (4, 3), (5, 4), (8, 6), (10, 7), (20, 14), (50, 34)])
def test_the_thresholds_of_the_design(edges, threshold) -> None:
    assert cohort.threshold(edges) == threshold


@pytest.mark.parametrize("edges", range(cohort.SMALLEST, cohort.LARGEST + 1))
def test_two_survivor_sets_cannot_both_be_signed(edges) -> None:
    """t signatures each, fewer than a third lie and sign both: an honest edge would have to sign twice."""
    t, colluders = cohort.threshold(edges), (edges - 1) // 3
    assert 2 * t - edges > colluders
    assert edges - t == -(-edges // 3) - 1


@pytest.mark.parametrize("edges", range(cohort.SMALLEST, cohort.LARGEST + 1))
def test_a_round_that_enough_have_given_up_cannot_be_opened(edges) -> None:
    """Whoever has not given it up, and the liars among those that have, are fewer than the threshold."""
    for liars in range(edges // 3 + 1):
        needed = cohort.abandonments_needed(edges, max_colluders=liars)
        can_open = edges - needed + liars
        assert can_open < cohort.threshold(edges)
        assert can_open + 1 >= cohort.threshold(edges)  # one fewer would not be enough


def test_a_cohort_with_more_than_a_third_of_colluders_is_refused() -> None:
    cohort.check_colluders(8, max_colluders=2, min_honest=3)
    with pytest.raises(PeerMisbehavedError, match="3 colluders would be more than a third"):
        cohort.check_colluders(8, max_colluders=3, min_honest=1)


def test_a_sum_of_too_few_honest_edges_is_refused() -> None:
    cohort.check_colluders(5, max_colluders=1, min_honest=3)
    with pytest.raises(PeerMisbehavedError, match="only 3 honest edges, this site wants 4"):
        cohort.check_colluders(5, max_colluders=1, min_honest=4)
