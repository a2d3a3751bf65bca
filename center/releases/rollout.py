"""A release's way through the rings: a state machine that knows neither clock, disk nor broker (SPEC 9.16).

    gating ──holds──▶ running: canary ─▶ early ─▶ all, growing ──▶ finished
       │                │     ▲  └──▶ waiting_for_approval
       ▼                ▼     └─────▶ paused
    refused          reverted, aborted

Each step says what is to be signed before it is signed: what `due` still names after a crash is done then.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from center.releases.health import Health
from center.releases.stages import Stage
from center.settings import RolloutSettings
from protocol.errors import BadInputError
from protocol.release import WHOLE_QUEUE, Place

_HOUR_MS = 3_600_000


class State(StrEnum):
    """How a rollout stands."""

    GATING = "gating"
    RUNNING = "running"
    WAITING = "waiting_for_approval"
    PAUSED = "paused"
    FINISHED = "finished"
    REVERTED = "reverted"
    ABORTED = "aborted"
    REFUSED = "refused"


GOING_BACK = frozenset({State.REVERTED, State.ABORTED})
OVER = frozenset({State.FINISHED, State.REVERTED, State.ABORTED, State.REFUSED})


class Due(StrEnum):
    """What the center has to do next."""

    NOTHING = "nothing"
    GATE = "gate"
    """Ask the sites how good the candidate is."""
    SIGN = "sign"
    """Sign and publish what state and stage say, and then say `signed`."""
    HEALTH = "health"
    """Ask those who have it how it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happened to a rollout, for people and for the audit log.

    Attributes:
        at_ms: UTC.
        facts: JSON values by name.
    """

    at_ms: int
    kind: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One release on its way.

    Attributes:
        sha256: digest of its bundle, hexadecimal.
        previous: version to go back to; 0: there is none.
        stages: at least one.
        stage: index of the one that is open or being opened; -1: none yet.
        signed: what state and stage say has been signed and published.
        since_ms: when that stage was published, or the state began; UTC.
        looked_ms: when its health was last known; 0: not in this stage.
        questions: how many sums of its health there have been, over all stages.
        after_approval: what a rollout that waits goes on as.
        successor: the version that names the older files, once it is signed.
        why: of a state that somebody will ask about, else empty.
    """

    version: int
    sha256: str
    previous: int
    stages: tuple[Stage, ...]
    state: State
    stage: int = -1
    signed: bool = True
    since_ms: int
    looked_ms: int = 0
    questions: int = 0
    after_approval: State = State.RUNNING
    successor: int = 0
    why: str = ""
    history: tuple[Step, ...] = ()

    @classmethod
    def begin(
        cls, version: int, sha256: str, *, previous: int, stages: Sequence[Stage], now_ms: int, waived: str = ""
    ) -> "Rollout":
        """A candidate before the gate.

        Args:
            waived: why it need not pass; empty: it must.
        """
        begun = cls(
            version=version,
            sha256=sha256,
            previous=previous,
            stages=tuple(stages),
            state=State.GATING,
            since_ms=now_ms,
            history=(Step(at_ms=now_ms, kind="candidate", facts={"previous": previous}),),
        )
        if not waived:
            return begun
        return _open(begun, 0, now_ms, "gate waived", {"reason": waived})

    @classmethod
    def gone_back(
        cls, version: int, sha256: str, *, previous: int, place: Place, instead_of: int, now_ms: int
    ) -> "Rollout":
        """The release that took another one's place: older files, no gate, no stages, signed already.

        Args:
            previous: what the older files would themselves go back to.
        """
        return cls(
            version=version,
            sha256=sha256,
            previous=previous,
            stages=(Stage(place=place, reach=WHOLE_QUEUE, sites=0),),
            state=State.FINISHED,
            stage=0,
            since_ms=now_ms,
            why=f"instead of release {instead_of}",
            history=(Step(at_ms=now_ms, kind="gone back", facts={"instead_of": instead_of}),),
        )

    @property
    def reached(self) -> Stage | None:
        """The stage that is open or being opened; None while nobody is offered it."""
        return self.stages[self.stage] if self.stage >= 0 else None

    @property
    def active(self) -> bool:
        """Something is still to come of it."""
        return self.state not in OVER or not self.signed

    @property
    def goes_back(self) -> bool:
        """Nobody is to keep it."""
        return self.state in GOING_BACK or (self.state is State.WAITING and self.after_approval in GOING_BACK)

    def due(self, *, now_ms: int, terms: RolloutSettings) -> Due:
        """What the center has to do now."""
        if self.state is State.GATING:
            return Due.GATE
        if self.state in {State.WAITING, State.PAUSED}:
            return Due.NOTHING
        if not self.signed:
            return Due.SIGN
        baked_ms = max(self.since_ms, self.looked_ms) + 1000 * terms.bake_seconds
        if self.state is State.RUNNING and now_ms >= baked_ms:
            return Due.HEALTH
        return Due.NOTHING

    def gated(self, faults: Sequence[str], figures: Mapping[str, Any], *, now_ms: int) -> "Rollout":
        """The sites have measured the candidate."""
        self._expect(State.GATING)
        if not faults:
            return _open(self, 0, now_ms, "gate held", figures)
        facts = {"faults": list(faults), **figures}
        return _turn(self, State.REFUSED, now_ms, "gate refused", facts, why="; ".join(faults))

    def published(self, *, now_ms: int, successor: int = 0) -> "Rollout":
        """What was due to be signed is signed, and on the broker.

        Args:
            successor: of a rollout that goes back: the version that names the older files, 0: none was needed.
        """
        reached = self.reached
        facts = {"place": reached.place.value, "reach": reached.reach} if reached else {}
        if self.goes_back:
            facts |= {"successor": successor}
        done = replace(
            _note(self, now_ms, "reversion signed" if self.goes_back else "stage signed", facts),
            signed=True,
            successor=successor,
            since_ms=now_ms,
            looked_ms=0,
        )
        last = done.stage == len(done.stages) - 1
        if done.state is State.RUNNING and last and not done.stages[-1].sites:
            return _turn(done, State.FINISHED, now_ms, "finished", {})
        return done

    def judged(self, health: Health, *, now_ms: int, terms: RolloutSettings, summed: bool = False) -> "Rollout":
        """Go on, go back, wait, or give up waiting: what the health of the open stage asks for.

        Args:
            summed: the sites were asked; else it is only known who has it.
        """
        self._expect(State.RUNNING)
        seen = replace(self, looked_ms=now_ms, questions=self.questions + 1) if summed else self
        if faults := health.faults(terms):
            told = _note(seen, now_ms, "health bad", health.to_json())
            return told.going_back("; ".join(faults), now_ms=now_ms)
        if health.tried < health.needed(terms):
            told = _note(seen, now_ms, "health unclear", health.to_json()) if summed else seen
            why = f"{health.tried:.0f} of {health.sites} sites have tried it, {health.needed(terms)} are needed"
            return told.waited(why, now_ms=now_ms, terms=terms)
        told = _note(seen, now_ms, "health good", health.to_json())
        if self.stage == len(self.stages) - 1:
            return _turn(told, State.FINISHED, now_ms, "finished", {})
        return _open(told, self.stage + 1, now_ms, "stage due", {})

    def waited(self, why: str, *, now_ms: int, terms: RolloutSettings) -> "Rollout":
        """Nothing can be said yet: stays as it is, or pauses when that has lasted too long."""
        if now_ms < self.since_ms + terms.patience_hours * _HOUR_MS:
            return self if self.why == why else replace(self, why=why)
        return self.paused(f"in {terms.patience_hours:g} hours: {why}", now_ms=now_ms)

    def going_back(self, why: str, *, now_ms: int, state: State = State.REVERTED, to: int | None = None) -> "Rollout":
        """Nobody is to keep it.

        Args:
            to: an older version than `previous`.

        Raises:
            BadInputError: it is over, unless it is finished and takes its last step back.
        """
        if self.state in OVER - {State.FINISHED}:
            raise BadInputError(f"release {self.version} is {self.state}", advice="hanse-center rollout status")
        previous = self.previous if to is None else to
        told = _turn(self, state, now_ms, state.value, {"why": why, "back_to": previous}, why=why)
        # A stage that waits for approval has not been signed: what was reached is the one before.
        waits = self.state is State.WAITING and not self.goes_back
        stage = self.stage - 1 if waits else self.stage
        return replace(told, previous=previous, stage=stage, signed=stage < 0)

    def needs_approval(self, *, now_ms: int) -> "Rollout":
        """What is due to be signed takes another key than the center holds."""
        waiting = _turn(self, State.WAITING, now_ms, "waiting for approval", {"to_be": self.state.value}, why=self.why)
        return replace(waiting, after_approval=self.state)

    def approved(self, keys: Iterable[str], *, now_ms: int) -> "Rollout":
        """The keys that were missing are there; it is still to be signed."""
        self._expect(State.WAITING)
        return _turn(self, self.after_approval, now_ms, "approved", {"keys": list(keys)}, why=self.why)

    def paused(self, why: str, *, now_ms: int) -> "Rollout":
        """Nobody more is offered it; who has it keeps it.

        Raises:
            BadInputError: it is not on its way.
        """
        if self.state not in {State.GATING, State.RUNNING}:
            raise BadInputError(f"release {self.version} is {self.state}, not on its way")
        return _turn(self, State.PAUSED, now_ms, "paused", {"why": why}, why=why)

    def resumed(self, *, now_ms: int) -> "Rollout":
        """Go on where it stood; bake time and patience begin anew.

        Raises:
            BadInputError: it is not paused.
        """
        self._expect(State.PAUSED)
        return _turn(self, State.GATING if self.stage < 0 else State.RUNNING, now_ms, "resumed", {})

    def _expect(self, state: State) -> None:
        if self.state is not state:
            raise BadInputError(
                f"release {self.version} is {self.state}, not {state}", advice="hanse-center rollout status"
            )


def _open(rollout: Rollout, stage: int, now_ms: int, kind: str, facts: Mapping[str, Any]) -> Rollout:
    opened = _turn(rollout, State.RUNNING, now_ms, kind, facts)
    return replace(opened, stage=stage, signed=False)


def _turn(
    rollout: Rollout, state: State, now_ms: int, kind: str, facts: Mapping[str, Any], *, why: str = ""
) -> Rollout:
    return replace(_note(rollout, now_ms, kind, facts), state=state, since_ms=now_ms, looked_ms=0, why=why)


def _note(rollout: Rollout, now_ms: int, kind: str, facts: Mapping[str, Any]) -> Rollout:
    return replace(rollout, history=(*rollout.history, Step(at_ms=now_ms, kind=kind, facts=dict(facts))))
