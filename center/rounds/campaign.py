"""Rounds from one release to the next: checkpoint, resume, stop.

    popularity ──sum──▶ initial weights ──round 1──▶ … ──round R──▶ finished

After each arrow everything is on disk, atomically; a campaign that was killed goes on at the arrow it had not finished,
and with the round that was in flight.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from center import durable
from center.registry import CampaignRow
from center.rounds import averaging, robustness
from center.rounds.calling import Answer, Asked, Caller
from center.rounds.federation import Federation
from center.settings import CenterSettings
from protocol import lessons
from protocol.announcement import Purpose
from protocol.errors import BadInputError, TooFewSurvivorsError
from protocol.fixed_point import Layout
from protocol.models import weights as model_weights
from protocol.privacy import variance_of_sum

_log = structlog.get_logger(__name__)
_MOST_HALVINGS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a campaign needs from the center around it.

    Attributes:
        federation: to ask edges.
        catalogue_version: of the shared catalogue that rows refer to.
        items: its length n.
        counted: what earlier campaigns counted of each row, float64[n + 1].
        initial: first weights from the popularity of each row, float64[n + 1].
        between: called after each training round, when no question is open: others may ask theirs, a rollout say.
    """

    federation: Federation
    catalogue_version: int
    items: int
    counted: Callable[[], NDArray[np.float64]]
    initial: Callable[[NDArray[np.float64]], bytes]
    between: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Where a campaign keeps what it has got so far."""

    path: Path

    def popularity(self, catalogue_version: int) -> Path:
        """What the window of this campaign counted, by row of that catalogue."""
        return self.path / f"popularity-{catalogue_version}.npy"

    @property
    def question(self) -> Path:
        """Rounds in flight, and rounds that were lost."""
        return self.path / "question.json"

    @property
    def statistic(self) -> Path:
        """The same of the popularity statistic, which all campaigns go on with."""
        return self.path.parent / "popularity.json"

    def window(self) -> int:
        """Of the statistic: one more than other campaigns have counted, or have lost for good."""
        closed = {
            path.parent
            for name in ("popularity-*.npy", "popularity-lost")
            for path in self.path.parent.glob(f"*/{name}")
        }
        return len(closed - {self.path}) + 1

    @property
    def lost_window(self) -> Path:
        """Says that this campaign's window came to no sum in many attempts."""
        return self.path / "popularity-lost"

    @property
    def state(self) -> Path:
        """Round number, weights and optimizer state in one file, so that they cannot disagree."""
        return self.path / "state.safetensors"

    def weights(self, completed: int) -> Path:
        """The weights after so many training rounds; 0 are the initial ones."""
        return self.path / f"weights-{completed:04}.safetensors"


def run_campaign(row: CampaignRow, *, folder: Folder, around: Surroundings, settings: CenterSettings) -> None:
    """Bring one campaign to its end, from wherever it stands.

    Raises:
        StoppedError: told to stop; nothing is lost, not even the round in flight.
        TooFewSurvivorsError: round after round failed.
        BadInputError: no site has anything to learn from, or the catalogue is another than when the campaign began.
    """
    caller = Caller(
        campaign=row.id,
        submodel=row.submodel,
        federation=around.federation,
        settings=settings.rounds,
        privacy=settings.privacy,
    )
    popularity = _popularity(folder, caller, around=around, settings=settings)
    state = _state(folder, popularity, around)
    while state.completed < row.rounds and state.halvings <= _MOST_HALVINGS:
        try:
            state = _train(folder, state, caller, around=around, settings=settings)
        except TooFewSurvivorsError as error:
            # A round that was opened in vain, by a dealer's false shares say, leaves its question answered for ever.
            # One whose edges were only away is asked again another time: half a step would be lost for nothing.
            stuck = caller.may_be_opened(folder.question)
            if not stuck or not state.completed or state.halvings >= _MOST_HALVINGS:
                raise
            _log.warning("this question has no answer; half of the last step is another question", why=error.line())
            state = averaging.take_back(state)
            durable.write(folder.weights(state.completed), state.weights())
            durable.write(folder.state, state.to_bytes())
        around.between()
    caller.settle(folder.question)


def _popularity(
    folder: Folder, caller: Caller, *, around: Surroundings, settings: CenterSettings
) -> NDArray[np.float64]:
    """Federation-wide counts of each row: of this campaign's window from one exact sum, and of those before."""
    path = folder.popularity(around.catalogue_version)
    if not path.exists():
        if list(folder.path.glob("popularity-*.npy")):
            raise BadInputError(
                f"this campaign began on another catalogue than {around.catalogue_version}",
                advice="hanse-center train begins another",
            )
        asked = Asked(
            purpose=Purpose.POPULARITY,
            layout=lessons.popularity_layout(around.items, private_bound=settings.private_bound),
            notes=folder.statistic,
            window=folder.window(),
            training={"catalogue_version": float(around.catalogue_version)},
        )
        try:
            answer = caller.until_summed(asked)
        except TooFewSurvivorsError:
            durable.write(folder.lost_window, b"")  # the next campaign opens another, or nobody would ever count again
            raise
        counts = np.maximum(np.rint(answer.sums["counts"]), 0.0)  # noise may take a small count below zero
        durable.write_array(path, counts)
        caller.note(answer, {"events": float(counts.sum())})
        caller.settle(asked.notes)
    counts = np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    total: NDArray[np.float64] = counts + around.counted()
    return total


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
    caller: Caller,
    *,
    around: Surroundings,
    settings: CenterSettings,
) -> averaging.ServerState:
    """One training round: its step is taken, or the step before is taken back (SPEC 4.8)."""
    weights = state.weights()
    model = settings.model
    asked = Asked(
        purpose=Purpose.TRAIN,
        layout=lessons.training_layout(
            model_weights.parameters(weights),
            coordinate_clip=settings.rounds.coordinate_clip,
            word_bits=settings.rounds.word_bits,
            private_bound=settings.private_bound,
        ),
        notes=folder.question,
        weights=weights,
        training={
            "catalogue_version": float(around.catalogue_version),
            "epochs": float(model.epochs),
            "batch_size": float(model.batch_size),
            "learning_rate": model.learning_rate,
            "negatives": float(model.negatives),
        },
    )
    answer = caller.until_summed(asked)
    sums = answer.sums
    weight = float(sums["weight"][0])
    if weight <= 0:
        caller.note(answer, {"weight": weight})
        raise BadInputError("no site has anything to learn from", advice="hanse-edge import events FILE, at the sites")
    figures = {name: float(sums[name][0]) / weight for name in ("loss", "ndcg", "recall")}
    state = _step(state, answer, asked.layout, ndcg=figures["ndcg"], settings=settings)
    # The weights first: the state names them, and must never name what is not there.
    durable.write(folder.weights(state.completed), state.weights())
    durable.write(folder.state, state.to_bytes())
    caller.note(answer, {"step": float(state.completed), "halvings": float(state.halvings), **figures})
    return state


def _step(
    state: averaging.ServerState, answer: Answer, layout: Layout, *, ndcg: float, settings: CenterSettings
) -> averaging.ServerState:
    verdict = robustness.judge(state.validation, ndcg, max_drop=settings.rounds.max_drop)
    if verdict is robustness.Verdict.DISCARD:
        _log.warning("the last step made validation worse and is taken back", before=state.validation, after=ndcg)
        return averaging.take_back(state)
    try:
        averages = _averages(answer, layout, settings=settings)
    except robustness.ImplausibleAverageError as error:
        if not state.completed:
            raise
        _log.warning("a sum no honest edges can have made is discarded", why=error.line())
        return averaging.take_back(state)
    average = _average(answer, averages, trim=settings.rounds.trim)
    optimizer = averaging.ServerOptimizer(
        learning_rate=settings.model.server_learning_rate, momentum=settings.model.server_momentum
    )
    return averaging.apply_round(state, average=average, validation=ndcg, settings=optimizer)


def _averages(answer: Answer, layout: Layout, *, settings: CenterSettings) -> list[NDArray[np.float64]]:
    """The mean update of each cohort.

    Raises:
        ImplausibleAverageError: honest edges cannot have made one of them.
    """
    announced = settings.privacy.announced()
    averages = []
    for sums, edges in zip(answer.groups, answer.asked, strict=True):
        weight = float(sums["weight"][0])
        if weight <= 0:
            averages.append(np.zeros_like(sums["update"]))
            continue
        average = sums["update"] / weight
        clip = announced.user_clip if announced else settings.rounds.clip
        slack = robustness.rounding_and_noise(
            layout,
            edges=edges,
            weight=weight,
            clip=clip,
            noise=variance_of_sum(announced, layout=layout, edges=edges) if announced else 0.0,
            weight_unit=announced.unit("weight") if announced else 1.0,
        )
        robustness.check_average(average, clip=clip, slack=slack)
        averages.append(average)
    return averages


def _average(answer: Answer, averages: list[NDArray[np.float64]], *, trim: int) -> NDArray[np.float64]:
    """The mean update: weighted over all edges, or trimmed over the means of groups."""
    if answer.robust:
        return robustness.trimmed_mean(averages, trim=trim)
    weights = [float(sums["weight"][0]) for sums in answer.groups]
    return np.asarray(np.average(averages, axis=0, weights=weights), dtype=np.float64)
