"""An experiment: a design with what was drawn for it, and how it may change while it runs.

While an experiment runs its shares may grow, all by the same factor: then nobody who is in an arm leaves it, and at no
time were the arms mixed in another ratio than at any other (Simpson's paradox).
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from pydantic import TypeAdapter

from edge.experiments.design import Arm, Design, plainly
from protocol.errors import BadInputError


class State(StrEnum):
    """How far an experiment is."""

    DRAFT = "draft"
    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A design with what was drawn for it and what has become of it.

    Attributes:
        salt: 32 hex digits, drawn once: who gets which arm.
        layer_salt: the same for all experiments of a layer: who is in which experiment.
        spans: ten-thousandths of the layer, from and up to, that are its own while it runs.
        started_ms: when it was set running.
        stopped_ms: when it was stopped by hand.
    """

    name: str
    design: Design
    salt: str
    layer_salt: str
    state: State = State.DRAFT
    spans: tuple[tuple[int, int], ...] = ()
    started_ms: int | None = None
    stopped_ms: int | None = None

    def state_at(self, now_ms: int) -> State:
        """Its state at a time: what has reached its end is stopped, whether or not somebody has said so."""
        over = self.design.end_ms is not None and now_ms >= self.design.end_ms
        return State.STOPPED if self.state is State.RUNNING and over else self.state

    def exposes(self, now_ms: int) -> bool:
        """Is anybody given an arm now?"""
        return self.state_at(now_ms) is State.RUNNING and now_ms >= (self.design.start_ms or 0)

    @property
    def over_ms(self) -> int | None:
        """From when on nobody is exposed; None: not known yet."""
        ends = [at for at in (self.stopped_ms, self.design.end_ms) if at is not None]
        return min(ends, default=None)

    @property
    def control(self) -> Arm:
        return self.design.arms[0]

    @cached_property
    def arms(self) -> dict[str, Arm]:
        """By name."""
        return {arm.name: arm for arm in self.design.arms}

    def applies(self, scenario: str) -> bool:
        return not self.design.scenarios or scenario in self.design.scenarios


def revised(old: Experiment, design: Design, *, now_ms: int) -> Experiment:
    """The experiment under a changed design, if that leaves everybody where they are.

    Raises:
        BadInputError: it runs, and something other than its end or a growing share was changed; or it is over.
    """
    match old.state_at(now_ms):
        case State.DRAFT:
            return replace(old, design=design)
        case State.STOPPED:
            raise BadInputError(f"experiment {old.name} is over", advice="begin a new one under another name")
    kept, asked = old.design, design
    if replace(asked, arms=kept.arms, end_ms=kept.end_ms) != kept:
        raise BadInputError(
            f"experiment {old.name} runs: only its end and its shares may change", advice="stop it and begin a new one"
        )
    if [(arm.name, plainly(arm.what)) for arm in asked.arms] != [(arm.name, plainly(arm.what)) for arm in kept.arms]:
        raise BadInputError(
            f"experiment {old.name} runs: its arms may not change", advice="stop it and begin a new one"
        )
    ratio = [arm.buckets * kept.buckets for arm in asked.arms] == [arm.buckets * asked.buckets for arm in kept.arms]
    if not ratio or asked.buckets < kept.buckets:
        raise BadInputError(
            f"experiment {old.name} runs: its shares may only grow, all by the same factor",
            advice="stop it and begin a new one",
        )
    return replace(old, design=design)


_DOCUMENT: Final = TypeAdapter(Experiment)


def to_document(experiment: Experiment) -> dict[str, Any]:
    """As it is kept."""
    document: dict[str, Any] = _DOCUMENT.dump_python(experiment, mode="json", exclude_none=True)
    return document


def from_document(document: Any) -> Experiment:
    """As it was kept.

    Raises:
        ValueError: this is no experiment.
    """
    return _DOCUMENT.validate_python(document)
