"""A steady load on one edge, as of a shop: so many requests a second, and what became of each."""

import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from simulation.federation import Site

_TIMEOUT_SECONDS = 10.0
_LIMIT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request that was answered, or was not.

    Attributes:
        at: when it was sent, by the monotonic clock.
        seconds: until the whole answer was there.
        release: that answered, 0 before the first; None: the request failed.
    """

    at: float
    seconds: float
    release: int | None


class Customer:
    """One connection to an edge's query service, opened again after a failure."""

    def __init__(self, site: Site) -> None:
        self._line = http.client.HTTPConnection("127.0.0.1", site.port, timeout=_TIMEOUT_SECONDS)
        self._headers = {"Authorization": f"Bearer {site.key}", "Content-Type": "application/json"}

    def ask(self, history: Sequence[str]) -> Request:
        """Ask for recommendations."""
        body = json.dumps({"history": list(history), "limit": _LIMIT})
        began = time.monotonic()
        try:
            self._line.request("POST", "/v1/recommendations", body, self._headers)
            response = self._line.getresponse()
            answer = json.loads(response.read())
            release = int(answer["release"] or 0) if response.status == http.client.OK else None
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            self._line.close()
            release = None
        return Request(at=began, seconds=time.monotonic() - began, release=release)

    def leave(self) -> None:
        self._line.close()


@dataclass(slots=True)
class Load:
    """Clients with one connection each. A client asks again when its turn comes and its last answer is there.

    Attributes:
        requests: in the order in which they ended.
    """

    site: Site
    histories: Sequence[Sequence[str]]
    clients: int
    per_second: float
    requests: list[Request] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask until left."""
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(self.clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def _ask(self, number: int) -> None:
        every = self.clients / self.per_second
        due = time.monotonic() + every * number / self.clients
        customer, turn = Customer(self.site), number
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            asked = customer.ask(self.histories[turn % len(self.histories)])
            self.requests.append(asked)
            turn += self.clients
            due = max(due + every, asked.at)
        customer.leave()
