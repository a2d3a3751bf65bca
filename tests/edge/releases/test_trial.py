"""The thresholds of a trial: what speaks against a release, and what says too little to judge."""

import dataclasses

import pytest

from edge.releases.trial import NEVER_SLOW_SECONDS, Figures, slow_seconds, why_not
from edge.settings import TrialSettings

LIMITS = TrialSettings()
GOOD = Figures(
    answers=1000,
    errors=0,
    p99=0.030,
    answers_before=5000,
    p99_before=0.025,
    queries=64,
    overlap=0.6,
    baskets=500,
    ndcg_new=0.21,
    ndcg_old=0.20,
    ndcg_spread=0.004,
)


def judged(**changes):
    return why_not(dataclasses.replace(GOOD, **changes), LIMITS)


def test_a_good_release_stays():
    assert why_not(GOOD, LIMITS) == ""
    assert why_not(Figures(), LIMITS) == ""


def test_failing_answers_are_counted_against_their_share():
    assert judged(errors=10) == ""
    assert judged(errors=11) == "11 of 1000 answers failed, 1.0% may"


def test_a_release_that_always_fails_is_gone_after_two_answers():
    """It must not fail a hundred shoppers before anybody looks."""
    assert judged(answers=1, errors=1) == ""
    assert "2 of 2 answers failed" in judged(answers=2, errors=2)


def test_slowness_is_measured_against_the_release_before():
    assert judged(p99=0.075) == ""
    assert "76 ms, 25 ms before" in judged(p99=0.0751 + 0.001)


@pytest.mark.parametrize("few", [{"answers": 99}, {"answers_before": 99}])
def test_few_answers_say_nothing_of_times(few):
    assert judged(p99=9.0, **few) == ""


def test_three_times_nothing_is_not_slow():
    assert judged(p99_before=0.001, p99=0.020) == ""
    assert slow_seconds(0.001, LIMITS) == LIMITS.max_p99_ratio * NEVER_SLOW_SECONDS


def test_answers_that_have_nothing_in_common_with_those_before_are_strange():
    assert "share 5.0% with those before" in judged(overlap=0.05)
    assert judged(overlap=0.0, queries=15) == ""


def test_quality_may_fall_a_little_but_not_more():
    assert judged(ndcg_new=0.181) == ""
    assert "falls from 0.2000 to 0.1700" in judged(ndcg_new=0.17)


def test_a_fall_within_chance_is_no_fall():
    assert judged(ndcg_new=0.17, ndcg_spread=0.016) == ""
    assert judged(ndcg_new=0.0, baskets=49) == ""


def test_every_reason_is_said():
    why = judged(errors=500, overlap=0.0, ndcg_new=0.0)
    assert len(why.split("; ")) == 3
