"""An edge that comes when the center is down and reads all from retained messages, against a bare paho read of them."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from protocol.blocks import OVERHEAD_BYTES
from simulation.bench.fleet import Fleet, Follower
from simulation.bench.growth import Advance
from simulation.bench.random_release import RandomRelease


def measure(fleet: Fleet, release: RandomRelease, *, repetitions: int, advance: Advance) -> dict[str, Any]:
    """Both in turns and by the same process, after one turn of each that does not count.

    Returns:
        wall seconds from the start of connecting until the directory is verified and complete (the bare side: until all
        bytes of the same retained blocks are counted), of each turn, and the ratio of their medians.
    """
    seconds: dict[str, list[float]] = {"hanse": [], "bare": []}
    advance("late joiner, center down")
    with fleet.turn() as turn:
        directory = release.write(turn.folder / "release", federation=fleet.name, version=1)
        with turn.center() as voice:
            manifest = turn.publish(voice, directory)
        blocks = [block for entry in manifest.files.values() for block in entry.blocks]
        topics = [turn.topics.block(block) for block in blocks]
        arriving = manifest.total_bytes + len(blocks) * OVERHEAD_BYTES
        follower = fleet.followers[0]
        for number in range(repetitions + 1):
            ours = _ours(follower, turn.folder / f"edge-{number}")
            bare = _bare(follower, topics, arriving)
            if number:
                seconds["hanse"].append(ours)
                seconds["bare"].append(bare)
    return {
        "bytes": release.total_bytes,
        "hanse_seconds": seconds["hanse"],
        "bare_seconds": seconds["bare"],
        "ratio": median(seconds["hanse"]) / median(seconds["bare"]),
    }


def _ours(follower: Follower, folder: Path) -> float:
    folder.mkdir()
    follower.order("follow", folder=str(folder))
    came = follower.answer()
    return float(came["finished"] - came["began"])


def _bare(follower: Follower, topics: Sequence[str], arriving: int) -> float:
    follower.order("count", topics=list(topics), bytes=arriving)
    follower.answer()
    came = follower.answer()
    return float(came["finished"] - came["began"])
