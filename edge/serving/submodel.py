"""What stands before each submodel: it is asked only while it is well and there is time for it."""

from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from edge.serving.breaker import Breaker, State
from edge.serving.deadline import Pace

RECOMMEND: Final = "recommend"
COMPANIONS: Final = "companions"
CONTEXT: Final = "context"
NAMES: Final = (RECOMMEND, COMPANIONS, CONTEXT)
"""A closed set: answers and metrics name them."""


class Trouble(Enum):
    """Why a submodel has not spoken."""

    FAILED = auto()
    SLOW = auto()
    """There was no time for it, or it was stopped."""
    PAUSED = auto()
    """It has failed so often that it is left alone for a while."""


class Submodel:
    """How one submodel does, as long as it is loaded."""

    def __init__(self, *, clock: Callable[[], float], changed: Callable[[State], None] = lambda _: None) -> None:
        """Nothing is known of it yet.

        Args:
            clock: seconds that never go back.
            changed: told of every new state of its breaker.
        """
        self._breaker = Breaker(clock=clock, changed=changed)
        self._pace = Pace()

    def trouble(self, *, left: float, work: float = 1.0) -> Trouble | None:
        """Why not to ask it; None: ask.

        Args:
            left: seconds until its answer is of no use.
            work: how much is asked, in whatever unit it is always asked in.
        """
        if not self._breaker.lets_through():
            return Trouble.PAUSED
        if left <= self._pace.expects(work):
            self._pace.doubt()
            return Trouble.SLOW
        return None

    def note(self, seconds: float, *, failed: bool | None, work: float = 1.0) -> None:
        """It was asked, and took so long.

        Args:
            failed: None: it did not answer, and is not to blame.
        """
        if failed is not None:
            self._breaker.note(failed=failed)
        self._pace.note(seconds, work=work)
