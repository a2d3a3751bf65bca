"""What a release costs one edge in bytes: over a road that loses messages, and when most of it is there already.

Counted on the wire, by a proxy before the real broker: payloads of PUBLISH packets that reach the edge.
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edge.connection import BrokerAccess
from simulation.bench.fleet import Fleet, Follower, Turn
from simulation.bench.growth import Advance
from simulation.bench.random_release import RandomRelease
from simulation.federation import Site
from simulation.lossy_broker import Fate, LossyBroker


def lossy(fleet: Fleet, release: RandomRelease, *, share: float, repetitions: int, advance: Advance) -> dict[str, Any]:
    """A fresh edge behind a broker that loses this share of its messages, with other luck each time.

    Returns:
        payload bytes of blocks, and of everything, that reached the edge, messages that were lost, wall seconds, each
        by turn; and the largest sum of all bytes in sizes of the release.
    """
    rows = []
    follower = fleet.followers[0]
    advance(f"{share:.0%} of messages lost")
    with fleet.turn() as turn:
        with turn.center() as voice:
            turn.publish(voice, release.write(turn.folder / "release", federation=fleet.name, version=1))
        for number in range(repetitions):
            with _before(turn, follower.site, fate=_bad_luck(share, seed=number)) as proxy:
                came = _fetch(follower, turn.folder / f"edge-{number}", proxy)
            rows.append(
                {
                    "block_bytes": _block_bytes(proxy, turn),
                    "bytes": sum(proxy.traffic.delivered.values()),
                    "lost": proxy.traffic.lost_messages,
                    "seconds": came["finished"] - came["began"],
                }
            )
    return {"share": share, "release_bytes": release.total_bytes, "turns": rows} | {
        "ratio": max(row["bytes"] for row in rows) / release.total_bytes
    }


def delta(fleet: Fleet, releases: tuple[RandomRelease, RandomRelease], *, advance: Advance) -> dict[str, Any]:
    """A second release to an edge that holds the first.

    Returns:
        payload bytes of blocks, and of everything, that reached the edge for the second; all in sizes of the release.
    """
    advance("a release that is mostly unchanged")
    follower = fleet.followers[0]
    with fleet.turn() as turn:
        directories: list[Path] = []
        for version, release in enumerate(releases, start=1):
            folder = turn.folder / f"release-{version}"
            with turn.center() as voice:
                turn.publish(voice, release.write(folder, federation=fleet.name, version=version))
            with _before(turn, follower.site, fate=lambda *_: 1) as proxy:
                came = _fetch(follower, turn.folder / "edge", proxy, known=directories)
            # Out of the way, as an installed release lies in a slot.
            directories = [Path(came["directory"]).rename(turn.folder / f"installed-{version}")]
        return {
            "release_bytes": releases[1].total_bytes,
            "block_bytes": _block_bytes(proxy, turn),
            "bytes": sum(proxy.traffic.delivered.values()),
            "ratio": sum(proxy.traffic.delivered.values()) / releases[1].total_bytes,
        }


def _bad_luck(share: float, *, seed: int) -> Fate:
    rng = np.random.default_rng(seed)
    return lambda _topic, _payload: int(rng.random() >= share)


def _fetch(
    follower: Follower, folder: Path, proxy: LossyBroker, *, known: list[Path] | None = None
) -> Mapping[str, Any]:
    folder.mkdir(exist_ok=True)
    follower.order("follow", folder=str(folder), port=proxy.port, known=[str(place) for place in known or ()])
    return follower.answer()


def _block_bytes(proxy: LossyBroker, turn: Turn) -> int:
    blocks = turn.topics.block("")
    return sum(length for topic, length in proxy.traffic.delivered.items() if topic.startswith(blocks))


@contextmanager
def _before(turn: Turn, site: Site, *, fate: Fate) -> Iterator[LossyBroker]:
    plan = turn.broker.plan
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(plan.certificate, plan.key)
    access = BrokerAccess(
        host=plan.host,
        port=plan.port,
        authority=plan.authority,
        certificate=site.directory / "keys" / "tls.crt",
        key=site.directory / "keys" / "tls.key",
    )
    proxy = LossyBroker((plan.host, plan.port), server_tls=server, client_tls=access.tls(), fate=fate)
    with proxy.running():
        yield proxy
