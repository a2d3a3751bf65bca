"""A broker that loses messages or says them twice: a proxy that understands MQTT and stands before a real broker.

It ends TLS on both sides. Whatever the broker publishes passes through `Fate`; everything else passes untouched.
"""

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

Fate = Callable[[str, bytes], int]
"""Topic and payload of one message on its way to the edge -> how many copies of it arrive."""

_PUBLISH = 3
_QOS_BITS = 0b0110
_CONNECT_SECONDS = 10.0
_CHUNK_BYTES = 64 * 1024
_LONGEST_LENGTH_BYTES = 4
_LENGTH_BITS = 0x7F


@dataclass(slots=True)
class Traffic:
    """Messages on their way to the edge.

    Attributes:
        delivered: payload bytes that reached the edge, by topic.
        lost: likewise those that did not.
    """

    delivered: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    lost_messages: int = 0


class LossyBroker:
    """Listens on a free loopback port for one edge, whose certificate it holds: TLS ends here."""

    def __init__(
        self, upstream: tuple[str, int], *, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, fate: Fate
    ) -> None:
        """Prepare.

        Args:
            upstream: the real broker's host and port.
            server_tls: what the edge sees: the broker's own certificate.
            client_tls: what the broker sees: the edge's certificate.
            fate: called on the proxy's threads, one message at a time.
        """
        self._upstream, self._server_tls, self._client_tls, self._fate = upstream, server_tls, client_tls, fate
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.traffic = Traffic()
        self._turn = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Pass on until left; then every connection is cut."""
        door = threading.Thread(target=self._let_in, name="lossy-door")
        door.start()
        try:
            yield self
        finally:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            door.join()
            self.cut()
            for thread in self._threads:
                thread.join()

    def cut(self) -> None:
        """Break every connection; the edge may come back."""
        with self._turn:
            ends = list(self._open)
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _let_in(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(raw,), name="lossy-edge")
            self._threads.append(thread)
            thread.start()

    def _serve(self, raw: socket.socket) -> None:
        with suppress(OSError), raw:
            raw.settimeout(_CONNECT_SECONDS)
            with (
                self._server_tls.wrap_socket(raw, server_side=True) as edge,
                socket.create_connection(self._upstream, timeout=_CONNECT_SECONDS) as plain,
                self._client_tls.wrap_socket(plain, server_hostname=self._upstream[0]) as broker,
            ):
                for end in (edge, broker):
                    end.settimeout(None)
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._turn:
                    self._open |= {edge, broker}
                try:
                    self._pass_on(edge, broker)
                finally:
                    with self._turn:
                        self._open -= {edge, broker}

    def _pass_on(self, edge: ssl.SSLSocket, broker: ssl.SSLSocket) -> None:
        # One thread for both ways: OpenSSL does not let two threads use one connection.
        coming = bytearray()
        while True:
            ready = [end for end in (edge, broker) if end.pending()] or select.select([edge, broker], [], [])[0]
            for end in ready:
                data = _receive(end)
                if data == b"":
                    return
                if data is None:
                    continue
                if end is edge:
                    broker.sendall(data)
                    continue
                coming += data
                for packet, message in _packets(coming):
                    edge.sendall(packet * (1 if message is None else self._take(*message)))

    def _take(self, topic: str, payload: bytes) -> int:
        with self._turn:
            copies = self._fate(topic, payload)
            if copies:
                self.traffic.delivered[topic] = self.traffic.delivered.get(topic, 0) + copies * len(payload)
            else:
                self.traffic.lost[topic] = self.traffic.lost.get(topic, 0) + len(payload)
                self.traffic.lost_messages += 1
            return copies


def _receive(end: ssl.SSLSocket) -> bytes | None:
    """What is there; None if that was none of the application's bytes, but a session ticket or half a record."""
    end.setblocking(False)
    try:
        return end.recv(_CHUNK_BYTES)
    except ssl.SSLWantReadError:
        return None
    finally:
        end.setblocking(True)


def _packets(coming: bytearray) -> Iterator[tuple[bytes, tuple[str, bytes] | None]]:
    """Whole packets of MQTT 3.1.1, taken from the start of what has come; topic and payload of those that publish."""
    while (size := _packet_size(coming)) is not None and size[0] + size[1] <= len(coming):
        head, length = size
        packet = bytes(coming[: head + length])
        del coming[: head + length]
        first, body = packet[0], packet[head:]
        if first >> 4 != _PUBLISH:
            yield packet, None
            continue
        end = 2 + int.from_bytes(body[:2], "big")
        start = end + (2 if first & _QOS_BITS else 0)
        yield packet, (body[2:end].decode(), body[start:])


def _packet_size(coming: bytearray) -> tuple[int, int] | None:
    """Bytes of the fixed header and of the rest; None while the header is not whole."""
    length = 0
    for place, byte in enumerate(coming[1 : 1 + _LONGEST_LENGTH_BYTES]):
        length |= (byte & _LENGTH_BITS) << (7 * place)
        if byte <= _LENGTH_BITS:  # else another byte follows
            return place + 2, length
    return None
