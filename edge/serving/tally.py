"""How one release has answered so far: counts and times, nothing of who asked what."""

import numpy as np

_KEPT = 4_096
_PERCENTILE = 99.0


class Tally:
    """Answers of one release; the newest 4,096 times are kept."""

    def __init__(self) -> None:
        self.answers = 0
        self.errors = 0
        self.slow = 0
        self.slow_from = float("inf")
        """Seconds from which on an answer counts as slow; whoever watches sets it."""
        self._seconds = np.zeros(_KEPT, np.float32)

    def note(self, seconds: float, *, failed: bool) -> None:
        """One answer was given, or failed."""
        self._seconds[self.answers % _KEPT] = seconds
        self.answers += 1
        self.errors += failed
        self.slow += seconds >= self.slow_from

    def p99(self) -> float:
        """Seconds, 99th percentile; 0 before the first answer."""
        kept = self._seconds[: min(self.answers, _KEPT)]
        return float(np.percentile(kept, _PERCENTILE)) if kept.size else 0.0
