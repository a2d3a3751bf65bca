"""A federation of real edges that serve, and real releases for it, of weights that nothing was trained for."""

import json
import socket
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from center import durable
from center import settings as center_settings
from center.registry import Registry
from center.releases.export import SUBMODEL
from center.releases.rollout import State
from center.releases.rollouts import Rollouts, moving
from center.rounds import averaging
from center.rounds.campaign import Folder
from center.rounds.learning import School
from simulation.federation import Federation, Site
from simulation.processes import wait_until

_SECONDS = 120.0
_TRIAL_SECONDS = 2
_CATEGORIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Shops:
    """Sites that have joined; their edges are started when they are needed.

    Attributes:
        items: of the shared catalogue.
        campaigns: whose weights can be released, each once.
    """

    federation: Federation
    items: int
    campaigns: Sequence[str]

    @classmethod
    def open(cls, federation: Federation, *, items: int, campaigns: int) -> Self:
        """Give a federation that is stopped a catalogue and weights, and start broker and center.

        Raises:
            FederationError: a step failed.
        """
        for site in federation.sites:
            with (site.directory / "edge.toml").open("a", encoding="utf-8") as file:
                file.write(f"\n[trial]\nseconds = {_TRIAL_SECONDS}\n")
        catalogue = federation.directory / "catalogue.jsonl"
        lines = ({"item": f"item-{n}", "title": f"thing {n}", "category": f"{n % _CATEGORIES}"} for n in range(items))
        catalogue.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        broker = federation.start("broker", "hanse-center", "broker")
        wait_until(lambda: _listens(federation), what="the start of the broker", seconds=_SECONDS, children=[broker])
        federation.command("hanse-center", "catalogue", str(catalogue))
        names = [f"untrained-{number}" for number in range(1, campaigns + 1)]
        _add_campaigns(federation.center, names)  # before the center runs, which would begin to train
        federation.start("center", "hanse-center", "serve")
        federation.wait_for_center()
        return cls(federation=federation, items=items, campaigns=names)

    def histories(self, count: int, *, length: int) -> list[list[str]]:
        """What customers bought, drawn at random."""
        drawn = np.random.default_rng(0).integers(0, self.items, (count, length))
        return [[f"item-{number}" for number in row] for row in drawn]

    def serve(self, sites: Sequence[Site]) -> None:
        """Start edges, and wait until they answer."""
        for site in sites:
            self.federation.serve(site)

    def stop(self, sites: Sequence[Site]) -> None:
        """End edges."""
        for site in sites:
            self.federation.children.pop(site.name).stop()

    def release(self, campaign: str) -> int:
        """`hanse-center release`, without a gate: there is nothing to measure it by; its version."""
        said = self.federation.command(
            "hanse-center", "release", "--campaign", campaign, "--waive-gate", "a benchmark", "--json"
        )
        return int(json.loads(said)["version"])

    def settle(self, sites: Sequence[Site], version: int) -> None:
        """Wait until these serve a release and have committed it, and call its rollout finished."""
        children = list(self.federation.children.values())

        def settled() -> bool:
            said = {edge["edge"]: edge for edge in self._statuses()}
            return all(
                said.get(site.name, {}).get("release") == version and not said[site.name].get("trial") for site in sites
            )

        wait_until(settled, what=f"release {version} at {len(sites)} sites", seconds=_SECONDS, children=children)
        with closing(Registry(self.federation.center / "registry.db")) as registry, moving(self.federation.center):
            rollouts = Rollouts(registry)
            was = rollouts.active()
            if was is not None:
                rollouts.save(replace(was, state=State.FINISHED), was=was)

    def _statuses(self) -> list[dict[str, object]]:
        with closing(Registry(self.federation.center / "registry.db")) as registry:
            return [{**status, "edge": edge} for edge, status in registry.statuses().items()]


def _listens(federation: Federation) -> bool:
    at = center_settings.load(federation.center).broker
    try:
        socket.create_connection((at.host, at.port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _add_campaigns(center: Path, names: Sequence[str]) -> None:
    """Campaigns that have ended without a round: first weights, other ones for each."""
    settings = center_settings.load(center)
    with closing(Registry(center / "registry.db")) as registry:
        school = School.open(center, settings.model, registry=registry)
        counts = np.random.default_rng(0).pareto(1.0, school.items + 1)
        for name in names:
            now_ms = time.time_ns() // 1_000_000
            registry.ask_campaign(name, submodel=SUBMODEL, rounds=1, now_ms=now_ms)
            registry.set_campaign(name, state="finished")
            weights = school.initial_weights(counts, campaign=registry.campaign_number(name))
            folder = Folder(path=center / "campaigns" / name)
            durable.write(folder.state, averaging.ServerState.begin(weights).to_bytes())
            np.save(folder.popularity(school.catalogue_version), counts)
