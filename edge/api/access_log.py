"""Who asked what kind of thing, and how it went: a line a request, with nothing in it of users, items or searches.

A line holds the route's template and never the path, which a caller may fill with what it likes. The event loop only
puts a tuple aside; writing is done once a second by a thread. What comes faster than it is written is counted.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple, TextIO

import structlog

Detail = Literal["none", "failures", "all"]
FLUSH_SECONDS: Final = 1.0
_MOST_WAITING = 20_000
_FAILURE = 500


class Passed(NamedTuple):
    """One request that has been answered.

    Attributes:
        at: seconds since 1970.
        route: the template, such as `/v1/events`; "other" for what is no route.
        seconds: from the head of the request to the end of the answer.
        key: label of the API key; None: it came without a good one.
        sent: bytes of the answer's body.
    """

    at: float
    method: str
    route: str
    status: int
    seconds: float
    key: str | None
    sent: int


class AccessLog:
    """Keeps what has passed until it is written."""

    def __init__(
        self, detail: Detail, *, stream: Callable[[], TextIO] = lambda: sys.stderr, most: int = _MOST_WAITING
    ) -> None:
        """Keep a log.

        Args:
            detail: `failures` are answers of 500 and above, the edge's own faults.
            stream: where to; asked at each writing.
            most: lines that wait for the next writing.
        """
        self._from = {"none": None, "failures": _FAILURE, "all": 0}[detail]
        self._stream, self._most = stream, most
        self._waiting: deque[Passed] = deque()
        self._lost = 0

    def wants(self, status: int) -> bool:
        return self._from is not None and status >= self._from

    def note(self, passed: Passed) -> None:
        """Keep a line for the next writing; what is too much is counted."""
        if len(self._waiting) < self._most:
            self._waiting.append(passed)
        else:
            self._lost += 1

    def write(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, deque()
        lost, self._lost = self._lost, 0
        log = structlog.wrap_logger(
            structlog.WriteLogger(self._stream()),
            processors=[structlog.processors.JSONRenderer(sort_keys=False)],
            wrapper_class=structlog.BoundLogger,
        )
        for passed in waiting:
            log.info("request", **_line(passed))
        if lost:
            log.info("requests not logged", count=lost)

    async def keep_writing(self) -> None:
        """Once a second, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            if self._waiting:
                await asyncio.to_thread(self.write)


def _line(passed: Passed) -> dict[str, object]:
    return {
        "time": datetime.fromtimestamp(passed.at, UTC).isoformat(timespec="milliseconds"),
        "method": passed.method,
        "route": passed.route,
        "status": passed.status,
        "ms": round(passed.seconds * 1000, 2),
        "key": passed.key,
        "bytes": passed.sent,
    }
