"""Reading retained messages: a bounded window, asked again where something was lost, given up after a bounded time.

A broker may drop any message silently, send it twice or in another order. What was asked for earlier comes earlier,
so a topic that is still missing when those asked for two windows later arrive is asked for again at once.
"""

import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Protocol

from protocol.errors import FederationError, UnavailableError, UntrustedError, UntrustedReleaseError

_SHORTEST_WAIT = 1.0
_GAPS = 4
_LOST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How reading retained messages goes on.

    Attributes:
        window: outstanding topics; a broker drops silently what its queue for one client does not hold.
        silence: seconds without any answer before it is asked again, at the latest.
        attempts: after so many times `silence` without any answer the broker counts as unavailable.
        slowest: bytes a second; a broker that sends less over a whole read counts as unavailable.
    """

    window: int = 16
    silence: float = 10.0
    attempts: int = 3
    slowest: float = 16 * 1024

    @property
    def patience(self) -> float:
        """Seconds without any answer until reading is given up."""
        return self.silence * self.attempts


class Line(Protocol):
    """What a reading needs of a connection."""

    @property
    def trouble(self) -> FederationError | None:
        """Why there is no connection now."""

    def ask(self, reading: "Reading", topics: Iterable[str]) -> None:
        """Subscribe (again): what is retained there goes to `Reading.take`."""

    def release(self, reading: "Reading", topics: Iterable[str]) -> None:
        """Unsubscribe."""


class Reading:
    """One reading of many topics."""

    def __init__(self, line: Line, topics: Iterable[str], *, pace: Pace, limit: int) -> None:
        """Prepare; nothing is asked for yet.

        Args:
            topics: each once.
            limit: bytes of the largest message that can be right.
        """
        self._line = line
        self._source = iter(topics)
        self._pace = pace
        self._limit = limit
        self._arrived: SimpleQueue[tuple[str, bytes]] = SimpleQueue()
        self._open: set[str] = set()
        self._lock = threading.Lock()
        self._asked: dict[str, int] = {}  # topic that is waited for -> the number of the question it was last part of
        self._questions = 0
        self._seconds_left = pace.patience

    def take(self, topic: str, payload: bytes) -> None:
        """A message has arrived; called on the network thread. Only the first of a topic is kept."""
        with self._lock:
            if topic not in self._open:
                return
            self._open.discard(topic)
        self._arrived.put((topic, payload))

    def messages(self) -> Generator[tuple[str, bytes]]:
        """Each topic with its message, in any order; close it when leaving early.

        Raises:
            UnavailableError: nothing came for too long, or all of it too slowly. What was yielded before is good.
            UntrustedError: the broker refuses us, or is not this federation's.
            UntrustedReleaseError: a message is longer than any that can be right.
        """
        done: list[str] = []
        wait, silent, longest = self._pace.silence, 0.0, 0.0
        try:
            while True:
                if len(self._asked) <= self._pace.window // 2:
                    self._line.release(self, done)
                    done.clear()
                    self._ask(list(islice(self._source, self._pace.window - len(self._asked))), fresh=True)
                if not self._asked:
                    return
                began = monotonic()
                try:
                    topic, payload = self._arrived.get(timeout=min(wait, self._pace.patience - silent))
                except Empty:
                    silent += monotonic() - began
                    self._check_patience(silent, monotonic() - began)
                    self._ask(list(self._asked))
                    wait = min(2 * wait, self._pace.silence)
                    continue
                waited = monotonic() - began
                silent, longest = 0.0, max(longest, waited)
                wait = min(self._pace.silence, max(_SHORTEST_WAIT, _GAPS * longest))
                self._check_patience(silent, waited)
                self._check_length(topic, payload)
                number = self._asked.pop(topic)
                done.append(topic)
                self._ask([topic for topic, asked in self._asked.items() if asked + _LOST <= number])
                yield topic, payload
        finally:
            with self._lock:
                self._open.clear()
            self._line.release(self, [*self._asked, *done])

    def _ask(self, topics: list[str], *, fresh: bool = False) -> None:
        if not topics:
            return
        self._questions += 1
        self._asked.update(dict.fromkeys(topics, self._questions))
        if fresh:
            self._seconds_left += len(topics) * self._limit / self._pace.slowest
        with self._lock:
            self._open.update(topics)
        self._line.ask(self, topics)

    def _check_patience(self, silent: float, waited: float) -> None:
        self._seconds_left -= waited
        trouble = self._line.trouble
        if isinstance(trouble, UntrustedError):
            raise trouble
        if silent >= self._pace.patience:
            missing = sorted(self._asked)
            raise trouble or UnavailableError(
                f"the broker has not sent {missing[0]} and {len(missing) - 1} more within {self._pace.patience:g} s",
                advice="the center has to publish it again",
            )
        if self._seconds_left < 0:
            raise UnavailableError(
                f"the broker sends less than {self._pace.slowest:g} bytes a second",
                advice="the next attempt goes on from here",
            )

    def _check_length(self, topic: str, payload: bytes) -> None:
        if len(payload) > self._limit:
            raise UntrustedReleaseError(
                f"{topic} holds {len(payload)} bytes, longer than the {self._limit} it may have"
            )
