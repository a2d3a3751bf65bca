"""Connections that take their time: uvicorn's protocol, with a deadline for each thing that a client must do.

uvicorn waits for ever for the head of a first request, for the rest of a body and for a reader of an answer, and takes
heads of any length. A few hundred sockets that say one byte a minute would keep everybody out. Here:

- a head must be complete in `head_seconds`, and neither it nor what follows a body may be longer than `head_bytes`;
- a body may fall behind 1,024 bytes a second by `body_seconds`, and so may a reader of an answer;
- when all connections are taken, a new one gets the place of the idle one whose time would be up first;
- an answer before the end of a body is followed by a short time of reading on, without which the client's own sending
  would break before it has read why (RFC 9112, 9.6).
"""

import asyncio
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from time import perf_counter
from typing import Any, Final

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from edge.api.door import ARRIVED
from edge.api.problems import MEDIA_TYPE, body_of
from edge.settings import ServingSettings

BYTES_PER_SECOND: Final = 1024
_MOST_HEADERS = 128
_MOST_PIPELINED = 64
_MOST_UNWANTED = 64 << 10
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 4 << 20
_LONGEST_LOOK = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long clients are waited for, in seconds, and how much of them there may be."""

    head_seconds: float
    body_seconds: float
    idle_seconds: float
    connections: int
    head_bytes: int = 64 << 10

    @property
    def look_seconds(self) -> float:
        """How often a connection is looked at."""
        return min(_LONGEST_LOOK, self.head_seconds / 4, self.body_seconds / 4, self.idle_seconds / 4)


def server_config(app: Any, settings: ServingSettings, **options: Any) -> Config:
    """Settings of uvicorn for the query service."""
    patience = Patience(
        head_seconds=settings.head_seconds,
        body_seconds=settings.body_seconds,
        idle_seconds=settings.idle_seconds,
        connections=settings.max_connections,
    )
    return Config(
        app,
        http=_protocol(patience),
        ws="none",
        server_header=False,
        proxy_headers=False,  # the client's address is neither used nor logged
        access_log=False,
        log_config=None,
        **options,
    )


@cache
def _protocol(patience: Patience) -> type[HttpToolsProtocol]:
    return type("Connection", (Connection,), {"patience": patience})


class Connection(HttpToolsProtocol):
    """One connection.

    Attributes:
        until: when what we wait for must have come, by the loop's clock; None while the client waits for us.
    """

    patience: Patience
    until: float | None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it, in the place of another one if need be."""
        super().connection_made(transport)
        self.transport = Lingering(transport, self)
        self._mid = False  # between the first byte of a request and its last
        self._quiet = 0  # bytes since the parser got on
        self._unwanted = 0  # bytes of a body that came after its answer
        self._lingering = False
        self._write_until: float | None = None
        self.until = self.loop.time() + self.patience.head_seconds
        self._timer = self.loop.call_later(self.patience.look_seconds, self._look)
        if len(self.connections) > self.patience.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    @property
    def idle(self) -> bool:
        """Nothing is being answered here."""
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> None:
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        idle = [other for other in others if other.idle]
        oldest = min(idle, key=lambda other: other.until or 0.0, default=None)
        if oldest is not None:
            oldest.transport.abort()
        else:
            self.refuse(HTTPStatus.TOO_MANY_REQUESTS, "there are too many connections", b"retry-after: 1\r\n")

    def _look(self) -> None:
        """Is it late?"""
        now = self.loop.time()
        if (self._write_until is not None and now > self._write_until) or (self.until is not None and now > self.until):
            self._give_up()
        if self.parser is not None:  # else the connection is lost
            self._timer = self.loop.call_later(self.patience.look_seconds, self._look)

    def _give_up(self) -> None:
        if self.flow.read_paused and self._write_until is None and not self._lingering:
            self.until = self.loop.time() + self.patience.body_seconds  # it is we who do not read
        elif self.transport.is_closing() or self._write_until is not None:
            self.transport.abort()
        elif self._mid or self._quiet:
            self.refuse(HTTPStatus.REQUEST_TIMEOUT, "the request did not come to its end in time")
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        self._quiet += len(data)
        if self._lingering:
            if self._quiet > _LINGER_BYTES:
                self.flow.pause_reading()
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # answered as any request is; what comes after it is not understood and not waited for
        except httptools.HttpParserError:
            self.refuse(HTTPStatus.BAD_REQUEST, "this is no HTTP request")
            return
        if self._quiet > self.patience.head_bytes:
            self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head of the request is too long")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._mid, self._unwanted = True, 0
        self.until = self.loop.time() + self.patience.head_seconds

    def on_headers_complete(self) -> None:
        if len(self.headers) > _MOST_HEADERS or len(self.pipeline) > _MOST_PIPELINED:
            raise ValueError("too many headers, or requests before an answer")
        super().on_headers_complete()
        self._quiet = 0
        self.scope[ARRIVED] = perf_counter()  # type: ignore[typeddict-unknown-key]
        self.until = self.loop.time() + self.patience.body_seconds

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._quiet = 0
        if self.cycle.response_complete:
            self._unwanted += len(body)
            if self._unwanted > _MOST_UNWANTED:
                self.transport.close()
        elif self.until is not None:
            now = self.loop.time()
            self.until = min(self.until + len(body) / BYTES_PER_SECOND, now + self.patience.body_seconds)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._mid, self._quiet = False, 0
        self.until = self.loop.time() + self.patience.idle_seconds if self.idle else None

    def on_response_complete(self) -> None:
        """The next one may come, or has come already."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._mid:
            if self.cycle.more_body:  # else it is the next one's head that is under way, and its deadline stands
                self.until = self.loop.time() + _LINGER_SECONDS
        else:
            self.until = self.loop.time() + self.patience.idle_seconds

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_until = self.loop.time() + self.patience.body_seconds

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_until = None

    def linger(self) -> bool:
        """Must what the client still sends be read on for a while?"""
        if self._lingering or not self._mid:
            return False
        self._lingering, self._quiet = True, 0
        self.until = self.loop.time() + _LINGER_SECONDS
        return True

    def closing_since(self) -> None:
        """What is written must be gone in time."""
        self.until = self.loop.time() + self.patience.body_seconds

    def refuse(self, status: HTTPStatus, detail: str, more: bytes = b"") -> None:
        """Say what is wrong, unless an answer is being written or an earlier one is due, and close."""
        ours = self.cycle is None or self.cycle.response_complete or (self._mid and not self.cycle.response_started)
        if ours and not self.pipeline and not self.transport.is_closing():
            body = body_of(status, detail)
            self.transport.write(
                b"%scontent-type: %s\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n%s"
                % (STATUS_LINE[status], MEDIA_TYPE.encode(), len(body), more, body)
            )
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


class Lingering(asyncio.Transport):
    """A transport that reads on for a while before it closes, where a request was cut off by its answer."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        super().__init__()
        self._transport, self._connection = transport, connection
        self._closing = False
        self.get_extra_info = transport.get_extra_info  # type: ignore[method-assign]

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write, unless it is closed: of several requests at once the others may still have something to say."""
        if not self._closing:
            self._transport.write(data)

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def close(self) -> None:
        """Close when what was written is out; before that, read on if there is reason to."""
        if self.is_closing():
            return
        self._closing = True
        if self._connection.linger() and self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._connection.closing_since()
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self._closing = True
        self._transport.abort()
