"""Reading retained messages: a bounded window, asked again where something was lost, given up after a bounded time.

A broker may drop any message silently, send it twice or in another order. As a rule it answers in the order of asking.
So what was overtaken by a whole window is lost and asked for again at once. When nothing comes for a second or so, what
was overtaken at all is asked for again, else one topic alone, to find out: a slow line must not get slower by it.
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
_USELESS = 2


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

    def revive(self) -> None:
        """Break a connection over which nothing comes any more and make a new one."""


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
        self._asked: dict[str, int] = {}  # topic that is waited for -> its place among all that was ever asked
        self._place = 0
        self._front = 0  # the highest place that was answered
        self._longest = 0.0
        self._silent = 0.0
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
        wait = min(_SHORTEST_WAIT, self._pace.silence)
        try:
            while True:
                if fresh := self._next_topics():
                    self._line.release(self, done)
                    done.clear()
                    self._seconds_left += len(fresh) * self._limit / self._pace.slowest
                    self._ask(fresh)
                if not self._asked:
                    return
                message = self._next_message(wait)
                if message is None:
                    wait = min(2 * wait, self._pace.silence)
                    continue
                wait = min(self._pace.silence, max(_SHORTEST_WAIT, _GAPS * self._longest))
                topic, payload = message
                self._check_length(topic, payload)
                self._front = max(self._front, self._asked.pop(topic))
                done.append(topic)
                self._ask(self._overtaken(by=self._pace.window))
                yield topic, payload
        finally:
            with self._lock:
                self._open.clear()
            self._line.release(self, [*self._asked, *done])

    def _next_topics(self) -> list[str]:
        if len(self._asked) > self._pace.window // 2:
            return []
        return list(islice(self._source, self._pace.window - len(self._asked)))

    def _next_message(self, wait: float) -> tuple[str, bytes] | None:
        """What arrives within some seconds; otherwise what seems lost has been asked for again."""
        began = monotonic()
        try:
            message = self._arrived.get(timeout=min(wait, self._pace.patience - self._silent))
        except Empty:
            before, waited = self._silent, monotonic() - began
            self._silent += waited
            self._check_patience(waited)
            self._ask_again(before)
            return None
        waited = monotonic() - began
        self._silent, self._longest = 0.0, max(self._longest, waited)
        self._check_patience(waited)
        return message

    def _ask_again(self, before: float) -> None:
        """Nothing has come since the last asking, `before` seconds after the last message."""
        silences, silences_before = (int(seconds // self._pace.silence) for seconds in (self._silent, before))
        if silences == silences_before:
            self._ask(self._overtaken(by=1) or [min(self._asked, key=self._asked.__getitem__)])
            return
        if silences_before < _USELESS <= silences:
            # A broker keeps few places for messages that were not acknowledged; those that got lost on the way hold
            # theirs until the connection ends.
            self._line.revive()
        self._ask(list(self._asked))

    def _overtaken(self, *, by: int) -> list[str]:
        return [topic for topic, place in self._asked.items() if place + by <= self._front]

    def _ask(self, topics: list[str]) -> None:
        if not topics:
            return
        for topic in topics:
            self._place += 1
            self._asked[topic] = self._place
        with self._lock:
            self._open.update(topics)
        self._line.ask(self, topics)

    def _check_patience(self, waited: float) -> None:
        self._seconds_left -= waited
        trouble = self._line.trouble
        if isinstance(trouble, UntrustedError):
            raise trouble
        if self._silent >= self._pace.patience:
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
