"""A fuse before each submodel: one that keeps failing is left out at once, and tried again after a while.

closed     it is asked, and its failures are counted
open       it is not asked
half-open  it is asked again; one answer closes the fuse, one failure opens it for twice as long

Source: Nygard, Release It!, 2007, "Circuit Breaker".
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Final

_FAILURES: Final = 5
_SHARE: Final = 0.5
_WINDOW_SECONDS: Final = 30.0
_REST_SECONDS: Final = 5.0
_LONGEST_REST_SECONDS: Final = 300.0


class State(IntEnum):
    """As the gauge of the metrics shows it."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Opens after five failures within half a minute, if they are at least half of what was asked."""

    def __init__(self, *, clock: Callable[[], float], changed: Callable[[State], None] = lambda _: None) -> None:
        """Begin closed.

        Args:
            clock: seconds that never go back.
            changed: told of every new state.
        """
        self.state = State.CLOSED
        self._clock = clock
        self._changed = changed
        self._failures = self._answers = 0
        self._since = clock()
        self._rest = _REST_SECONDS

    def lets_through(self) -> bool:
        """Whether the submodel may be asked now."""
        if self.state is State.OPEN and self._clock() - self._since >= self._rest:
            self._go(State.HALF_OPEN)
        return self.state is not State.OPEN

    def note(self, *, failed: bool) -> None:
        """It was asked, and this is what came of it."""
        if self.state is State.HALF_OPEN and not failed:
            self._rest = _REST_SECONDS
            self._go(State.CLOSED)
        elif self.state is State.HALF_OPEN:
            self._rest = min(2 * self._rest, _LONGEST_REST_SECONDS)
            self._go(State.OPEN)
        else:
            self._count(failed=failed)

    def _count(self, *, failed: bool) -> None:
        if self._clock() - self._since > _WINDOW_SECONDS:
            self._begin()
        self._answers += 1
        self._failures += failed
        if failed and self._failures >= max(_FAILURES, _SHARE * self._answers) and self.state is State.CLOSED:
            self._go(State.OPEN)

    def _go(self, state: State) -> None:
        self.state = state
        self._begin()
        self._changed(state)

    def _begin(self) -> None:
        self._failures = self._answers = 0
        self._since = self._clock()
