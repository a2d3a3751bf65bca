from dataclasses import replace

import pytest

from edge.rounds import policy
from edge.settings import PolicySettings
from protocol.announcement import Announcement, Purpose
from protocol.errors import RefusedByPolicyError
from protocol.fixed_point import Segment
from protocol.identity import EdgeId, FederationId
from protocol.privacy import Privacy

ASKED = Announcement(
    federation=FederationId("hanse"),
    campaign="spring",
    round=1,
    key_epoch=1,
    roster_version=1,
    center_epoch=1,
    cohort=tuple(EdgeId(f"site-{n}") for n in range(5)),
    prekeys=(bytes(32),) * 5,
    purpose=Purpose.TRAIN,
    submodel="recommend",
    weights_sha256=bytes(32),
    layout=(Segment(name="update", length=1000, bound=10.0),),
    window=0,
    clip=10.0,
    coordinate_clip=1.0,
    weight_cap=100,
    deadline_ms=1,
)


WEAK = Privacy(noise_multiplier=1.0, user_clip=1.0, colluders=0)


def test_what_the_operator_allows_is_not_refused() -> None:
    policy.check(ASKED, policy=PolicySettings(), robust=False, answered_today=0)


@pytest.mark.parametrize(
    ("change", "limits", "answered", "setting"),
    [
        ({"cohort": ASKED.cohort[:4]}, {}, 0, "min_cohort"),
        ({"purpose": Purpose.POPULARITY}, {"purposes": ("train",)}, 0, "purposes"),
        ({"submodel": "vision"}, {}, 0, "submodels"),
        ({"clip": 1000.0}, {}, 0, "max_clip"),
        ({"weight_cap": 10**8}, {}, 0, "max_weight_cap"),
        ({}, {"max_words": 999}, 0, "max_words"),
        ({}, {"max_colluders": 2}, 0, "max_colluders"),
        ({}, {"min_honest": 4}, 0, "min_honest"),
        ({}, {"require_noise": True}, 0, "require_noise"),
        ({"privacy": WEAK}, {}, 0, "max_colluders"),
        ({}, {"rounds_per_day": 3}, 3, "rounds_per_day"),
    ],
)
def test_the_center_cannot_go_beyond_the_operators_limits(change, limits, answered, setting) -> None:
    with pytest.raises(RefusedByPolicyError) as refusal:
        policy.check(replace(ASKED, **change), policy=PolicySettings(**limits), robust=False, answered_today=answered)
    assert f"policy.{setting}" in refusal.value.line()


def test_a_site_takes_part_in_sums_of_groups_only_if_it_says_so() -> None:
    with pytest.raises(RefusedByPolicyError, match="sums of single groups"):
        policy.check(ASKED, policy=PolicySettings(), robust=True, answered_today=0)
    policy.check(ASKED, policy=PolicySettings(groups=True), robust=True, answered_today=0)


RING = replace(ASKED, purpose=Purpose.HEALTH, cohort=ASKED.cohort[:3])


def test_a_ring_of_three_may_say_how_a_release_does_and_nothing_else() -> None:
    policy.check(RING, policy=PolicySettings(), robust=False, answered_today=0)
    for purpose in set(Purpose) - {Purpose.HEALTH}:
        with pytest.raises(RefusedByPolicyError, match="a cohort of 3"):
            policy.check(replace(RING, purpose=purpose), policy=PolicySettings(), robust=False, answered_today=0)


@pytest.mark.parametrize(
    ("edges", "limits", "setting"),
    [
        (3, {"min_ring": 4}, "min_ring"),
        (2, {}, "min_ring"),
        (5, {"max_colluders": 2}, "max_colluders"),
        (3, {"require_noise": True}, "require_noise"),
        (3, {"purposes": ("popularity", "train")}, "purposes"),
    ],
)
def test_a_ring_has_limits_too(edges, limits, setting) -> None:
    asked = replace(RING, cohort=ASKED.cohort[:edges])
    with pytest.raises(RefusedByPolicyError) as refusal:
        policy.check(asked, policy=PolicySettings(**limits), robust=False, answered_today=0)
    assert f"policy.{setting}" in refusal.value.line()


def test_an_evaluation_takes_the_ordinary_cohort() -> None:
    policy.check(replace(ASKED, purpose=Purpose.EVALUATE), policy=PolicySettings(), robust=False, answered_today=0)
