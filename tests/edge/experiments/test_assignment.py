from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from edge.experiments.assignment import arm_of, claim, point
from edge.experiments.design import Arm, Design, Kind, Metric
from edge.experiments.experiment import Experiment, revised
from protocol.errors import BadInputError

USERS = [f"user-{number}" for number in range(20_000)]


def experiment(*shares, salt="salt", layer_salt="layer", spans=None):
    arms = tuple(Arm(name=name, share=share) for name, share in zip("abcd", shares, strict=False))
    design = Design(arms=arms, metrics=(Metric(name="sold", kind=Kind.CONVERSION),))
    spans = claim(design.buckets, own=(), others=(), layer="shop") if spans is None else spans
    return Experiment(name="x", design=design, salt=salt, layer_salt=layer_salt, state="running", spans=spans)


def arms(one, users=USERS):
    return {user: arm.name for user in users if (arm := arm_of(one, user)) is not None}


def test_points_are_spread_evenly_over_zero_to_one():
    points = [point("salt", user) for user in USERS]
    assert stats.kstest(points, "uniform").pvalue > 0.001
    assert all(0 <= one < 1 for one in points)


def test_points_never_change():
    # Written down: whoever changes the hash moves everybody of every running experiment.
    assert point("5a17", "ada") == 0.4178577682633964


def test_arms_get_their_shares_and_the_rest_is_in_none():
    found = Counter(arms(experiment(0.1, 0.2, 0.4)).values())
    missing = len(USERS) - sum(found.values())
    assert (
        stats.chisquare([*(found[name] for name in "abc"), missing], np.array([0.1, 0.2, 0.4, 0.3]) * 20_000).pvalue
        > 0.001
    )


def test_a_user_has_the_same_arm_at_every_visit_and_another_under_another_salt():
    one = experiment(0.5, 0.5)
    assert arms(one) == arms(one)
    other = arms(replace(one, salt="other"))
    assert 0.48 < np.mean([other[user] == arm for user, arm in arms(one).items()]) < 0.52


def test_nobody_changes_sides_when_shares_grow():
    small = experiment(0.02, 0.01)
    grown = revised(small, replace(small.design, arms=experiment(0.4, 0.2).design.arms), now_ms=0)
    grown = replace(grown, spans=claim(6_000, own=small.spans, others=[(500, 900)], layer="shop"))
    before, after = arms(small), arms(grown)
    assert len(after) > 15 * len(before)
    assert {user: after[user] for user in before} == before
    assert Counter(after.values())["a"] == pytest.approx(2 * Counter(after.values())["b"], rel=0.1)


def test_two_experiments_of_a_layer_share_nobody():
    one = experiment(0.3, 0.3)
    other = experiment(0.2, 0.2, salt="other", spans=claim(4_000, own=(), others=one.spans, layer="shop"))
    assert not set(arms(one)) & set(arms(other))
    assert len(arms(one)) + len(arms(other)) == len(USERS)


def test_the_control_of_one_experiment_is_spread_over_all_arms_of_the_next():
    control = [user for user, arm in arms(experiment(0.5, 0.5)).items() if arm == "a"]
    found = Counter(arms(experiment(0.5, 0.5, salt="next"), control).values())
    assert stats.chisquare([found["a"], found["b"]]).pvalue > 0.001


def test_a_full_layer_says_how_much_is_left():
    with pytest.raises(BadInputError, match=r"layer shop has 0\.3 of its units left, the experiment needs 0\.4"):
        claim(4_000, own=(), others=[(0, 7_000)], layer="shop")


def test_a_claim_takes_the_lowest_free_places_and_keeps_its_own():
    assert claim(300, own=[(100, 200)], others=[(0, 50), (200, 220)], layer="shop") == ((50, 200), (220, 370))
