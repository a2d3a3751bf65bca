"""Rollouts on disk: what one process writes another finds, and two never move the same one."""

from contextlib import closing

import pytest

from center.registry import Registry
from center.releases.health import Health
from center.releases.rollout import Rollout, State
from center.releases.rollouts import Rollouts
from center.releases.stages import Stage
from center.settings import RolloutSettings
from protocol.audit import check_chain
from protocol.errors import BadInputError
from protocol.release import WHOLE_QUEUE, Place

TERMS = RolloutSettings()
CANARY = Stage(place=Place.CANARY, reach=WHOLE_QUEUE, sites=3)
EVERYBODY = Stage(place=Place.ALL, reach=WHOLE_QUEUE, sites=0)


@pytest.fixture
def registry(tmp_path):
    with closing(Registry(tmp_path / "registry.db")) as registry:
        yield registry


def begun(version, *, stages=(EVERYBODY,), previous=0):
    return Rollout.begin(version, f"{version:02}" * 32, previous=previous, stages=stages, now_ms=1, waived="a test")


def finished(registry, version, **options):
    rollout = begun(version, **options)
    Rollouts(registry).begin(rollout)
    Rollouts(registry).save(rollout.published(now_ms=2), was=rollout)


def test_another_process_finds_all_of_it(registry, tmp_path) -> None:
    rollout = begun(1, stages=(CANARY, EVERYBODY))
    Rollouts(registry).begin(rollout)
    bad = rollout.published(now_ms=2).judged(Health(sites=3, kept=0, went_back=2), now_ms=3, terms=TERMS)
    Rollouts(registry).save(bad, was=rollout)
    with closing(Registry(tmp_path / "registry.db")) as other:
        assert Rollouts(other).active() == bad
    assert [entry.kind for entry in registry.audit_log()] == [step.kind for step in bad.history]
    check_chain(registry.audit_log())


def test_whoever_comes_second_is_told_and_changes_nothing(registry) -> None:
    rollout = begun(1)
    rollouts = Rollouts(registry)
    rollouts.begin(rollout)
    rollouts.save(rollout.paused("first", now_ms=2), was=rollout)
    with pytest.raises(BadInputError, match="moved on meanwhile"):
        rollouts.save(rollout.published(now_ms=3), was=rollout)
    assert rollouts.get(1).why == "first"
    assert [entry.kind for entry in registry.audit_log()] == ["candidate", "gate waived", "paused"]


def test_one_at_a_time(registry) -> None:
    Rollouts(registry).begin(begun(1))
    with pytest.raises(BadInputError, match="release 1 is running"):
        Rollouts(registry).begin(begun(2))
    assert Rollouts(registry).find(2) is None


def test_what_is_in_force_is_what_everybody_was_offered(registry) -> None:
    rollouts = Rollouts(registry)
    assert rollouts.in_force() is None
    finished(registry, 1)
    finished(registry, 2, previous=1)
    bad = begun(3, stages=(CANARY, EVERYBODY), previous=2)
    rollouts.begin(bad)
    back = bad.going_back("bad", now_ms=2)
    rollouts.save(back, was=bad)
    assert rollouts.in_use() == {3, 2, 1}
    replacing = Rollout.gone_back(4, "02" * 32, previous=1, place=Place.CANARY, instead_of=3, now_ms=3)
    rollouts.save(back.published(now_ms=3, successor=4), was=back, replacing=replacing)
    assert [one.version for one in rollouts.every()] == [4, 3, 2, 1]
    assert (rollouts.in_force().version, rollouts.newest_finished().version, rollouts.active()) == (2, 4, None)
    assert rollouts.get(3).state is State.REVERTED
    with pytest.raises(BadInputError, match="no release 9"):
        rollouts.get(9)
