"""One question to several edges, and the answers of those who give one in time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from protocol.identity import EdgeId
from protocol.transport import Request, Transport

_log = structlog.get_logger(__name__)
_WAIT_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Asks and waits.

    Attributes:
        seconds: how long edges have for a short step.
        stopped: asked between two waits; a center that is told to stop takes what it has.
    """

    transport: Transport
    seconds: float
    now_ms: Callable[[], int]
    stopped: Callable[[], bool]

    def ask(self, requests: Mapping[EdgeId, Request]) -> dict[EdgeId, bytes]:
        """Ask, and wait until everyone has answered or refused, or the time is up; refusals are logged.

        Raises:
            UnavailableError: the transport is away.
        """
        answers: dict[EdgeId, bytes] = {}
        if not requests:
            return answers
        waiting = set(requests)
        deadline_ms = self.now_ms() + int(1000 * self.seconds)
        self.transport.send(requests)
        try:
            while waiting and self.now_ms() < deadline_ms and not self.stopped():
                for edge, reply in self.transport.receive(timeout=_WAIT_SECONDS):
                    waiting.discard(edge)
                    if edge in requests and reply.body is not None:
                        answers[edge] = reply.body
                    elif edge in requests:
                        _log.warning("refused", edge=edge, action=requests[edge].action, why=reply.error)
        finally:
            self.transport.forget()  # or the next question would be charged with an answer to this one
        return answers
