"""`hanse-sim bench sync`: the figures that the road of releases is held to, all measured in one run."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulation.bench import fanout, fleet, late_joiner, rollback, swapping, traffic
from simulation.bench.fleet import Fleet
from simulation.bench.growth import Advance
from simulation.bench.random_release import RandomRelease
from simulation.bench.shops import Shops
from simulation.federation import Federation

_SUBMODELS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        blocks: of each of the four submodels of the release, 256 KiB each.
        repetitions: of the fan-out, of each side.
        joiners: late ones, of each side.
        lossy_repetitions: each with other luck.
        lost: share of the messages.
        items: of the catalogue of the edges that serve.
        load: under which an edge swaps.
    """

    edges: int = 20
    blocks: int = 20
    repetitions: int = 5
    joiners: int = 15
    lossy_repetitions: int = 5
    lost: float = 0.05
    items: int = 10_000
    load: swapping.Plan = field(default_factory=swapping.Plan)


FULL = Size()
QUICK = Size(
    edges=3,
    blocks=3,
    repetitions=1,
    joiners=3,
    lossy_repetitions=1,
    items=500,
    load=swapping.Plan(clients=2, per_second=20.0, seconds=5.0),
)
"""A look that takes a minute or two; with so few edges and bytes its ratios say little."""


def run(size: Size, *, advance: Advance) -> dict[str, Any]:
    """Measure everything.

    Args:
        advance: called with what comes next, `steps` times.

    Raises:
        FederationError: a part of the system did not do what it must.
    """
    advance(f"{size.edges} sites join a federation")
    with (
        tempfile.TemporaryDirectory(prefix="hanse-bench-") as folder,
        fleet.joined(size.edges, directory=Path(folder) / "federation") as federation,
    ):
        details = _on_the_road(federation, size, advance) | _serving(federation, size, advance)
    return {
        "fanout_ratio": details["fanout"]["ratio"],
        "late_joiner_ratio": details["late_joiner"]["ratio"],
        "lossy_bytes_ratio": details["lossy"]["ratio"],
        "delta_bytes_ratio": details["delta"]["ratio"],
        "rollback_seconds": details["rollback"]["seconds"],
        "swap_failed_requests": details["swap"]["failed_or_slow"],
        "broker_memory_ratio": details["fanout"]["broker_memory_ratio"],
        "details": details,
    }


def steps(size: Size) -> int:
    """How often `run` will call ``advance``."""
    return fanout.steps(size.repetitions) + 8


def _on_the_road(federation: Federation, size: Size, advance: Advance) -> dict[str, Any]:
    first = RandomRelease(seeds={f"part-{number}": number for number in range(_SUBMODELS)}, blocks=size.blocks)
    # Another content of the last submodel, and of that alone.
    second = RandomRelease(seeds={**first.seeds, f"part-{_SUBMODELS - 1}": _SUBMODELS}, blocks=size.blocks)
    with Fleet.of(federation) as ships:
        return {
            "fanout": fanout.measure(ships, first, repetitions=size.repetitions, advance=advance),
            "late_joiner": late_joiner.measure(ships, first, repetitions=size.joiners, advance=advance),
            "lossy": traffic.lossy(ships, first, share=size.lost, repetitions=size.lossy_repetitions, advance=advance),
            "delta": traffic.delta(ships, (first, second), advance=advance),
        }


def _serving(federation: Federation, size: Size, advance: Advance) -> dict[str, Any]:
    advance(f"{size.edges} edges serve a first release")
    shops = Shops.open(federation, items=size.items, campaigns=2)
    sites, (first, second) = federation.sites, shops.campaigns
    shops.serve(sites)
    shops.settle(sites, shops.release(first))
    shops.stop(sites[1:])  # on one machine the other edges' work would be measured too
    swap = swapping.measure(shops, sites[0], second, size.load, advance=advance)
    advance("all edges serve a second one")
    shops.serve(sites[1:])
    shops.settle(sites, swap["version"])
    return {"swap": swap, "rollback": rollback.measure(shops, sites, advance=advance)}
