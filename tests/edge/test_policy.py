from dataclasses import replace

import pytest

from edge import policy
from edge.settings import PolicySettings
from protocol.errors import RefusedByPolicyError
from protocol.fixed_point import Segment
from protocol.identity import EdgeId, FederationId
from protocol.messages import Announcement, Purpose

ASKED = Announcement(
    federation=FederationId("hanse"),
    campaign="spring",
    round=1,
    roster_version=1,
    center_epoch=1,
    cohort=tuple(EdgeId(f"site-{n}") for n in range(5)),
    purpose=Purpose.TRAIN,
    submodel="recommend",
    weights_sha256=bytes(32),
    layout=(Segment(name="update", length=1000, bound=10.0),),
    clip=10.0,
    weight_cap=100,
    deadline_ms=1,
)


def test_what_the_operator_allows_is_not_refused() -> None:
    policy.check(ASKED, policy=PolicySettings(), answered_today=0)


@pytest.mark.parametrize(
    ("change", "limits", "answered", "setting"),
    [
        ({"cohort": ASKED.cohort[:4]}, {}, 0, "min_cohort"),
        ({"purpose": Purpose.POPULARITY}, {"purposes": ("train",)}, 0, "purposes"),
        ({"submodel": "vision"}, {}, 0, "submodels"),
        ({"clip": 1000.0}, {}, 0, "max_clip"),
        ({}, {"max_words": 999}, 0, "max_words"),
        ({}, {"rounds_per_day": 3}, 3, "rounds_per_day"),
    ],
)
def test_the_center_cannot_go_beyond_the_operators_limits(change, limits, answered, setting) -> None:
    with pytest.raises(RefusedByPolicyError) as refusal:
        policy.check(replace(ASKED, **change), policy=PolicySettings(**limits), answered_today=answered)
    assert f"policy.{setting}" in refusal.value.line()
