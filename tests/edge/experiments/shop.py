"""A shop with experiments, as its tests drive it: events, answers under an arm, figures."""

import asyncio
import hashlib
import itertools
from dataclasses import dataclass, field

from edge.experiments.design import Arm, Design, Kind, Metric, What
from edge.experiments.releases import Releases
from edge.experiments.running import Experiments
from edge.records.events import Event, EventType

NOW = 1_795_000_000_000
DAY = 86_400_000
SOLD = Metric(name="sold", kind=Kind.CONVERSION, days=7)


def design(control=0.5, other=0.5, *, what=None, **others):
    arms = (Arm(name="control", share=control), Arm(name="new", share=other, what=what or What()))
    return Design(**{"arms": arms, "metrics": (SOLD,), **others})


@dataclass
class Trade:
    """One site, its clock, and what happens in it."""

    service: object
    installed: dict = field(default_factory=dict)
    now_ms: int = NOW

    def __post_init__(self):
        self.store = self.service.store
        self.numbers = itertools.count(1)
        self.releases = Releases(self.service, self.installed.get)
        self.open()

    def open(self):
        """As after a restart: nothing but the store is known."""
        self.experiments = Experiments(
            self.store,
            self.releases,
            scenarios=self.service.arranging.scenarios.known,
            draw=lambda size: hashlib.sha256(str(next(self.numbers)).encode()).digest()[:size],
            now_ms=lambda: self.now_ms,
        )
        return self

    def begin(self, name="taste", *, run=True, **parts):
        self.experiments.put(name, parts.pop("design", None) or design(**parts), run=run)
        self.experiments.look_again()

    def visit(self, user=None, session=None, scenario="home"):
        """One answer; returns its label."""
        choice = self.experiments.choose(scenario, user=user, session=session)
        if choice is None:
            return None
        self.experiments.answered(choice)
        return choice.label

    def happens(self, type, user=None, *, item="i1", session=None, quantity=1.0, at=None):  # noqa: A002
        event = Event(
            event_id=f"e{next(self.numbers)}",
            type=EventType(type),
            user=user,
            session=session,
            item=item,
            time_ms=self.now_ms if at is None else at,
            quantity=quantity,
        )
        self.store.add_events([event])

    def flush(self):
        asyncio.run(self.experiments.flush())

    def report(self, name="taste"):
        self.flush()
        return next(one for one in self.experiments.reports() if one["name"] == name)

    def figures(self, metric="sold", name="taste"):
        """Mean and units by arm."""
        found = {}
        for arm in self.report(name)["arms"]:
            (one,) = (one for one in arm["metrics"] if one["name"] == metric)
            found[arm["name"]] = (one["mean"], arm["units"])
        return found
