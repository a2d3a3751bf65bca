"""From an answer to its rounds and back."""

import json
from contextlib import closing

import pytest
import structlog

from center.cli import main
from center.registry import Registry
from center.releases.rollout import Rollout
from center.releases.rollouts import Rollouts
from center.releases.stages import plan
from center.settings import RolloutSettings
from center.tracing import trace
from protocol import rec_id
from protocol.errors import BadInputError
from protocol.identity import EdgeId
from protocol.release import Ring

A, B = "ab" * 32, "cd" * 32
NORTH = (EdgeId("bergen"), EdgeId("visby"))
SOUTH = (EdgeId("bruges"),)


@pytest.fixture(autouse=True)
def _log_of_its_own():
    yield
    structlog.reset_defaults()


@pytest.fixture
def registry(tmp_path):
    """Two campaigns; release 1 took two of three training rounds of the first; release 3 names its files again."""
    with closing(Registry(tmp_path / "registry.db")) as registry:

        def summed(campaign, purpose, cohort, **figures):
            number = registry.begin_round(campaign, purpose=purpose, cohort=cohort, now_ms=1)
            registry.end_round(number, seconds=1, outcome="summed", figures=figures)

        summed("spring", "popularity", NORTH)  # 1
        summed("spring", "train", NORTH, step=1)  # 2
        lost = registry.begin_round("spring", purpose="train", cohort=SOUTH, now_ms=1)  # 3
        registry.end_round(lost, seconds=1, outcome="too few", figures={})
        summed("spring", "train", NORTH, step=2)  # 4
        summed("spring", "train", SOUTH, step=3)  # 5
        summed("autumn", "train", SOUTH, step=1)  # 6
        summed("release-1", "evaluate", (*NORTH, *SOUTH))  # 7
        cards = {
            1: {"sha256": A, "campaign": "spring", "rounds": 2},
            2: {"sha256": B, "campaign": "autumn", "rounds": 1},
            3: {"sha256": A, "campaign": "spring", "rounds": 2},
        }
        for version, card in cards.items():
            registry.add_release("bundle", version, sha256=card["sha256"], card=card, now_ms=1)
        stages = plan({Ring.ALL: NORTH}, A, RolloutSettings())
        Rollouts(registry).begin(Rollout.begin(1, A, previous=0, stages=stages, now_ms=1, waived="a test"))
        yield registry


def releases(what, registry):
    return [release["release"] for release in trace(what, registry=registry)["releases"]]


def test_an_answer_leads_to_its_release_rounds_and_cohorts(registry):
    answer = rec_id.make(version=1, sha256=A, drawn=b"12345678")
    found = trace(answer, registry=registry)
    (release,) = found["releases"]
    assert (found["kind"], release["release"], release["sha256"], release["campaign"]) == ("rec_id", 1, A, "spring")
    assert [(row["round"], row["cohort"]) for row in release["learnt_in"]] == [
        (number, list(NORTH)) for number in (1, 2, 4)
    ]
    assert [row["round"] for row in release["measured_in"]] == [7]
    assert (release["same_files"], release["state"], release["place"]) == ([3], "running", "all")


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("2", [2]),
        ("release/2", [2]),
        (A, [3, 1]),
        (B, [2]),
        ("spring", [3, 1]),
        ("campaign/autumn", [2]),
        ("campaign/release-1", [1]),
        ("round/2", [3, 1]),
        ("round/5", []),
        ("round/6", [2]),
        ("round/7", [1]),
        ("visby", [3, 1]),
        ("site/bruges", [2]),
    ],
)
def test_and_back(registry, what, expected):
    assert releases(what, registry) == expected


def test_an_answer_of_no_release_of_ours_is_said(registry):
    forged = rec_id.make(version=1, sha256=B, drawn=b"12345678")
    with pytest.raises(BadInputError, match="belongs to no release of this center"):
        trace(forged, registry=registry)
    early = rec_id.make(version=0, sha256="", drawn=b"12345678")
    assert trace(early, registry=registry)["note"] == "answered before the first release"


@pytest.mark.parametrize(
    "what", ["round/99", "release/x", "site/nobody", "campaign/x", "17", "zz", "ef" * 32, "B" * 22]
)
def test_what_is_not_there_is_said_in_one_line(registry, what):
    with pytest.raises(BadInputError):
        trace(what, registry=registry)


def test_the_command_prints_both_ways(registry, tmp_path, capsys):
    assert registry.path.exists()
    (tmp_path / "center.toml").write_text('federation = "hanse"\n')
    words = ["--dir", str(tmp_path)]
    assert main(["trace", "round/2", *words]) == 0
    out = capsys.readouterr().out
    assert "round 2 (train, summed): bergen, visby" in out
    assert f"release 1: bundle {A}" in out.replace("\n", " ").replace("  ", " ")
    assert main(["trace", "1", "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["releases"][0]["campaign"] == "spring"
    assert main(["trace", "zz", *words]) == 1
    assert "a round is written round/12" in capsys.readouterr().err
