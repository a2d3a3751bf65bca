"""What requests write, to disk: one thread writes, and events that wait together share a commit.

A commit flushes to disk and takes between 0.2 and some 10 ms; in the event loop it would stop every other answer.
While one commit runs, newer requests queue up and make the next one together, so throughput grows with load.
"""

import asyncio
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from edge.records.adding import AddOutcome
from edge.records.batch import Batch
from edge.records.store import Store
from protocol.errors import FederationError

_MOST_BATCHES = 256
_Result = TypeVar("_Result")
_Waiting = tuple[Batch, "asyncio.Future[AddOutcome]"]
_Settled = tuple["asyncio.Future[Any]", Any]
"""Who waits, and the result or the exception."""


class EventWriter:
    """The one writer of a service; lives in its event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._carry_out, name="event-writer", daemon=True)
        self._thread.start()
        self._waiting: list[_Waiting] = []
        self._writing = False

    async def add(self, batch: Batch) -> AddOutcome:
        """Returns when the events are on disk.

        Raises:
            NoSpaceError: the disk is full, nothing of these events was written; so does UnavailableError.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[AddOutcome] = loop.create_future()
        self._waiting.append((batch, done))
        if not self._writing:
            self._write_next(loop)
        return await done

    async def run(self, change: Callable[[], _Result]) -> _Result:
        """Carry out another change of the store, after what waits already.

        Raises:
            Exception: whatever the change raises.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[_Result] = loop.create_future()

        def carry_out() -> None:
            _tell(loop, _settle, [(done, _tried(change))])

        self._work.put(carry_out)
        return await done

    def close(self) -> None:
        """Wait for the commit in progress."""
        self._work.put(None)
        self._thread.join()

    def _write_next(self, loop: asyncio.AbstractEventLoop) -> None:
        turn, self._waiting = self._waiting[:_MOST_BATCHES], self._waiting[_MOST_BATCHES:]
        self._writing = True

        def carry_out() -> None:
            outcomes = self._write([batch for batch, _ in turn])
            settled = [(done, outcome) for (_, done), outcome in zip(turn, outcomes, strict=True)]
            if not _tell(loop, self._go_on, loop, settled):
                self._writing = False

        self._work.put(carry_out)

    def _write(self, batches: list[Batch]) -> Sequence[AddOutcome | Exception]:
        """In the writing thread: one commit for all, or for each by itself when one of them cannot be written."""
        outcomes = _tried(lambda: self._store.add_groups(batches))
        if not isinstance(outcomes, Exception):
            return outcomes
        if len(batches) == 1 or isinstance(outcomes, FederationError):
            return [outcomes] * len(batches)
        return [self._write([batch])[0] for batch in batches]

    def _go_on(self, loop: asyncio.AbstractEventLoop, settled: Sequence[_Settled]) -> None:
        _settle(settled)
        self._writing = False
        if self._waiting:
            self._write_next(loop)

    def _carry_out(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def _tried(change: Callable[[], _Result]) -> _Result | Exception:
    try:
        return change()
    except Exception as error:  # noqa: BLE001 - it belongs to those who wait, whatever it is
        return error


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *values: object) -> bool:
    """From the writing thread to the loop; false when it has ended, and nobody waits any more."""
    try:
        loop.call_soon_threadsafe(call, *values)
    except RuntimeError:
        return False
    return True


def _settle(settled: Sequence[_Settled]) -> None:
    for done, outcome in settled:
        if done.done():  # its request was cancelled; what it asked for is on disk all the same
            continue
        if isinstance(outcome, Exception):
            done.set_exception(outcome)
        else:
            done.set_result(outcome)
