"""Events from many requests to disk: one thread writes, and requests that wait together share a commit.

A commit flushes to disk and takes between 0.2 and some 10 ms; in the event loop it would stop every other answer.
While one commit runs, newer requests queue up and make the next one together, so throughput grows with load.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from edge.records.events import Event
from edge.records.store import AddOutcome, Store

_MOST_GROUPS = 256


class EventWriter:
    """The one writer of a service; lives in its event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="event-writer")
        self._waiting: list[tuple[Sequence[Event], asyncio.Future[AddOutcome]]] = []
        self._drain: asyncio.Task[None] | None = None

    async def add(self, events: Sequence[Event]) -> AddOutcome:
        """Returns when the events are on disk.

        Raises:
            NoSpaceError: the disk is full, nothing of these events was written; so does UnavailableError.
        """
        done: asyncio.Future[AddOutcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((events, done))
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._write_all())
        return await done

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            turn, self._waiting = self._waiting[:_MOST_GROUPS], self._waiting[_MOST_GROUPS:]
            try:
                groups = [events for events, _ in turn]
                outcomes = await loop.run_in_executor(self._thread, self._store.add_groups, groups)
            except Exception as error:  # noqa: BLE001 - it belongs to those who wait, whatever it is
                for _, done in turn:
                    if not done.done():
                        done.set_exception(error)
                continue
            for (_, done), outcome in zip(turn, outcomes, strict=True):
                if not done.done():  # its request may have been cancelled; its events are on disk all the same
                    done.set_result(outcome)

    def close(self) -> None:
        """Wait for the commit in progress."""
        self._thread.shutdown()
