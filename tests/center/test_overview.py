"""`hanse-center status`, for people and for programs."""

import json
from contextlib import closing

import pytest
import structlog

from center.cli import main
from center.registry import Registry
from center.releases.health import Health
from center.releases.rollout import Rollout
from center.releases.rollouts import Rollouts
from center.releases.stages import plan
from center.settings import RolloutSettings
from center.sites import membership
from protocol.identity import EdgeId
from protocol.release import Ring

SITES = tuple(EdgeId(f"site-{number}") for number in range(4))
TERMS = RolloutSettings()


@pytest.fixture(autouse=True)
def _log_of_its_own():
    yield
    structlog.reset_defaults()


@pytest.fixture
def broker_kind():
    return "embedded"


@pytest.fixture
def words(town):
    town.admit(*SITES)
    membership.choose_rings(town.folder, town.settings, canary=SITES[:3], early=[], now=town.now)
    return ["status", "--dir", str(town.folder)]


def test_before_the_first_release(words, capsys) -> None:
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "broker answers" in said
    assert "site-0: ring canary" in said
    assert "site-3: ring all" in said
    assert "release: none yet" in said


def test_rings_rollout_and_releases(words, town, capsys) -> None:
    stages = plan({Ring.CANARY: SITES[:3], Ring.ALL: SITES[3:]}, "ab" * 32, TERMS)
    with closing(Registry(town.folder / "registry.db")) as registry:
        registry.note_statuses(
            {SITES[0]: {"online": True, "release": 2, "trial": True, "version": "1.0.0"}, SITES[1]: {"online": False}}
        )
        rollouts = Rollouts(registry)
        for version, digest in ((1, "ab" * 32), (2, "cd" * 32)):
            begun = Rollout.begin(version, digest, previous=version - 1, stages=stages, now_ms=1, waived="a test")
            rollouts.begin(begun)
            if version == 1:
                bad = begun.published(now_ms=2).judged(Health(sites=3, kept=0, went_back=3), now_ms=3, terms=TERMS)
                rollouts.save(bad.published(now_ms=4), was=begun)
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "release 2 (bundle cdcdcdcdcdcd) is running at ring canary, being signed" in said
    assert "online with release 2 on trial, software 1.0.0" in " ".join(said.split())
    assert "3 of 3 sites went back" in " ".join(said.split())
    assert main([*words, "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert seen["rings"] == {"canary": list(SITES[:3]), "early": [], "all": list(SITES[3:])}
    assert [(row["release"], row["state"]) for row in seen["releases"]] == [(2, "running"), (1, "reverted")]
    assert seen["rollout"]["stages"][0] == {"place": "canary", "reach": 10_000, "sites": 3}
