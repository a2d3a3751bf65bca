"""Drives the rollout inside `hanse-center serve`: asks, judges, signs, one step at a time, from wherever it stands.

Called between campaigns and between the rounds of one, always from the same thread: questions must not cross.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from center.mqtt.publishing import Publisher
from center.releases import gate
from center.releases.gate import GateFigures
from center.releases.health import Health
from center.releases.orders import Orders
from center.releases.rollout import Due, Rollout, State
from center.releases.rollouts import moving
from center.releases.stages import members
from center.releases.staging import ApprovalNeededError
from center.rounds.figures import HealthFigures
from center.settings import CenterSettings
from protocol.errors import FederationError, TooFewSurvivorsError
from protocol.identity import EdgeId
from protocol.release import Ring

_log = structlog.get_logger(__name__)
_RETRY_SECONDS = 5.0

Rings = Mapping[Ring, tuple[EdgeId, ...]]
Statuses = Mapping[EdgeId, Mapping[str, Any]]


class Questions(Protocol):
    """What asks them: `center.rounds.figures.Figures`."""

    def ask_gate(self, version: int) -> GateFigures: ...

    def ask_health(self, version: int, edges: list[EdgeId], *, attempt: int) -> HealthFigures: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the driver needs from the center around it.

    Attributes:
        rings: who is in which ring now.
        statuses: what the edges say that they hold; it says when to ask, and whether rings too small to be asked
            keep a release.
    """

    orders: Orders
    settings: CenterSettings
    voice: Publisher
    questions: Questions
    rings: Callable[[], Rings]
    statuses: Callable[[], Statuses]
    now_ms: Callable[[], int]


class Rolling:
    """One step each time it is called; nothing of it is kept in memory but when to try again."""

    def __init__(self, around: Around, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._around = around
        self._terms = around.settings.rollout
        self._clock = clock
        self._again_at = 0.0

    def step(self) -> None:
        """Do what is due now, if anything is.

        Raises:
            StoppedError: the center is shutting down.
        """
        if self._clock() < self._again_at:
            return
        try:
            rollout = self._around.orders.rollouts.active()
            if rollout is not None:
                self._do(rollout)
        except (FederationError, OSError) as error:
            self._again_at = self._clock() + _RETRY_SECONDS
            _log.warning("the rollout waits", why=error.line() if isinstance(error, FederationError) else str(error))

    def _do(self, rollout: Rollout) -> None:
        match rollout.due(now_ms=self._around.now_ms(), terms=self._terms):
            case Due.GATE:
                self._move(rollout, self._gated(rollout))
            case Due.SIGN:
                self._sign()
            case Due.HEALTH:
                self._move(rollout, self._judged(rollout))
            case Due.NOTHING:
                pass

    def _sign(self) -> None:
        orders = self._around.orders
        with moving(orders.directory):
            rollout = orders.rollouts.active()  # as it is now: an order may have come first
            if rollout is None or rollout.due(now_ms=self._around.now_ms(), terms=self._terms) is not Due.SIGN:
                return
            try:
                done = orders.carry_out(rollout, self._around.voice)
            except ApprovalNeededError as error:
                _log.warning("the rollout waits for approval", release=rollout.version, why=error.line())
                return
        place = done.reached.place.value if done.reached else ""
        _log.info("signed", release=rollout.version, state=done.state.value, place=place, successor=done.successor)

    def _move(self, was: Rollout, now: Rollout) -> None:
        """Write down where it stands, unless an order has come first; signing comes with the next step."""
        if now == was:
            return
        orders = self._around.orders
        with moving(orders.directory):
            if orders.rollouts.find(was.version) != was:
                return
            orders.rollouts.save(now, was=was)
            if now.state is State.REFUSED:
                orders.withdraw(now, self._around.voice)
        if now.state is not was.state or now.stage != was.stage:
            _log.info("rollout", release=now.version, state=now.state.value, stage=now.stage, why=now.why)

    def _gated(self, rollout: Rollout) -> Rollout:
        now_ms = self._around.now_ms()
        sites = {edge for ring in self._around.rings().values() for edge in ring}
        statuses = self._around.statuses()
        online = {edge for edge in sites if statuses.get(edge, {}).get("online")}
        holders = {edge for edge in online if statuses[edge].get("candidate") == rollout.version}
        needed = min(max(self._around.settings.rounds.min_cohort, (len(sites) + 1) // 2), max(len(sites), 3))
        patient = now_ms < rollout.since_ms + 1000 * self._around.settings.rounds.gather_seconds
        if len(holders) < needed or (patient and holders < online):
            why = f"{len(holders)} of {len(sites)} sites hold the candidate, {needed} are needed"
            return rollout.waited(why, now_ms=now_ms, terms=self._terms)
        try:
            figures = self._around.questions.ask_gate(rollout.version)
        except TooFewSurvivorsError as error:
            return self._unanswered(rollout, error)
        faults = gate.check(figures, self._around.settings.gate)
        return rollout.gated(faults, figures.to_json(), now_ms=self._around.now_ms())

    def _judged(self, rollout: Rollout) -> Rollout:
        now_ms = self._around.now_ms()
        edges = members(rollout.stages, rollout.stage, self._around.rings(), rollout.sha256)
        seen = self._seen(rollout, edges)
        if len(edges) < self._terms.min_ring:
            return rollout.judged(seen, now_ms=now_ms, terms=self._terms)
        if seen.tried < seen.needed(self._terms) and seen.went_back <= self._terms.max_failure_share * seen.sites:
            # Each question costs the sites a round; it is asked when there is something to tell.
            why = f"{seen.tried:.0f} of {seen.sites} sites have tried it, {seen.needed(self._terms)} are needed"
            return rollout.waited(why, now_ms=now_ms, terms=self._terms)
        try:
            told = self._around.questions.ask_health(rollout.version, edges, attempt=rollout.questions + 1)
        except TooFewSurvivorsError as error:
            return self._unanswered(rollout, error)
        health = Health(
            sites=told.sites,
            kept=told.kept,
            went_back=told.went_back,
            answers=told.answers,
            errors=told.errors,
            events=told.events,
            ndcg_new=told.ndcg_new / max(told.events, 1.0),
            ndcg_old=told.ndcg_old / max(told.events, 1.0),
        )
        return rollout.judged(health, now_ms=self._around.now_ms(), terms=self._terms, summed=True)

    def _unanswered(self, rollout: Rollout, error: TooFewSurvivorsError) -> Rollout:
        self._again_at = self._clock() + _RETRY_SECONDS
        return rollout.waited(error.line(), now_ms=self._around.now_ms(), terms=self._terms)

    def _seen(self, rollout: Rollout, edges: list[EdgeId]) -> Health:
        """Who keeps it and who went back, by what each site says that it runs."""
        said = [self._around.statuses().get(edge, {}) for edge in edges]
        kept = sum(status.get("release") == rollout.version and not status.get("trial") for status in said)
        back = sum(status.get("went_back") == rollout.version for status in said)
        return Health(sites=len(edges), kept=kept, went_back=back)
