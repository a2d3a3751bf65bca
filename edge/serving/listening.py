"""Asks the submodels: each only while it is well and there is time for it, and the model for many histories at once."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final, Protocol, TypeVar

import numpy as np
import onnxruntime as ort
import structlog
from numpy.typing import NDArray

from edge.records.store import Past
from edge.serving.batching import Batching, Heard, Reading
from edge.serving.breaker import State
from edge.serving.deadline import Watchdog
from edge.serving.question import Question
from edge.serving.ranker import ModelFailedError, Ranked
from edge.serving.release import Loaded
from edge.serving.remembered import Remembered
from edge.serving.shelf import Shelf
from edge.serving.slate import NEAR, NOTHING_NEAR, Near
from edge.serving.submodel import COMPANIONS, CONTEXT, NAMES, RECOMMEND, Submodel, Trouble

_Said = TypeVar("_Said")
_NOTHING: Final = NOTHING_NEAR.places, NOTHING_NEAR.weights
_log = structlog.get_logger(__name__)


class Neighbours(Protocol):
    """What goes with what, and what sells when and where: `edge.neighbours`."""

    def near(
        self, shelf: Shelf, places: NDArray[np.int64], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]: ...

    def prior(self, shelf: Shelf, context: Mapping[str, str], now_ms: int) -> NDArray[np.float32] | None: ...


class Listening:
    """All submodels of one service, and how they do."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        now_ms: Callable[[], int],
        deadline_seconds: float,
        neighbours: Neighbours | None,
        remembered: Remembered,
        note_state: Callable[[str, State], None],
    ) -> None:
        """Nothing is known of them yet.

        Args:
            note_state: told when the breaker of a submodel opens or closes.
        """
        self.neighbours = neighbours
        self.deadline_seconds = deadline_seconds
        self.asks_anew = False
        """Whether the model is asked for every answer: a release on trial is judged by how it does, not by memory."""
        self.clock = clock
        self._now_ms = now_ms
        self._remembered = remembered
        self._note_state = note_state
        self._watchdog = Watchdog(clock=clock)
        self._batching = Batching(watchdog=self._watchdog, clock=clock)
        self._submodels = {name: self._submodel(name) for name in NAMES}

    def close(self) -> None:
        """End the watchdog."""
        self._watchdog.close()

    def forget_model(self) -> None:
        """Another model is there: how the one before did is nothing to it."""
        self._submodels[RECOMMEND] = self._submodel(RECOMMEND)

    def until(self, within_ms: float | None = None) -> tuple[float, bool]:
        """By the clock, when an answer asked for now is of no use any more; and whether that is sooner than usual."""
        hurried = within_ms is not None and within_ms < 1_000 * self.deadline_seconds
        seconds = within_ms / 1_000 if within_ms is not None and hurried else self.deadline_seconds
        return self.clock() + seconds, hurried

    async def model(self, loaded: Loaded, question: Question, *, k: int) -> Ranked | None:
        """What the model says of a past, with all others that wait; None: it is silent, the question knows why."""
        if known := self._known(loaded, question, k):
            return known
        reading = self._reading(loaded, question, k)
        return self._noted(question, reading, await self._batching.hear(reading)) if reading else None

    def model_now(self, loaded: Loaded, question: Question, *, k: int) -> Ranked | None:
        """The same at once, of this past alone, and not from memory."""
        reading = self._reading(loaded, question, k)
        return self._noted(question, reading, self._batching.hear_now([reading])[0]) if reading else None

    def state(self, loaded: Loaded, past: Past) -> Ranked | None:
        """What the model makes of a past; which items it would name does not matter.

        Raises:
            ModelFailedError: it failed, or was stopped.
        """
        history = readable(loaded, past)
        if loaded.release is None or not history.size:
            return None
        model, shared = loaded.release.ranker, _is_shared(loaded, history)
        if shared and (known := self._remembered.ranked(model, history, k=1)):
            return known
        with self.stopped_at(self.until()[0]) as options:
            ranked = model.rank_many([history], k=1, vectors=loaded.vectors, options=options)[0]
        if shared:
            self._remembered.keep(model, history, ranked, k=1)
        return ranked

    @contextmanager
    def stopped_at(self, until: float) -> Iterator[ort.RunOptions]:
        """For one run of a model, which is stopped at this time of the clock.

        Raises:
            ModelFailedError: that has passed.
        """
        if self.clock() >= until:
            raise ModelFailedError("there is no time left for the model")
        try:
            yield self._watchdog.watch(until)
        finally:
            self._watchdog.rest()

    def near(self, shelf: Shelf, past: Past, *, until: float, silent: dict[str, Trouble]) -> Near:
        """What goes with somebody's newest items; nothing, if that cannot be told."""
        places, weights = self.near_places(shelf, past.item, NEAR, until=until, silent=silent)
        return Near(places=places, weights=weights)

    def near_places(
        self, shelf: Shelf, places: NDArray[np.int64], k: int, *, until: float, silent: dict[str, Trouble]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """What goes with these: places and weights."""
        neighbours = self.neighbours
        if neighbours is None:
            return _NOTHING
        found = self._guarded(COMPANIONS, lambda: neighbours.near(shelf, places, k), until=until, silent=silent)
        return found if found is not None else _NOTHING

    def prior(self, shelf: Shelf, question: Question) -> NDArray[np.float32] | None:
        """float32[size], what sells then and there; None: nobody knows."""
        neighbours, context = self.neighbours, question.query.context
        if neighbours is None or not context:
            return None
        return self._guarded(
            CONTEXT,
            lambda: neighbours.prior(shelf, context, self._now_ms()),
            until=question.until,
            silent=question.silent,
        )

    def _known(self, loaded: Loaded, question: Question, k: int) -> Ranked | None:
        """What the model said of this past a moment ago."""
        if self.asks_anew or loaded.release is None or not _is_shared(loaded, question.readable):
            return None
        return self._remembered.ranked(loaded.release.ranker, question.readable, k=k)

    def _reading(self, loaded: Loaded, question: Question, k: int) -> Reading | None:
        """What the model is asked; None: there is no model, or nothing that it could read."""
        if loaded.release is None or not question.readable.size:
            return None
        return Reading(
            model=loaded.release.ranker,
            vectors=loaded.vectors,
            submodel=self._submodels[RECOMMEND],
            history=question.readable,
            k=k,
            until=question.until,
            hurried=question.hurried,
        )

    def _noted(self, question: Question, reading: Reading, heard: Heard) -> Ranked | None:
        if isinstance(heard, Trouble):
            question.silent[RECOMMEND] = heard
            return None
        if reading.history.max() <= reading.model.items:
            self._remembered.keep(reading.model, reading.history, heard, k=reading.k)
        return heard

    def _guarded(
        self, name: str, ask: Callable[[], _Said | None], *, until: float, silent: dict[str, Trouble]
    ) -> _Said | None:
        """What a submodel says; None, and a note why, where it does not."""
        submodel, began = self._submodels[name], self.clock()
        trouble = submodel.trouble(left=until - began)
        said = None
        if trouble is None:
            try:
                said = ask()
            except Exception as error:  # noqa: BLE001 - whatever it is, the answer goes on without it, and says so
                trouble = Trouble.FAILED
                _log.warning("a submodel failed", submodel=name, why=type(error).__name__)
            submodel.note(self.clock() - began, failed=trouble is not None)
        if trouble is not None:
            silent[name] = trouble
        return said

    def _submodel(self, name: str) -> Submodel:
        self._note_state(name, State.CLOSED)
        return Submodel(clock=self.clock, changed=partial(self._note_state, name))


def readable(loaded: Loaded, past: Past) -> NDArray[np.int64]:
    """int64[t], what of a past the model can read."""
    return loaded.vectors.readable(past.item) if loaded.vectors is not None else past.item[:0]


def _is_shared(loaded: Loaded, places: NDArray[np.int64]) -> bool:
    """Whether there are any, and all in the shared catalogue: vectors of private items may change."""
    return bool(places.size) and int(places.max()) <= loaded.shelf.rows
