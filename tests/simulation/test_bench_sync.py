"""The road's benchmark measures what it says, with few edges and bytes. No speed is asserted: machines are busy."""

import json
import math
from dataclasses import replace

import pytest

from center.mqtt.broker import mosquitto_path
from protocol.blocks import BLOCK_BYTES
from protocol.identity import FederationId
from simulation.bench import sync, tables
from simulation.bench.load import Request
from simulation.bench.random_release import RandomRelease
from simulation.bench.swapping import slow
from simulation.cli import main

HEADLINES = {
    "fanout_ratio",
    "late_joiner_ratio",
    "lossy_bytes_ratio",
    "delta_bytes_ratio",
    "rollback_seconds",
    "swap_failed_requests",
    "broker_memory_ratio",
}
MOSQUITTO = pytest.mark.skipif(mosquitto_path() is None, reason="Mosquitto is not installed")
SMALL = replace(sync.QUICK, joiners=1, items=200, load=replace(sync.QUICK.load, seconds=1.5, warm_up_seconds=0.5))
"""What is asked of the figures holds for any load: that they are there, add up and are possible."""


@pytest.fixture(scope="module")
def measured():
    """Everything once, with a real broker and real edges, and what was shown meanwhile."""
    shown: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANSE_EDGE_TRAINING__NICENESS", "0")  # or rehearsals wait for the tests beside this one
        return sync.run(SMALL, advance=shown.append), shown


@pytest.fixture
def report(measured):
    return measured[0]


@MOSQUITTO
def test_every_figure_is_there_and_possible(report):
    assert report.keys() == HEADLINES | {"details"}
    assert all(math.isfinite(report[name]) and report[name] >= 0 for name in HEADLINES)
    json.dumps(report, allow_nan=False)


@MOSQUITTO
def test_each_step_is_told_once(measured):
    assert len(measured[1]) == sync.steps(SMALL)


@MOSQUITTO
def test_an_edge_is_not_faster_than_counting_the_same_bytes(report):
    """If it were, it would not have fetched and verified them."""
    details = report["details"]
    assert details["fanout"]["hanse_edge_cpu_seconds"] > details["fanout"]["bare_edge_cpu_seconds"]
    assert min(details["late_joiner"]["hanse_seconds"]) > min(details["late_joiner"]["bare_seconds"])


@MOSQUITTO
def test_bytes_are_those_of_the_wire(report):
    """Everything has to arrive once at least; of a second release at least the part that is new."""
    assert report["lossy_bytes_ratio"] >= 1
    assert 0.25 <= report["delta_bytes_ratio"] < 0.75
    assert report["broker_memory_ratio"] >= 1


@MOSQUITTO
def test_the_rollback_brings_back_the_first_release_under_a_new_number(report):
    details = report["details"]
    assert details["rollback"]["releases_before"] == [details["swap"]["version"]]
    assert details["rollback"]["version"] > details["swap"]["version"]
    assert len(details["rollback"]["edge_seconds"]) == SMALL.edges
    assert details["rollback"]["seconds"] >= details["rollback"]["command_seconds"]


@MOSQUITTO
def test_no_request_fails_during_a_swap(report):
    swap = report["details"]["swap"]
    assert swap["failed"] == 0
    assert swap["requests"] >= SMALL.load.per_second
    assert swap["swapped_after_seconds"] > 0


@MOSQUITTO
def test_people_see_a_table(report, capsys):
    tables.print_sync(report)
    shown = capsys.readouterr().out
    assert "<= 1.3x" in shown
    assert f"{report['delta_bytes_ratio']:.3f}x" in shown


def test_requests_are_slow_above_twice_the_percentile_and_failed_ones_are_not_slow():
    times = [0.1, 0.2, 0.21, 5.0]
    requests = [Request(at=0.0, seconds=seconds, release=1) for seconds in times]
    failed = Request(at=0.0, seconds=10.0, release=None)
    assert slow([*requests, failed], p99=0.1) == 2


def test_random_releases_share_what_has_the_same_seed(tmp_path):
    first = RandomRelease(seeds={"a": 1, "b": 2}, blocks=1)
    second = RandomRelease(seeds={"a": 1, "b": 3}, blocks=1)
    assert first.pieces()[0] == second.pieces()[0]
    assert first.pieces()[1] != second.pieces()[1]
    assert first.total_bytes == 2 * BLOCK_BYTES
    written = first.write(tmp_path / "release", federation=FederationId("bench"), version=1)
    assert (written / "b" / "model.bin").read_bytes() == first.pieces()[1]


def test_the_command_has_a_quick_look(capsys):
    assert main(["bench", "sync", "--help"]) == 0
    assert "--quick" in capsys.readouterr().out
