"""Experiments as they run: who gets which arm of which experiment, now.

At most one experiment answers a request. Experiments of one layer share no unit; of several layers the first experiment
by name that has the unit answers. Where a release that an arm names is not at hand, the control answers everybody and
nobody is counted: an arm that lost some of its units, and not others, would compare nothing.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import structlog

from edge.arranging.scenario import Scenario
from edge.experiments import book, outcomes
from edge.experiments.assignment import arm_of
from edge.experiments.design import SEARCH, Arm, Design
from edge.experiments.design import Unit as UnitKind
from edge.experiments.experiment import Experiment, State
from edge.experiments.exposing import Exposures, Unit
from edge.experiments.releases import Releases
from edge.experiments.reporting import report
from edge.records.batch import visitor
from edge.records.changes import Recorded
from edge.records.people import sessions
from edge.records.store import Store
from edge.serving.degradation import Reason
from edge.serving.query import Answer, Query
from edge.serving.release import Loaded
from protocol.errors import BadInputError, FederationError

_log = structlog.get_logger(__name__)
_LOOK_SECONDS = 1.0
_CLOSE_EVERY = 600


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """The arm under which one request is answered.

    Attributes:
        scenario: the scenario as the arm has it; None: it is none that recommends, such as search.
        loaded: the release to answer from; None: the one that serves.
        stand_in: the control answers, because something that an arm names is not at hand; this exposes nobody.
    """

    experiment: str
    arm: Arm
    unit: Unit
    scenario: Scenario | None = None
    loaded: Loaded | None = None
    stand_in: bool = False

    @property
    def label(self) -> str:
        """As the answer names it."""
        return f"{self.experiment}/{self.arm.name}"

    def under(self, query: Query) -> Query:
        """The same question, as this arm asks it."""
        if self.scenario is None:
            return query
        return replace(query, scenario=self.scenario.name, variant=self.scenario)

    def said(self, answer: Answer) -> Answer:
        """The answer, saying so where the control has stood in."""
        return replace(answer, reasons=(*answer.reasons, Reason.ARM_NOT_HERE)) if self.stand_in else answer


class Experiments:
    """All experiments of one site."""

    def __init__(
        self,
        store: Store,
        releases: Releases,
        *,
        scenarios: Callable[[], Mapping[str, Scenario]],
        draw: Callable[[int], bytes],
        now_ms: Callable[[], int],
    ) -> None:
        """Read what is running.

        Args:
            scenarios: all of this shop, now.
            draw: so many random bytes, for salts.
        """
        self._store = store
        self._releases = releases
        self._scenarios = scenarios
        self._draw = draw
        self._now_ms = now_ms
        self._exposures = Exposures(store)
        self._mark = -1
        self._trouble = ""
        self._running: list[Experiment] = []
        self._made: dict[tuple[str, str, str], tuple[Scenario, Scenario]] = {}
        self.look_again()

    def choose(self, scenario: str, *, user: str | None, session: str | None) -> Choice | None:
        """The arm for a request; None: no experiment has this unit, and the shop answers as always."""
        now_ms = self._now_ms()
        applying = [one for one in self._running if one.applies(scenario) and one.exposes(now_ms)]
        if not applying:
            return None
        person = self._exposures.person(user=user, session=session)
        for experiment in applying:
            choice = self._choice(experiment, scenario, person, session)
            if choice is not None:
                return choice
        return None

    def answered(self, choice: Choice) -> None:
        """An answer was given under this choice: its unit was exposed."""
        if not choice.stand_in:
            self._exposures.note(choice.experiment, choice.arm.name, choice.unit, now_ms=self._now_ms())

    def put(self, name: str, design: Design, *, run: bool) -> Experiment:
        """Set an experiment; see `book.put`. Not in an event loop.

        Raises:
            BadInputError: also when an arm names a scenario that there is not, or its overrides make none.
        """
        known = self._scenarios()
        for arm in design.arms:
            for scenario in {arm.what.scenario} if arm.what.scenario else set(design.scenarios) - {SEARCH}:
                if scenario not in known:
                    raise BadInputError(f"there is no scenario {scenario}", advice="GET /v1/scenarios lists them")
                arm.what.scenario_from(known[scenario])
            arm.what.scenario_from(Scenario(name="any"))
        return book.put(self._store, name, design, run=run, now_ms=self._now_ms(), draw=self._draw)

    def stop(self, name: str) -> Experiment:
        """Expose nobody any more; see `book.stop`. Not in an event loop."""
        return book.stop(self._store, name, now_ms=self._now_ms())

    def remove(self, name: str) -> None:
        """Forget it and all that came of it. Not in an event loop."""
        book.remove(self._store, name)

    def reports(self) -> list[dict[str, Any]]:
        """All experiments with their figures, as of now. Not in an event loop: it reads what every unit did."""
        now_ms = self._now_ms()
        with self._store.reading() as db:
            return [
                {**report(one, outcomes.sums(db, one), now_ms=now_ms), "waits_for": self._missing(one)}
                for one in book.read(db).values()
            ]

    def look_again(self) -> None:
        """Take in what has been changed."""
        mark = self._store.documents_mark()
        if mark != self._mark:
            with self._store.reading() as db:
                known = book.read(db)
            self._running = [one for one in known.values() if one.state_at(self._now_ms()) is State.RUNNING]
            self._mark, self._made = mark, {}

    async def flush(self) -> None:
        """Write what is waiting."""
        await self._exposures.flush()

    async def watch(self) -> None:
        """Write exposures, follow changes, close what is over, until cancelled."""
        try:
            for turn in count():
                await self._told(self._turn(close=turn % _CLOSE_EVERY == 0))
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            await self._told(self.flush())

    def forget(self, db: sqlite3.Connection, events: Sequence[Recorded]) -> None:
        """Somebody is being erased, in this transaction: nothing that waits is written of them any more.

        What was written goes with their key; see `Store.erase`.
        """
        if events:
            self._exposures.forget(_names(db, events[0].user))

    async def _turn(self, *, close: bool) -> None:
        await self.flush()
        self.look_again()
        await self._releases.follow({version for one in self._running for version in one.design.releases})
        if close:
            for name in await asyncio.to_thread(book.close_finished, self._store, now_ms=self._now_ms()):
                _log.info("an experiment is over, its sums are kept", experiment=name)

    async def _told(self, doing: Coroutine[Any, Any, None]) -> None:
        """What the store cannot do now it may do in a second; the same trouble is said once."""
        try:
            await doing
        except FederationError as error:
            if error.line() != self._trouble:
                _log.warning("experiments wait", why=error.line())
            self._trouble = error.line()
        else:
            self._trouble = ""

    def _choice(self, experiment: Experiment, scenario: str, person: str | None, session: str | None) -> Choice | None:
        visits = experiment.design.unit is UnitKind.SESSION
        if person is None or (visits and session is None):
            return None
        unit = Unit(person=person, session=session or "" if visits else "")
        kept = None if visits else self._exposures.arm(experiment.name, person)
        arm = experiment.arms.get(kept) if kept else arm_of(experiment, unit.text)
        if arm is None:
            return None
        missing = bool(self._missing(experiment))
        arm = experiment.control if missing else arm
        return Choice(
            experiment=experiment.name,
            arm=arm,
            unit=unit,
            scenario=self._scenario(experiment, arm, scenario),
            loaded=None if arm.what.release is None else self._releases.at_hand(arm.what.release),
            stand_in=missing,
        )

    def _scenario(self, experiment: Experiment, arm: Arm, asked: str) -> Scenario | None:
        """The scenario as an arm has it; made once."""
        base = self._scenarios().get(arm.what.scenario or asked)
        if base is None:
            return None
        key = experiment.name, arm.name, base.name
        made = self._made.get(key)
        if made is None or made[0] is not base:
            made = self._made[key] = base, arm.what.scenario_from(base)
        return made[1]

    def _missing(self, experiment: Experiment) -> list[str]:
        """What its arms name and is not here, for people."""
        known = self._scenarios()
        named = {arm.what.scenario for arm in experiment.design.arms if arm.what.scenario is not None}
        releases = (version for version in experiment.design.releases if self._releases.at_hand(version) is None)
        return [f"release {version}" for version in sorted(releases)] + [
            f"scenario {name}" for name in sorted(named - set(known))
        ]


def _names(db: sqlite3.Connection, key: int) -> set[str]:
    """A person's own name, and that of every visitor they have been."""
    (name,) = db.execute("SELECT name FROM users WHERE id = ?", (key,)).fetchone()
    return {name, *(visitor(session) for session in sessions(db, key))}
