"""All figures that the query service is held to, in one run."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulation.bench.growth import Advance
from simulation.bench.serving import history, pipeline, recommending, searching, training, writing
from simulation.bench.serving.shop import Shop, Size, open_shop


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        items: of the two shops that recommend; the larger one is weighed and started, too.
        titles: of the shop that is searched.
        users: of each shop, with as many events each as the model reads; so many that an edge cannot remember all.
        past_events: in the store whose history is read.
        graphs: which catalogues the graphs scan.
    """

    items: tuple[int, int] = (10_000, 100_000)
    titles: int = 50_000
    users: int = 2_000
    history: int = 200
    past_events: int = 10_000_000
    graphs: pipeline.Plan = pipeline.FULL
    asking: recommending.Plan = field(default_factory=recommending.Plan)
    searches: searching.Plan = field(default_factory=searching.Plan)
    writes: writing.Plan = field(default_factory=writing.Plan)
    learning: training.Plan = field(default_factory=training.Plan)


FULL = Plan()
QUICK = Plan(
    items=(300, 600),
    titles=500,
    users=20,
    history=20,
    past_events=20_000,
    graphs=pipeline.QUICK,
    asking=recommending.Plan(rounds=1, questions=20, seconds=0.5),
    searches=searching.Plan(rounds=1, questions=20),
    writes=writing.Plan(rounds=1, singles=20, bulks=2, size=50),
    learning=training.Plan(rounds=1, questions=40),
)
"""A look that takes a minute; so small a shop says nothing about a real one."""


def steps(plan: Plan) -> int:
    """How often `run` will call ``advance``."""
    parts = recommending.steps(plan.asking) * len(plan.items) + searching.steps(plan.searches)
    return parts + writing.steps(plan.writes) + training.steps(plan.learning) + 3


def run(plan: Plan, *, advance: Advance) -> dict[str, Any]:
    """Measure everything.

    Args:
        advance: called with what comes next, `steps` times.

    Raises:
        FederationError: an answer was no answer.
    """
    with tempfile.TemporaryDirectory(prefix="hanse-bench-") as folder:
        scratch = Path(folder)
        small, large = (
            open_shop(scratch / f"{items}", Size(items=items, users=plan.users, history=plan.history))
            for items in plan.items
        )
        details = {
            "small": _recommending(small, plan, scratch, advance),
            "large": _weighed(large, plan, scratch, advance),
            "search": _searching(plan, scratch, advance),
        }
        advance("graphs alone")
        details["pipeline"] = pipeline.measure(plan.graphs)
        advance("a store of years")
        details["history"] = history.measure(scratch, events=plan.past_events)
    return _headlines(details) | {"details": details}


def _headlines(details: dict[str, dict[str, Any]]) -> dict[str, float]:
    small, large, search = details["small"], details["large"], details["search"]
    graphs = {name: value for name, value in details["pipeline"].items() if name.startswith("pipeline_")}
    return graphs | {
        "recommend_p50_ratio": small["p50_ratio"],
        "recommend_p50_ratio_100k": large["p50_ratio"],
        "recommend_throughput_ratio": small["throughput_ratio"],
        "recommend_throughput_ratio_100k": large["throughput_ratio"],
        "search_p50_ratio": search["search_p50_ratio"],
        "search_semantic_p50_ratio": search["search_semantic_p50_ratio"],
        "event_single_ratio": large["event_single_ratio"],
        "event_bulk_ratio": large["event_bulk_ratio"],
        "training_p99_ratio": large["training"]["p99_ratio"],
        "rss_mb_100k": large["rss_mb"],
        "start_seconds": large["start_seconds"],
        "history_p50_us": details["history"]["history_p50_us"],
    }


def _recommending(shop: Shop, plan: Plan, scratch: Path, advance: Advance) -> dict[str, Any]:
    with recommending.edge(shop, scratch / "logs") as served:
        recommending.settle(shop)
        return recommending.measure(shop, served, plan.asking, logs=scratch / "logs", advance=advance)


def _weighed(shop: Shop, plan: Plan, scratch: Path, advance: Advance) -> dict[str, Any]:
    """The larger shop: started twice, since its first start also builds its index; then asked, filled and disturbed."""
    logs = scratch / "logs"
    with recommending.edge(shop, logs) as first:
        first_start = first.start_seconds
        recommending.settle(shop)
    with recommending.edge(shop, logs) as served:
        start = served.start_seconds
        recommending.settle(shop)
        found = recommending.measure(shop, served, plan.asking, logs=logs, advance=advance)
        found |= {"start_seconds": start, "first_start_seconds": first_start, "rss_mb": served.resident_mb()}
        found |= writing.measure(shop, plan.writes, scratch=scratch, advance=advance)
        found["training"] = training.measure(shop, plan.learning, advance=advance)
        found["rss_mb_after_all"] = served.resident_mb()
    return found


def _searching(plan: Plan, scratch: Path, advance: Advance) -> dict[str, Any]:
    size = Size(items=plan.titles, users=plan.users, history=plan.history, meaning=True)
    advance("a shop to search")
    shop = open_shop(scratch / "searched", size)
    with recommending.edge(shop, scratch / "logs"):
        recommending.settle(shop)
        return searching.measure(shop, plan.searches, scratch=scratch, advance=advance)
