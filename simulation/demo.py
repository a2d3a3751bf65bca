"""`hanse-sim demo`: the whole road once, by the commands a user would type, and what it came to in figures."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from center.settings import ModelSettings
from protocol.errors import FederationError
from simulation import comparison, datasets, rollouts, serving, tour
from simulation.datasets import Dataset, SiteData
from simulation.federation import Federation, Site, wait_for_fusion
from simulation.quality import Quality

_FEDERATION = "hanse-demo"
_ROUND_SECONDS = 900
_FEWEST_FOR_DEFAULT_POLICY = 5
_CANARIES = 3
_TRIAL_SECONDS = 8.0
_BAKE_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do.

    Attributes:
        directory: emptied first.
        fraction: share of the households; below 1 for quick looks.
        embedded_broker: the embedded one even where Mosquitto is installed.
    """

    sites: int
    rounds: int
    directory: Path
    fraction: float = 1.0
    embedded_broker: bool = False
    model: ModelSettings = field(default_factory=ModelSettings)


def run(plan: Plan, *, console: Console) -> dict[str, Any]:
    """Walk through the house; returns the report.

    Raises:
        FederationError: a step failed; its process's own words are in the message.
    """
    step = _Steps(console)
    with step("reading Complete Journey"):
        data = datasets.complete_journey(plan.sites, fraction=plan.fraction)
    with Federation.fresh(plan.directory, federation=_FEDERATION) as federation:
        sites = _bring_up(federation, data, plan, step)
        rounds = _train(federation, plan, step)
        release, sync = _release(federation, sites, step)
        with step.counted("asking the edges", sum(len(site.test) for site in data.sites)) as advance:
            served = [serving.ask(site, part, advance=advance) for site, part in zip(sites, data.sites, strict=True)]
        with step("an event changes the next answer"):
            serving.check_event_changes_answer(sites[0], data.sites[0])
        with step("every operation of the API, on one edge"):
            toured = tour.walk(sites[0], data.sites[0])
        first = sites[0]
        measured = serving.measure(
            first,
            federation.children[first.name],
            start_seconds=federation.start_seconds[first.name],
            served=served,
        )
        with step("a bad release: the canaries go back, the center reverts") as say:
            drill = rollouts.drill(federation, sites, canaries=_canaries(sites), good=release["version"], say=say.tell)
    parts: dict[str, Any] = {"rounds": rounds, "release": release, "sync": sync, "drill": drill}
    return _report(plan, data, **parts, served=served, measured=measured | {"tour": toured}, step=step)


def _bring_up(federation: Federation, data: Dataset, plan: Plan, step: "_Steps") -> list[Site]:
    cohort = min(plan.sites, _FEWEST_FOR_DEFAULT_POLICY)
    with step("starting broker, SuperLink, gateway and center"):
        federation.found(
            settings={
                "rounds": {"min_cohort": cohort, "deadline_seconds": _ROUND_SECONDS},
                "model": plan.model.model_dump(),
                "rollout": {"bake_seconds": _BAKE_SECONDS},
            },
            embedded_broker=plan.embedded_broker,
        )
    with step.counted("sites join", plan.sites) as advance:
        sites = []
        for part in data.sites:
            trial = {"trial": {"seconds": _TRIAL_SECONDS}}
            sites.append(federation.join(part.name, min_cohort=cohort, settings=trial))
            advance(1)
    with step("signing the roster, publishing the catalogue"):
        federation.command("hanse-center", "admit")
        federation.command("hanse-center", "rings", "--canary", ",".join(_canaries(sites)))
        catalogue = data.write_catalogue(federation.directory)
        federation.command("hanse-center", "catalogue", str(catalogue))
    with step.counted("sites import their items and baskets", plan.sites) as advance:
        for site, part in zip(sites, data.sites, strict=True):
            _import(federation, data, site, part)
            advance(1)
    with step.counted("starting the edges", plan.sites) as advance:
        for site in sites:
            federation.serve(site)
            advance(1)
    return sites


def _canaries(sites: Sequence[Site]) -> list[str]:
    return [site.name for site in sites[:_CANARIES]]


def _import(federation: Federation, data: Dataset, site: Site, part: SiteData) -> None:
    events, items = data.write_site(part, federation.directory / "export" / site.name)
    federation.command("hanse-edge", "import", "items", str(items), "--json", at=site.directory)
    federation.command("hanse-edge", "import", "events", str(events), "--json", at=site.directory)


def _train(federation: Federation, plan: Plan, step: "_Steps") -> list[dict[str, Any]]:
    federation.command("hanse-center", "train", "--rounds", str(plan.rounds))
    with step.counted("rounds", plan.rounds + 1) as advance:
        seen = 0
        while True:
            campaign = federation.status()["campaign"]
            summed = [row for row in campaign["rounds"] if row["outcome"] == "summed"]
            advance(len(summed) - seen)
            seen = len(summed)
            if campaign["state"] == "finished":
                return [row for row in summed if row["purpose"] == "train"]
            if campaign["state"] == "failed":
                raise FederationError(f"the campaign failed: {campaign['why']}")
            for child in federation.children.values():
                child.check()
            time.sleep(1.0)


def _release(federation: Federation, sites: Sequence[Site], step: "_Steps") -> tuple[dict[str, Any], dict[str, Any]]:
    with step("a release: gate at every site, canaries first, then everybody") as say:
        release = rollouts.promote(federation, sites, say=say.tell)
    sync = {"edges": len(sites), "bytes": release["bytes"], "seconds": release["last_stage_seconds"]}
    with step("every edge fits its fusion on its own newest baskets"):
        children = list(federation.children.values())
        wait_for_fusion(sites, release["sha256"], seconds=300, children=children)
    return release, sync


def _report(
    plan: Plan,
    data: Dataset,
    *,
    rounds: list[dict[str, Any]],
    release: dict[str, Any],
    sync: dict[str, Any],
    drill: dict[str, Any],
    served: Sequence[serving.Served],
    measured: dict[str, Any],
    step: "_Steps",
) -> dict[str, Any]:
    budget = comparison.Budget(rounds=plan.rounds, fraction=plan.fraction, model=plan.model)
    total = comparison.steps(plan.sites, plan.rounds)
    with step.counted("for comparison: every site alone, all data in one place", total) as advance:
        compared = comparison.compare(
            data,
            campaign=plan.directory / "center" / "campaigns" / str(release["campaign"]),
            edges=plan.directory / "sites",
            scratch=plan.directory / "comparison",
            budget=budget,
            advance=advance,
        )
    compared.quality["served"] = [answers.quality for answers in served]
    for row in rounds:  # one that took a step back has the weights of the step before, less of it
        row["ndcg@10"] = compared.ndcg_by_round[max(int(row["step"]) - 1, 0)]
    return {
        "dataset": data.name,
        "sites": plan.sites,
        "rounds": [
            {
                "round": number,
                "seconds": round(row["seconds"], 3),
                "train_loss": row["loss"],
                "validation_ndcg@10": row["ndcg"],
                "upload_bytes": int(row["upload_bytes"]),
                "ndcg@10": row["ndcg@10"],
            }
            for number, row in enumerate(rounds, start=1)
        ],
        "quality": {voice: Quality.over(parts).to_json() for voice, parts in compared.quality.items()},
        "sites_detail": [
            {"site": part.name, **{voice: parts[index].to_json() for voice, parts in compared.quality.items()}}
            for index, part in enumerate(data.sites)
        ],
        "release": release,
        "sync": sync,
        "drill": drill,
        "serving": measured,
    }


class _Steps:
    """Says what is going on; everything longer than two seconds has a bar or a moving sign."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, what: str) -> "_Step":
        return _Step(self._console, what, total=None)

    def counted(self, what: str, total: int) -> "_Step":
        return _Step(self._console, what, total=total)


class _Step:
    def __init__(self, console: Console, what: str, *, total: int | None) -> None:
        self._console = console
        self._what = what
        self._total = total
        columns = [SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
        if total is not None:
            columns += [BarColumn(), MofNCompleteColumn()]
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._progress.start()
        self._task = self._progress.add_task(self._what, total=self._total)
        return self

    def __call__(self, steps: int) -> None:
        self._progress.advance(self._task, steps)

    def tell(self, what: str) -> None:
        """Where it stands, while it runs."""
        self._progress.update(self._task, description=f"{self._what}: {what}")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._progress.stop()
        if kind is None:
            self._console.print(f"{time.monotonic() - self._began:7.1f} s  {self._what}")
