"""Too much to do: say so at once and when to come again, before everybody waits.

Each kind of request has a lane of its own, so that a burst of events does not starve the shoppers' queries. A lane
knows how many are in it and how long one more would wait: what it has waited before the door, and the time for those
before it. It sends away beyond a fixed number, and when the wait stays too long: after a moment in which the machine
was busy with something else those who came meanwhile are served. Lanes share one event loop, so the wait is
everybody's; the lane with the smaller budget gives way first.

Source:
    Nichols and Jacobson, Controlling Queue Delay, ACM Queue 10(5), 2012: a queue is bad when it stands.
"""

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_NEWEST = 0.1  # weight of the newest request in the mean service time


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one lane bears.

    Attributes:
        most: requests in it at the same time.
        wait_seconds: how long one may have to wait for its turn.
        body_bytes: of bodies that are being received for it at the same time.
    """

    most: int
    wait_seconds: float
    body_bytes: int = 64 << 20


class Lane:
    """Requests of one kind that have been let in and not yet been answered."""

    __slots__ = (
        "_body_bytes",
        "_late_since",
        "_left_at",
        "_most",
        "_wait_seconds",
        "inside",
        "note_shed",
        "receiving",
        "seconds",
    )

    def __init__(self, budget: Budget) -> None:
        self._most, self._wait_seconds, self._body_bytes = budget.most, budget.wait_seconds, budget.body_bytes
        self.inside = 0
        self.receiving = 0
        """Bytes of bodies that are under way."""
        self.seconds = 0.0
        """What one request takes, a moving mean."""
        self._left_at = 0.0
        self._late_since = inf
        self.note_shed: Callable[[], None] = lambda: None
        """Told of each that is refused."""

    def enter(self, *, now: float, waited: float) -> float:
        """Let one more in.

        Args:
            now: seconds of a clock that never goes back.
            waited: seconds that it has stood before the door.

        Returns:
            0.0, or after how many seconds it may come again; then it is not let in.
        """
        wait = waited + self.inside * self.seconds
        if self._stands(now, wait) or self.inside >= self._most:
            self.note_shed()
            return max(wait, self._wait_seconds)
        self.inside += 1
        return 0.0

    def _stands(self, now: float, wait: float) -> bool:
        """Has everybody had to wait too long, for as long as that?"""
        if wait <= self._wait_seconds:
            self._late_since = inf
            return False
        self._late_since = min(self._late_since, now)
        return now - self._late_since > self._wait_seconds

    def leave(self, *, entered: float, now: float) -> None:
        """One has been answered.

        It was served since it entered or since the one before it left, whichever was later: with many inside at once
        the time from end to end counts everybody's turn, and would be taken as many times too long.

        Args:
            entered, now: seconds of one clock.
        """
        self.inside -= 1
        self.seconds += _NEWEST * (now - max(entered, self._left_at) - self.seconds)
        self._left_at = now

    def receive(self, size: int) -> float:
        """Make room for a body.

        Returns:
            0.0, or after how many seconds there may be room; then none was made.
        """
        if self.receiving and self.receiving + size > self._body_bytes:
            self.note_shed()
            return self._wait_seconds
        self.receiving += size
        return 0.0
