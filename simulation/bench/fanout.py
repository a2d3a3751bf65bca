"""A release to all edges at once against a bare paho fan-out of the same bytes; and what the broker needs for it."""

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from simulation.bench import bare, memory
from simulation.bench.fleet import Fleet, Follower, Turn
from simulation.bench.growth import Advance
from simulation.bench.random_release import RandomRelease


def measure(fleet: Fleet, release: RandomRelease, *, repetitions: int, advance: Advance) -> dict[str, Any]:
    """Both in turns, after one turn of each that does not count.

    Returns:
        wall seconds from the command to publish until the last edge has a verified, complete directory (the bare side:
        until the last subscriber has counted all bytes), of each turn; the ratio of their medians; processor
        time of one edge; and growth of the broker's resident memory meanwhile, from idle with all connected, in sizes
        of the release.
    """
    sides = {"hanse": _ours, "bare": _bare}
    rows: dict[str, list[Mapping[str, float]]] = {name: [] for name in sides}
    for number in range(repetitions + 1):
        for name, side in sides.items():
            advance(f"fan-out, {name}, {number} of {repetitions}")
            with fleet.turn() as turn:
                row = side(fleet, turn, release)
            if number:
                rows[name].append(row)
    seconds = {name: [row["seconds"] for row in rows[name]] for name in sides}
    grown = {name: [row["broker_bytes"] / release.total_bytes for row in rows[name]] for name in sides}
    return {
        "edges": len(fleet.followers),
        "bytes": release.total_bytes,
        "hanse_seconds": seconds["hanse"],
        "published_seconds": [row["published_seconds"] for row in rows["hanse"]],
        "bare_seconds": seconds["bare"],
        "hanse_edge_cpu_seconds": median(row["edge_cpu_seconds"] for row in rows["hanse"]),
        "bare_edge_cpu_seconds": median(row["edge_cpu_seconds"] for row in rows["bare"]),
        "ratio": median(seconds["hanse"]) / median(seconds["bare"]),
        "hanse_broker_memory": grown["hanse"],
        "bare_broker_memory": grown["bare"],
        "broker_memory_ratio": median(grown["hanse"]),
    }


def steps(repetitions: int) -> int:
    """How often `measure` will call ``advance``."""
    return 2 * (repetitions + 1)


def _ours(fleet: Fleet, turn: Turn, release: RandomRelease) -> dict[str, float]:
    directory = release.write(turn.folder / "release", federation=fleet.name, version=1)
    for follower in fleet.followers:
        folder = turn.folder / follower.site.name
        folder.mkdir()
        follower.order("follow", folder=str(folder))
    _listen(fleet.followers)
    with turn.center() as voice:
        idle = memory.idle(turn.broker.pid)
        began = time.monotonic()
        turn.publish(voice, directory)
        published = time.monotonic()
        came = [follower.answer() for follower in fleet.followers]
        return {
            "seconds": _last(came) - began,
            "published_seconds": published - began,
            "edge_cpu_seconds": _processor(came),
            "broker_bytes": memory.peak(turn.broker.pid) - idle,
        }


def _bare(fleet: Fleet, turn: Turn, release: RandomRelease) -> dict[str, float]:
    messages = bare.topics_for(release.pieces(), turn.topics)
    with bare.BarePublisher.connected(turn.access) as publisher:
        for follower in fleet.followers:
            follower.order("count", topics=list(messages), bytes=release.total_bytes)
        _listen(fleet.followers)
        idle = memory.idle(turn.broker.pid)
        began = time.monotonic()
        publisher.publish(messages)
        came = [follower.answer() for follower in fleet.followers]
        return {
            "seconds": _last(came) - began,
            "edge_cpu_seconds": _processor(came),
            "broker_bytes": memory.peak(turn.broker.pid) - idle,
        }


def _listen(followers: Sequence[Follower]) -> None:
    for follower in followers:
        follower.answer()


def _last(came: Sequence[Mapping[str, float]]) -> float:
    return max(one["finished"] for one in came)


def _processor(came: Sequence[Mapping[str, float]]) -> float:
    return sum(one["cpu"] for one in came) / len(came)
