"""A whole round over the real SuperLink, against plain averaging over the same transport.

Both sides: the same nodes, each a process with TLS and node authentication behind the gateway; the same weights down
and as many numbers up; the same two nodes killed once they hold the message; the same rule for when the center stops
waiting, since `center.rounds.drive.Drive` drives both. The secure side is the production code with its books on disk.
"""

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from center.registry import Registry
from center.rounds.drive import Called, Drive, Outcome
from center.rounds.epochs import Epochs
from center.rounds.in_flight import Announced, Question
from center.settings import RoundSettings
from protocol import lessons
from protocol.announcement import Announcement, Purpose
from protocol.errors import UnavailableError
from protocol.fixed_point import resolution
from protocol.identity import EdgeId
from protocol.secure_sum import Phase, Round
from protocol.unmasking import Dealing
from simulation.bench import node
from simulation.bench.crew import Crew, now_ms

_CAMPAIGN = "bench"
_CENTER_EPOCH = 1
_NEGLIGIBLE = 1e-6

Advance = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is run.

    Attributes:
        dropped: of the sites, killed in each round once they have taken the message.
        training_seconds: of each site; it sleeps.
        repetitions: rounds of each kind, in turns.
    """

    sites: int = 8
    dropped: int = 2
    parameters: int = 1_000_000
    training_seconds: float = 30.0
    repetitions: int = 3


def measure(plan: Plan, *, directory: Path, advance: Advance) -> dict[str, Any]:
    """Run both kinds of round in turns.

    Args:
        directory: emptied first.
        advance: called with what comes next, `steps` times.

    Returns:
        wall seconds from the announcement to the average, of each round, and the ratio of their medians.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    seconds: dict[str, list[float]] = {"secure": [], "fedavg": []}
    advance(f"SuperLink and {plan.sites} nodes")
    with ExitStack() as ending:
        crew = ending.enter_context(
            Crew.hired(plan.sites, dropped=plan.dropped, training_seconds=plan.training_seconds, directory=directory)
        )
        registry = ending.enter_context(closing(Registry(directory / "center" / "registry.db")))
        rounds = _Rounds.of(crew, registry, parameters=plan.parameters)
        advance("key epoch")
        epoch = rounds.open_epoch()
        for number in range(1, plan.repetitions + 1):
            for kind, run in (("secure", rounds.secure), ("fedavg", rounds.plain)):
                advance(f"{kind} round {number} of {plan.repetitions}")
                crew.man()
                seconds[kind].append(run())
    return {
        **asdict(plan),
        "word_bits": RoundSettings().word_bits,
        "epoch_seconds": epoch,
        "secure_seconds": seconds["secure"],
        "fedavg_seconds": seconds["fedavg"],
        "ratio": median(seconds["secure"]) / median(seconds["fedavg"]),
    }


def steps(plan: Plan) -> int:
    """How often `measure` will call ``advance``."""
    return 2 + 2 * plan.repetitions


class PlainRound(Round):
    """A round of plain averaging, in the form that `Drive` drives: it closes once the updates have come.

    Its total is of float32, in the same four bytes a word.
    """

    __slots__ = ()

    def _take(self, sender: EdgeId, answer: bytes) -> Self:
        total = self.total.view(np.float32) + np.frombuffer(answer, np.float32)
        dealings = MappingProxyType({**self.dealings, sender: Dealing(commitments=(), sealed=b"")})
        return replace(self, total=total.view(np.uint32), dealings=dealings)

    def close_phase(self) -> Self:
        return replace(self, phase=Phase.SUMMED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rounds:
    """Both kinds of round, on one crew."""

    crew: Crew
    parameters: int
    registry: Registry
    epochs: Epochs
    settings: RoundSettings

    @classmethod
    def of(cls, crew: Crew, registry: Registry, *, parameters: int) -> Self:
        settings = RoundSettings()
        epochs = Epochs(
            registry=registry,
            center_epoch=_CENTER_EPOCH,
            center_key=crew.center_key,
            exchange=crew.exchange(),
            hours=settings.epoch_hours,
            now_ms=now_ms,
        )
        return cls(crew=crew, parameters=parameters, registry=registry, epochs=epochs, settings=settings)

    def open_epoch(self) -> float:
        """Seconds that it takes to open a key epoch, which happens once a day.

        Raises:
            UnavailableError: an edge did not take part.
        """
        began, everybody = time.monotonic(), frozenset(self.crew.edges)
        epoch = self.epochs.covering(everybody, self.crew.roster)
        if epoch.members != everybody:
            raise UnavailableError(f"only {sorted(epoch.members)} have keys")
        return time.monotonic() - began

    def secure(self) -> float:
        """Seconds from the announcement to the average, masks and all."""
        weights = self._weights()
        began = time.monotonic()
        asked = self._announcement(weights)
        document = asked.sign(self.crew.center_key)
        outcome = self._drive(Round.announce(asked, roster=self.crew.roster), document, weights)
        sums = outcome.round.sums()
        average = sums["update"] / sums["weight"]
        seconds = time.monotonic() - began
        self._check(average, outcome)
        return seconds

    def plain(self) -> float:
        """The same for updates that travel as they are."""
        weights = self._weights()
        began = time.monotonic()
        asked = self._announcement(weights)
        document = node.PLAIN + str(asked.round).encode()
        bare = replace(asked, layout=asked.layout[:1])
        outcome = self._drive(PlainRound.announce(bare, roster=self.crew.roster), document, weights)
        average = outcome.round.total.view(np.float32) / len(outcome.round.dealings)
        seconds = time.monotonic() - began
        self._check(average, outcome)
        return seconds

    def _weights(self) -> bytes:
        """Others each round: a site answers a question once."""
        return np.random.default_rng().standard_normal(self.parameters, dtype=np.float32).tobytes()

    def _announcement(self, weights: bytes) -> Announcement:
        crew, settings = self.crew, self.settings
        epoch = self.epochs.covering(frozenset(crew.edges), crew.roster)
        number = self.registry.begin_round(_CAMPAIGN, purpose=Purpose.TRAIN, cohort=crew.edges, now_ms=now_ms())
        return Announcement(
            federation=node.FEDERATION,
            campaign=_CAMPAIGN,
            round=number,
            key_epoch=epoch.call.epoch,
            roster_version=crew.roster.version,
            center_epoch=_CENTER_EPOCH,
            cohort=crew.edges,
            prekeys=tuple(epoch.prekeys[edge] for edge in crew.edges),
            purpose=Purpose.TRAIN,
            submodel="recommend",
            weights_sha256=sha256(weights).digest(),
            window=0,
            layout=lessons.training_layout(
                self.parameters, coordinate_clip=settings.coordinate_clip, word_bits=settings.word_bits
            ),
            clip=settings.clip,
            coordinate_clip=settings.coordinate_clip,
            weight_cap=settings.weight_cap,
            deadline_ms=now_ms() + int(1000 * settings.deadline_seconds),
        )

    def _drive(self, round_: Round, document: bytes, weights: bytes) -> Outcome:
        """One round to its end, with the center's notes on disk as in a campaign.

        Raises:
            TooFewSurvivorsError: it failed.
        """
        notes = self.crew.directory / "center" / "question.json"
        question = Question(name=_CAMPAIGN, rounds=(Announced(document=document),))

        def named(closed: Round) -> None:
            assert closed.survivors is not None
            question.named(closed.survivors).save(notes)

        question.save(notes)
        drive = Drive(
            transport=self.crew.transport,
            center_key=self.crew.center_key,
            settings=self.settings,
            now_ms=now_ms,
            stopped=lambda: False,
        )
        (outcome,) = drive.run([Called(round=round_, announcement=document, weights=weights)], named=named)
        if outcome.lost is not None:
            raise outcome.lost
        return outcome

    def _check(self, average: NDArray[np.floating[Any]], outcome: Outcome) -> None:
        """Is it the mean of those who are still there, but for rounding?"""
        asked, there = outcome.round.announcement, self.crew.survivors
        slack = _NEGLIGIBLE + resolution(asked.layout[0], edges=asked.edges)
        expected = np.mean([node.update_of(edge, self.parameters) for edge in there], axis=0, dtype=np.float64)
        if set(outcome.round.dealings) != set(there) or np.abs(average - expected).max() > slack:
            raise AssertionError(f"a wrong average over {sorted(outcome.round.dealings)}")
