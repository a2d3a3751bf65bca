"""Asks over HTTP at the least cost to the machine: raw sockets, requests made beforehand, closed loops.

One client: ask, wait, ask. Many: as many connections, each asking again as soon as it has its answer, in one thread.
"""

import json
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from protocol.errors import FederationError

_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_PIECE = 1 << 16
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where to ask, and with what key."""

    port: int
    key: str = ""

    def request(self, path: str, body: object) -> bytes:
        """The bytes of one POST."""
        content = json.dumps(body).encode()
        key = f"Authorization: Bearer {self.key}\r\n" if self.key else ""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{key}Content-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """A connection that sends at once."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=_TIMEOUT_SECONDS) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield line


def ask(line: socket.socket, request: bytes) -> bytes:
    """The body of the answer.

    Raises:
        FederationError: it is no success.
    """
    line.sendall(request)
    data = line.recv(_PIECE)
    while not (whole := _whole(data)):
        more = line.recv(_PIECE)
        if not more:
            raise FederationError("the server hung up in the middle of an answer")
        data += more
    return _checked(data)[whole:]


def one_by_one(line: socket.socket, requests: Sequence[bytes]) -> list[float]:
    """Seconds that each took, from the first byte sent to the last one back."""
    seconds = []
    for request in requests:
        began = time.perf_counter()
        ask(line, request)
        seconds.append(time.perf_counter() - began)
    return seconds


def at_once(server: Server, requests: Sequence[bytes], *, clients: int, seconds: float) -> int:
    """How many were answered in so many seconds; every connection always has one question out.

    Raises:
        FederationError: an answer is no success.
    """
    lines: dict[int, socket.socket] = {}
    waiting: dict[int, bytes] = {}
    answered, turn = 0, 0
    poll = select.epoll()
    try:
        for _ in range(clients):
            line = socket.create_connection(("127.0.0.1", server.port), timeout=_TIMEOUT_SECONDS)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            lines[line.fileno()] = line
            waiting[line.fileno()] = b""
            poll.register(line, select.EPOLLIN)
        end = time.monotonic() + seconds
        for line in lines.values():
            line.sendall(requests[turn % len(requests)])
            turn += 1
        while time.monotonic() < end:
            for number, _ in poll.poll(1.0):
                data = waiting[number] + lines[number].recv(_PIECE)
                waiting[number] = data
                if _whole(data):
                    _checked(data)
                    answered += 1
                    waiting[number] = b""
                    lines[number].sendall(requests[turn % len(requests)])
                    turn += 1
    finally:
        poll.close()
        for line in lines.values():
            line.close()
    return answered


def _whole(data: bytes) -> int:
    """Where the body of a whole answer begins; 0: more must come."""
    head = data.find(_END)
    if head < 0:
        return 0
    lowered = data[:head].lower()
    at = lowered.find(_LENGTH)
    length = int(lowered[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
    return head + len(_END) if len(data) >= head + len(_END) + length else 0


def _checked(data: bytes) -> bytes:
    if not data.startswith(b"HTTP/1.1 200"):
        raise FederationError(f"the server answers {data[:300]!r}")
    return data
