"""Rounds from one release to the next: checkpoint, resume, stop.

    popularity ──sum──▶ initial weights ──round 1──▶ … ──round R──▶ finished

After each arrow everything is on disk, atomically; a campaign that was killed goes on at the arrow it had not finished.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from center import averaging, durable
from center.registry import CampaignRow, Registry
from center.rounds import Outcome, run_round
from center.settings import ModelSettings, RoundSettings
from protocol import lessons
from protocol.errors import BadInputError, TooFewSurvivorsError, UnavailableError
from protocol.fixed_point import Layout
from protocol.identity import EdgeId, Roster
from protocol.messages import Announcement, Purpose
from protocol.models import weights as model_weights
from protocol.secure_sum import Round
from protocol.transport import Transport

_log = structlog.get_logger(__name__)
_PATIENCE = 10
_LOOK_SECONDS = 0.5


class StoppedError(Exception):
    """The center was told to stop; the campaign goes on when it serves again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a campaign needs from the center around it.

    Attributes:
        roster: reads the signed roster in force; sites are admitted and removed while a campaign runs.
        catalogue_version: of the shared catalogue that rows refer to.
        items: its length n.
        initial: first weights from the popularity of each row, float64[n + 1].
        wake: tells edges over MQTT that a round is coming, and until when (ms UTC).
        stopped: the center is shutting down.
    """

    roster: Callable[[], Roster]
    center_epoch: int
    center_key: Ed25519PrivateKey
    transport: Transport
    registry: Registry
    catalogue_version: int
    items: int
    initial: Callable[[NDArray[np.float64]], bytes]
    wake: Callable[[str, int], None]
    stopped: Callable[[], bool]
    now_ms: Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Where a campaign keeps what it has got so far."""

    path: Path

    @property
    def popularity(self) -> Path:
        return self.path / "popularity.npy"

    @property
    def state(self) -> Path:
        """Round number, weights and optimizer state in one file, so that they cannot disagree."""
        return self.path / "state.safetensors"

    def weights(self, completed: int) -> Path:
        """The weights after so many training rounds; 0 are the initial ones."""
        return self.path / f"weights-{completed:04}.safetensors"


def run_campaign(
    row: CampaignRow, *, folder: Folder, around: Surroundings, rounds: RoundSettings, model: ModelSettings
) -> None:
    """Bring one campaign to its end, from wherever it stands.

    Raises:
        StoppedError: told to stop; nothing is lost but the round in flight.
        TooFewSurvivorsError: round after round failed.
        BadInputError: no site has anything to learn from, or the catalogue is another than when the campaign began.
    """
    caller = _Caller(row=row, around=around, settings=rounds)
    popularity = _popularity(folder, caller, around)
    state = _state(folder, popularity, around)
    while state.completed < row.rounds:
        state = _train(folder, state, caller, rounds=rounds, model=model)


def _popularity(folder: Folder, caller: "_Caller", around: Surroundings) -> NDArray[np.float64]:
    """Federation-wide counts of each row, from one exact secure sum."""
    if folder.popularity.exists():
        counts = np.asarray(np.load(folder.popularity, allow_pickle=False), dtype=np.float64)
        if len(counts) != around.items + 1:
            raise BadInputError(
                f"this campaign began on a catalogue of {len(counts) - 1} items, now there are {around.items}",
                advice="hanse-center train begins another",
            )
        return counts
    layout = lessons.popularity_layout(around.items)
    outcome = caller.until_summed(Purpose.POPULARITY, layout=layout, weights=b"", training={})
    counts = np.rint(outcome.round.sums()["counts"])
    durable.write_array(folder.popularity, counts)
    caller.note(outcome, {"events": float(counts.sum())})
    return counts


def _state(folder: Folder, popularity: NDArray[np.float64], around: Surroundings) -> averaging.ServerState:
    if folder.state.exists():
        return averaging.ServerState.from_bytes(folder.state.read_bytes())
    weights = around.initial(popularity)
    state = averaging.ServerState.begin(weights)
    durable.write(folder.weights(0), weights)
    durable.write(folder.state, state.to_bytes())
    return state


def _train(
    folder: Folder,
    state: averaging.ServerState,
    caller: "_Caller",
    *,
    rounds: RoundSettings,
    model: ModelSettings,
) -> averaging.ServerState:
    weights = folder.weights(state.completed).read_bytes()
    layout = lessons.training_layout(model_weights.parameters(weights), clip=rounds.clip)
    training = {
        "epochs": float(model.epochs),
        "batch_size": float(model.batch_size),
        "learning_rate": model.learning_rate,
        "negatives": float(model.negatives),
    }
    outcome = caller.until_summed(Purpose.TRAIN, layout=layout, weights=weights, training=training)
    sums = outcome.round.sums()
    weight = float(sums["weight"][0])
    if weight <= 0:
        caller.note(outcome, {"weight": weight})
        raise BadInputError("no site has anything to learn from", advice="hanse-edge import events FILE, at the sites")
    state = averaging.apply_round(
        state,
        update_sum=sums["update"],
        weight_sum=weight,
        settings=averaging.ServerOptimizer(learning_rate=model.server_learning_rate, momentum=model.server_momentum),
    )
    # The weights first: the state names them, and must never name what is not there.
    durable.write(folder.weights(state.completed), state.weights())
    durable.write(folder.state, state.to_bytes())
    figures = {name: float(sums[name][0]) / weight for name in ("loss", "ndcg", "recall")}
    caller.note(outcome, {"step": float(state.completed), **figures})
    return state


class _Caller:
    """Calls rounds until one closes; remembers who failed the last one, so that the next runs without them."""

    def __init__(self, *, row: CampaignRow, around: Surroundings, settings: RoundSettings) -> None:
        self._row = row
        self._around = around
        self._settings = settings
        self._benched: frozenset[str] = frozenset()
        self._bench_until: dict[str, int] = {}
        self._failures: Counter[str] = Counter()
        self._summed = 0
        self._begun = time.monotonic()

    def until_summed(self, purpose: Purpose, *, layout: Layout, weights: bytes, training: dict[str, float]) -> Outcome:
        """One closed round.

        Raises:
            StoppedError: told to stop.
            TooFewSurvivorsError: the last of many attempts failed, too.
        """
        for attempt in range(_PATIENCE):
            try:
                return self._attempt(purpose, layout=layout, weights=weights, training=training)
            except TooFewSurvivorsError as error:
                _log.warning("round failed", why=error.line(), attempt=attempt + 1)
                if attempt + 1 == _PATIENCE:
                    raise
            except UnavailableError as error:
                _log.warning("round interrupted", why=error.line(), attempt=attempt + 1)
        raise TooFewSurvivorsError(f"{_PATIENCE} rounds in a row failed", advice="hanse-center doctor")

    def _attempt(self, purpose: Purpose, *, layout: Layout, weights: bytes, training: dict[str, float]) -> Outcome:
        around = self._around
        roster, cohort = self._gather()
        now_ms = around.now_ms()
        number = around.registry.begin_round(self._row.id, purpose=purpose.value, cohort=cohort, now_ms=now_ms)
        self._begun = time.monotonic()
        announcement = Announcement(
            federation=roster.federation,
            campaign=self._row.id,
            round=number,
            roster_version=roster.version,
            center_epoch=around.center_epoch,
            cohort=cohort,
            purpose=purpose,
            submodel=self._row.submodel,
            weights_sha256=sha256(weights).digest(),
            layout=layout,
            clip=self._settings.clip,
            weight_cap=self._settings.weight_cap,
            deadline_ms=now_ms + int(1000 * self._settings.deadline_seconds),
            training={"catalogue_version": float(around.catalogue_version), **training},
        )
        round_ = Round.announce(announcement, roster=roster)
        try:
            outcome = run_round(
                round_,
                announcement=announcement.sign(around.center_key),
                weights=weights,
                transport=around.transport,
                now_ms=around.now_ms,
                stopped=around.stopped,
            )
        except TooFewSurvivorsError as error:
            self._end(number, outcome=str(error), figures={})
            self._raise_if_stopped()
            self._benched |= error.missing  # else two that fail in turn would fail every round
            for edge in error.missing:
                self._failures[edge] += 1
                # Back after one sum, then after two, then four: who always fails must not cost every other round.
                self._bench_until[edge] = self._summed + 2 ** (self._failures[edge] - 1)
            raise
        except UnavailableError as error:
            self._end(number, outcome=str(error), figures={})
            raise
        self._summed += 1
        self._benched = frozenset(edge for edge, until in self._bench_until.items() if until > self._summed)
        return outcome

    def note(self, outcome: Outcome, figures: dict[str, float]) -> None:
        """Write down a round whose sum is safely on disk."""
        uploaded = {"upload_bytes": float(outcome.upload_bytes)}
        self._end(outcome.round.announcement.round, outcome="summed", figures={**figures, **uploaded})

    def _end(self, number: int, *, outcome: str, figures: dict[str, float]) -> None:
        seconds = time.monotonic() - self._begun
        self._around.registry.end_round(number, seconds=seconds, outcome=outcome, figures=figures)
        _log.info("round over", round=number, seconds=round(seconds, 1), outcome=outcome, **figures)

    def _gather(self) -> tuple[Roster, tuple[EdgeId, ...]]:
        """Wake the edges and wait until all are there, or long enough for those that are."""
        around = self._around
        patience_ms = int(1000 * self._settings.gather_seconds)
        began_ms = wake_ms = around.now_ms()
        while True:
            self._raise_if_stopped()
            if around.now_ms() >= wake_ms:  # again and again: an edge goes back to sleep when the last wake is over
                wake_ms = around.now_ms() + patience_ms
                around.wake(self._row.id, wake_ms + int(1000 * self._settings.deadline_seconds))
            roster = around.roster()
            admitted = frozenset(member.edge for member in roster.members)
            here = self._online() & admitted
            wanted = admitted - self._benched
            late = around.now_ms() > began_ms + patience_ms
            cohort = here if late and len(here - self._benched) < self._settings.min_cohort else here - self._benched
            if len(cohort) >= self._settings.min_cohort and (late or wanted <= here):
                return roster, tuple(sorted(cohort))
            time.sleep(_LOOK_SECONDS)

    def _online(self) -> frozenset[EdgeId]:
        try:
            return self._around.transport.online()
        except UnavailableError as error:
            _log.warning("waiting for SuperLink", why=error.line())
            return frozenset()

    def _raise_if_stopped(self) -> None:
        if self._around.stopped():
            raise StoppedError
