from dataclasses import replace

import pytest

from edge.experiments.design import Arm, Design, Kind, Metric, What, plainly
from edge.experiments.experiment import Experiment, State, from_document, revised, to_document
from protocol.errors import BadInputError

NOW = 1_795_000_000_000
DAY = 86_400_000


def design(*shares, **others):
    arms = tuple(Arm(name=name, share=share) for name, share in zip("abcdefgh", shares, strict=False))
    return Design(**{"arms": arms, "metrics": (Metric(name="sold", kind=Kind.CONVERSION),), **others})


def running(*shares, **others):
    return Experiment(
        name="x", design=design(*shares, **others), salt="s", layer_salt="l", state=State.RUNNING, started_ms=NOW
    )


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (design(0.6, 0.6), "add up to 1.2"),
        (design(0.5, 0.00005), "arm b is 5e-05, not a multiple of 0.0001"),
        (design(0.5, 0.12345), "not a multiple of 0.0001"),
        (replace(design(0.5, 0.5), arms=[Arm(name="a", share=0.1)] * 2), "two arms are called a"),
        (design(0.5, 0.5, metrics=[Metric(name="m", kind=Kind.CLICKS)] * 2), "two metrics are called m"),
        (design(0.5, 0.5, metrics=[Metric(name="m", kind=Kind.REVENUE)]), "m has no cap"),
        (design(0.5, 0.5, start_ms=NOW, end_ms=NOW), "ends before it starts"),
    ],
)
def test_a_design_that_cannot_be_carried_out_is_refused_in_one_line(wrong, line):
    with pytest.raises(BadInputError, match=line):
        wrong.check()


def test_shares_of_a_third_fit_together():
    assert design(0.3333, 0.3333, 0.3334).check().buckets == 10_000


def test_shares_of_a_running_experiment_may_grow_together():
    grown = revised(running(0.1, 0.05), design(0.4, 0.2), now_ms=NOW)
    assert [arm.share for arm in grown.design.arms] == [0.4, 0.2]


@pytest.mark.parametrize(
    "changed",
    [
        design(0.05, 0.05),  # nobody leaves
        design(0.2, 0.1),  # Simpson's paradox
        design(0.1, 0.2),
        design(0.1, 0.1, unit="session"),
        design(0.1, 0.1, scenarios=("home",)),
        design(0.1, 0.1, metrics=(Metric(name="sold", kind=Kind.CONVERSION, days=3),)),
        design(0.1, 0.1, layer="other"),
        design(0.1, 0.1, 0.1),
        replace(design(0.1, 0.1), arms=(Arm(name="b", share=0.1), Arm(name="a", share=0.1))),
        replace(design(0.1, 0.1), arms=(Arm(name="a", share=0.1), Arm(name="b", share=0.1, what=What(fusion="votes")))),
    ],
)
def test_what_would_move_people_between_arms_is_refused_while_it_runs(changed):
    old = running(0.1, 0.1)
    with pytest.raises(BadInputError, match="experiment x runs"):
        revised(old, changed, now_ms=NOW)
    assert revised(replace(old, state=State.DRAFT), changed, now_ms=NOW).design == changed


def test_the_end_may_be_moved_while_it_runs_and_not_after():
    old = running(0.1, 0.1, end_ms=NOW + DAY)
    assert revised(old, design(0.1, 0.1, end_ms=NOW + 2 * DAY), now_ms=NOW).design.end_ms == NOW + 2 * DAY
    with pytest.raises(BadInputError, match="is over"):
        revised(old, design(0.1, 0.1, end_ms=NOW + 2 * DAY), now_ms=NOW + DAY)


def test_an_experiment_ends_by_itself():
    old = running(0.1, 0.1, start_ms=NOW + DAY, end_ms=NOW + 2 * DAY)
    assert [old.exposes(NOW + hours * DAY // 24) for hours in (0, 23, 24, 47, 48)] == [False, False, True, True, False]
    assert old.state_at(NOW + 2 * DAY) is State.STOPPED
    assert replace(old, stopped_ms=NOW + DAY).over_ms == NOW + DAY


def test_an_experiment_is_the_same_after_a_restart():
    what = What(scenario="home", overrides={"diversity": {"relevance": 0.3}}, release=4)
    metrics = (Metric(name="spent", kind=Kind.REVENUE, cap=80),)
    written = design(0.5, 0.5, metrics=metrics, scenarios=("home", "search"), end_ms=NOW)
    written = replace(written, arms=(written.arms[0], replace(written.arms[1], what=what)))
    experiment = Experiment(name="x", design=written, salt="s", layer_salt="l", spans=((0, 5), (7, 9)))
    assert from_document(to_document(experiment)) == experiment
    assert plainly(what) == {
        "scenario": "home",
        "overrides": {"diversity": {"relevance": 0.3}},
        "release": 4,
    }
