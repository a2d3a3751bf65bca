"""How often one key may ask: a bucket that fills at a steady rate and from which each request takes one."""


class TokenBucket:
    """So many requests a second, and so many at once after a quiet while.

    Source:
        Partridge, A Proposed Flow Specification, RFC 1363, 1992 (the token bucket).
    """

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, *, rate: float, burst: int, now: float) -> None:
        """Begin full.

        Args:
            rate: requests a second, more than 0.
            burst: what it holds at most, one or more.
            now: seconds of a clock that never goes back.
        """
        self._rate, self._burst = rate, float(burst)
        self._left, self._at = self._burst, now

    def take(self, now: float) -> float:
        """Take one.

        Returns:
            0.0, or the seconds until there is one to take; then nothing was taken.
        """
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            return (1.0 - self._left) / self._rate
        self._left -= 1.0
        return 0.0
