"""Histories that wait together are read by the model in one run, and none waits for others to come.

Requests that arrive in one turn of the event loop queue up; in the next turn all that wait are run, in the loop's own
thread, since handing them to another costs more than it saves. There is no waiting time: under load a queue forms while
the run before is on. Where requests have come one by one for a while, even the turn is spared: the next one is run at
once, until two come in one turn again.

A run costs by the positions it reads, and little is saved beyond some 800 of them, so histories of about the same
length go together, up to that (docs/decisions/0020).
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge.serving.deadline import Watchdog
from edge.serving.ranker import ModelFailedError, Ranked, Ranker
from edge.serving.submodel import Submodel, Trouble
from edge.serving.vectors import Vectors

MOST_TOGETHER: Final = 32
MOST_POSITIONS: Final = 800
_WASTE: Final = 0.25
"""A history may be filled up by so much of the longest one's length."""
_BEARABLE: Final = 16
"""Positions that it may be filled up by in any case: a run of its own would cost more."""
_FEW: Final = 8
"""After so many turns with one request each, the next one does not queue."""
_OVERHEAD_POSITIONS: Final = 20
"""What a history costs beside its positions, in positions: the scan of the catalogue."""

Heard: TypeAlias = Ranked | Trouble
"""What the model says, or why it does not."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """One history that wants to be read.

    Attributes:
        vectors: of what the catalogue lacks.
        history: int64[t], places the model can read, at least one.
        k: so many of the best are wanted.
        until: by the clock, when the answer is of no use any more.
        hurried: whoever asks has set a shorter deadline than the service's own. It is run alone, so that it stops
            nobody else's run, and that it is stopped is no fault of the model.
    """

    model: Ranker
    vectors: Vectors | None
    submodel: Submodel
    history: NDArray[np.int64]
    k: int
    until: float
    hurried: bool = False

    @property
    def length(self) -> int:
        return min(len(self.history), self.model.history_length)


class Batching:
    """The queue before the model; lives in one event loop."""

    def __init__(self, *, watchdog: Watchdog, clock: Callable[[], float]) -> None:
        """Begin empty.

        Args:
            clock: the watchdog's.
        """
        self._watchdog = watchdog
        self._clock = clock
        self._waiting: list[tuple[Reading, asyncio.Future[Heard]]] = []
        self._alone = 0  # turns in a row in which one request came
        self._ran_at_once = False  # in this turn

    async def hear(self, reading: Reading) -> Heard:
        """What the model says of a history, together with all others that wait."""
        loop = asyncio.get_running_loop()
        if self._ran_at_once:
            self._alone = 0
        if self._alone >= _FEW:
            self._ran_at_once = True
            loop.call_soon(self._end_turn)
            return self.hear_now([reading])[0]
        if not self._waiting:
            loop.call_soon(self._run_waiting)
        heard: asyncio.Future[Heard] = loop.create_future()
        self._waiting.append((reading, heard))
        return await heard

    def hear_now(self, readings: Sequence[Reading]) -> list[Heard]:
        """The same for these alone, at once."""
        heard: list[Heard] = [Trouble.FAILED] * len(readings)
        for group in grouped(readings):
            for number, said in zip(group, self._run([readings[number] for number in group]), strict=True):
                heard[number] = said
        return heard

    def _end_turn(self) -> None:
        self._ran_at_once = False

    def _run_waiting(self) -> None:
        turn, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
        self._alone = self._alone + 1 if len(turn) == 1 else 0
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._run_waiting)
        turn = [(reading, future) for reading, future in turn if not future.done()]  # done: nobody waits any more
        try:
            heard = self.hear_now([reading for reading, _ in turn])
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait, whatever it is
            for _, future in turn:
                future.set_exception(error)
            return
        for (_, future), said in zip(turn, heard, strict=True):
            future.set_result(said)

    def _run(self, readings: Sequence[Reading]) -> Sequence[Heard]:
        """Run one group."""
        began, first = self._clock(), readings[0]
        until = min(reading.until for reading in readings)
        work = _work(readings)
        if trouble := first.submodel.trouble(left=until - began, work=work):
            return [trouble] * len(readings)
        options = self._watchdog.watch(until)
        try:
            heard: Sequence[Heard] = first.model.rank_many(
                [reading.history for reading in readings],
                k=max(reading.k for reading in readings),
                vectors=first.vectors,
                options=options,
            )
        except ModelFailedError:
            heard = [Trouble.SLOW if options.terminate else Trouble.FAILED] * len(readings)
        finally:
            self._watchdog.rest()
        if heard[0] is Trouble.FAILED and len(readings) > 1:
            # One history may have spoilt the run for all: each is read for itself, and is to blame for itself.
            return [self._run([reading])[0] for reading in readings]
        blameless = first.hurried and heard[0] is Trouble.SLOW
        failed = None if blameless else isinstance(heard[0], Trouble)
        first.submodel.note(self._clock() - began, failed=failed, work=work)
        return heard


def grouped(readings: Sequence[Reading]) -> list[list[int]]:
    """Which of these are run together: of one model, of about one length, all or none of them hurried."""
    order = sorted(
        range(len(readings)), key=lambda n: (id(readings[n].vectors), readings[n].hurried, readings[n].length)
    )
    groups: list[list[int]] = []
    for number in reversed(order):  # the longest first, whose length the others are filled up to
        if groups and _fits(readings[number], [readings[other] for other in groups[-1]]):
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups


def _fits(reading: Reading, group: Sequence[Reading]) -> bool:
    longest = group[0]
    if (reading.model, reading.vectors) != (longest.model, longest.vectors) or reading.hurried or longest.hurried:
        return False
    run = (len(group) + 1) * (longest.length + _OVERHEAD_POSITIONS)
    padding = longest.length - reading.length
    return padding <= max(_BEARABLE, _WASTE * longest.length) and run <= MOST_POSITIONS


def _work(readings: Sequence[Reading]) -> float:
    return len(readings) * (max(reading.length for reading in readings) + _OVERHEAD_POSITIONS)
