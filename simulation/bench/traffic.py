"""What a release costs one edge in bytes: over a road that loses messages, and when most of it is there already.

Counted on the wire, by a proxy before the real broker: whole PUBLISH packets that are sent to the edge.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.releases.renewal import PAIR
from simulation.bench.fleet import Fleet, Follower, Turn
from simulation.bench.growth import Advance
from simulation.bench.random_release import RandomRelease
from simulation.federation import Site
from simulation.lossy_broker import Faults, LossyBroker, Papers

_EVERYTHING = ""


def lossy(fleet: Fleet, release: RandomRelease, *, share: float, repetitions: int, advance: Advance) -> dict[str, Any]:
    """A fresh edge behind a broker that loses this share of all its messages, with other luck each time.

    Returns:
        bytes that reached the edge, messages that were lost, and wall seconds, each by turn; and the largest of those
        bytes in sizes of the release.
    """
    rows = []
    follower = fleet.followers[0]
    advance(f"{share:.0%} of messages lost")
    with fleet.turn() as turn:
        with turn.center() as voice:
            turn.publish(voice, release.write(turn.folder / "release", federation=fleet.name, version=1))
        for number in range(repetitions):
            with _before(turn, follower.site, drop=share, seed=number) as proxy:
                came = _fetch(follower, turn.folder / f"edge-{number}", proxy)
            rows.append(
                {
                    "bytes": proxy.traffic.payloads,
                    "lost": proxy.traffic.messages.get("dropped", 0),
                    "seconds": came["finished"] - came["began"],
                }
            )
    return {
        "share": share,
        "release_bytes": release.total_bytes,
        "turns": rows,
        "ratio": max(row["bytes"] for row in rows) / release.total_bytes,
    }


def delta(fleet: Fleet, releases: tuple[RandomRelease, RandomRelease], *, advance: Advance) -> dict[str, Any]:
    """A second release to an edge that holds the first.

    Returns:
        bytes that reached the edge for the second, metadata and all, also in sizes of the release.
    """
    advance("a release that is mostly unchanged")
    follower = fleet.followers[0]
    held: list[Path] = []
    with fleet.turn() as turn:
        for version, release in enumerate(releases, start=1):
            folder = turn.folder / f"release-{version}"
            with turn.center() as voice:
                turn.publish(voice, release.write(folder, federation=fleet.name, version=version))
            with _before(turn, follower.site) as proxy:
                came = _fetch(follower, turn.folder / "edge", proxy, held=held)
            # Out of the way, as an installed release lies in a slot.
            held = [Path(came["directory"]).rename(turn.folder / f"installed-{version}")]
    arrived, size = proxy.traffic.payloads, releases[1].total_bytes
    return {"release_bytes": size, "bytes": arrived, "ratio": arrived / size}


def _fetch(follower: Follower, folder: Path, proxy: LossyBroker, *, held: Sequence[Path] = ()) -> Mapping[str, Any]:
    folder.mkdir(exist_ok=True)
    follower.order("follow", folder=str(folder), port=proxy.port, known=[str(place) for place in held])
    return follower.answer()


def _before(turn: Turn, site: Site, *, drop: float = 0.0, seed: int = 0) -> LossyBroker:
    plan, pair = turn.broker.plan, site.directory / PAIR
    return LossyBroker(
        (plan.host, plan.port),
        authority=plan.authority,
        own=Papers(certificate=plan.certificate, key=plan.key),
        papers_of=lambda _name: Papers(certificate=pair, key=pair),
        faults=Faults(about=_EVERYTHING, drop=drop),
        seed=seed,
    )
