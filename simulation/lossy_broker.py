"""A way to the broker that loses, repeats, swaps, damages or delays what the broker sends to edges.

It stands between edges and a real broker, ends their TLS and opens its own in their names: so it needs the broker's
papers and those of every edge. Messages from edges pass untouched. Every decision is drawn from a seed.
"""

import asyncio
import random
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_PUBLISH = 0x30
_KIND = 0xF0
_QOS = 0x06
_PUBACK = 0x40
_CONNECT_SECONDS = 10.0
_HOLD_SECONDS = 0.2
_BLOCK = "/block/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """PEM files of a certificate and its private key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What happens to messages on their way to an edge; shares of them, 0 to 1.

    Attributes:
        about: only messages whose topic contains this.
        drop: lost, as a broker loses one whose queue is full: it counts as delivered.
        keep_books: the broker is not told of a loss: the message keeps its place among those not acknowledged.
        duplicate: sent twice.
        swap: sent after the next one, if that comes soon.
        damage: one byte of the payload is another.
        bytes_per_second: no more than this for each connection; None: as fast as it goes.
    """

    about: str = _BLOCK
    drop: float = 0.0
    keep_books: bool = False
    duplicate: float = 0.0
    swap: float = 0.0
    damage: float = 0.0
    bytes_per_second: float | None = None


@dataclass(slots=True)
class Traffic:
    """What went to the edges, whole MQTT packets without TLS.

    Attributes:
        payloads: bytes of messages that matched `Faults.about` and were sent, repetitions too.
        lost: bytes of those that were dropped.
        messages: how many matched, by what became of them.
    """

    payloads: int = 0
    lost: int = 0
    messages: dict[str, int] = field(default_factory=dict)

    def count(self, fate: str) -> None:
        self.messages[fate] = self.messages.get(fate, 0) + 1


class LossyBroker:
    """Runs on a thread of its own; `faults` may be changed at any time.

    Attributes:
        port: where edges connect, on 127.0.0.1.
    """

    def __init__(
        self,
        broker: tuple[str, int],
        *,
        authority: Path,
        own: Papers,
        papers_of: Callable[[str], Papers],
        faults: Faults | None = None,
        seed: int = 0,
    ) -> None:
        """Prepare.

        Args:
            authority: PEM of the federation's certificate authority.
            own: the broker's papers, shown to edges.
            papers_of: the papers of an edge, by its name.
        """
        self._broker = broker
        self._authority = authority
        self._own = own
        self._papers_of = papers_of
        self.faults = faults or Faults()
        self.traffic = Traffic()
        self.port = 0
        self._drawn = random.Random(seed)  # noqa: S311 - faults that can be repeated, no secrets
        self._lines: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lossy-broker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        listening = self._loop.run_until_complete(self._listen())
        self.port = listening.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        listening.close()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self._authority)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self._own.certificate, self._own.key)
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)

    async def _end(self) -> None:
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for line in self._lines:
            line.transport.abort()
        await asyncio.gather(*serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        edge = _common_name(writer.get_extra_info("peercert"))
        papers = self._papers_of(edge)
        context = ssl.create_default_context(cafile=self._authority)
        context.load_cert_chain(papers.certificate, papers.key)
        upstream = None
        self._lines.add(writer)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                upstream = await asyncio.open_connection(*self._broker, ssl=context)
            to_broker = asyncio.ensure_future(_pass_on(reader, upstream[1]))
            to_edge = asyncio.ensure_future(self._deliver(upstream[0], writer, upstream[1]))
            await asyncio.wait({to_broker, to_edge}, return_when=asyncio.FIRST_COMPLETED)
            for direction in (to_broker, to_edge):
                direction.cancel()
                with suppress(asyncio.CancelledError, OSError, EOFError):
                    await direction
        except (OSError, TimeoutError):
            pass  # the broker is away, and so is the way to it
        except asyncio.CancelledError:
            pass  # the end of all; Python 3.11 would print it
        finally:
            self._lines.discard(writer)
            for end in (writer, upstream[1] if upstream else None):
                if end is not None:
                    end.transport.abort()

    async def _deliver(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        held = b""
        while True:
            coming = asyncio.ensure_future(_read_packet(reader))
            try:
                if held and not (await asyncio.wait({coming}, timeout=_HOLD_SECONDS))[0]:
                    await self._send(writer, held, payload=True)
                    held = b""
                head, body = await coming
            finally:
                coming.cancel()
            faults = self.faults
            if head[0] & _KIND != _PUBLISH or faults.about not in _topic(body):
                await self._send(writer, head + body)
                continue
            after, held = held, b""
            if self._happens(faults.drop):
                self.traffic.lost += len(body)
                self.traffic.count("dropped")
                if head[0] & _QOS and not faults.keep_books:
                    back.write(bytes([_PUBACK, 2]) + _packet_number(body))
            elif not after and self._happens(faults.swap):
                self.traffic.count("swapped")
                held = head + body
                continue
            else:
                if self._happens(faults.damage):
                    self.traffic.count("damaged")
                    body = body[:-1] + bytes([body[-1] ^ 1])
                await self._send(writer, head + body, payload=True)
                if self._happens(faults.duplicate):
                    self.traffic.count("repeated")
                    await self._send(writer, head + body, payload=True)
            if after:
                await self._send(writer, after, payload=True)

    async def _send(self, writer: asyncio.StreamWriter, packet: bytes, *, payload: bool = False) -> None:
        if payload:
            self.traffic.payloads += len(packet)
            self.traffic.count("sent")
        rate = self.faults.bytes_per_second
        if rate is None or not payload:
            writer.write(packet)
            await writer.drain()
            return
        step = max(1, int(rate / 20))
        for start in range(0, len(packet), step):
            writer.write(packet[start : start + step])
            await writer.drain()
            await asyncio.sleep(min(step, len(packet) - start) / rate)

    def _happens(self, share: float) -> bool:
        return share > 0 and self._drawn.random() < share


def _common_name(certificate: dict[str, tuple[tuple[tuple[str, str], ...], ...]]) -> str:
    return next(value for names in certificate["subject"] for field_, value in names if field_ == "commonName")


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def _read_packet(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Fixed header and the rest of one MQTT packet."""
    head = bytearray(await reader.readexactly(1))
    length = 0
    for place in range(4):
        head += await reader.readexactly(1)
        length |= (head[-1] & 0x7F) << (7 * place)
        if not head[-1] & 0x80:
            break
    return bytes(head), await reader.readexactly(length)


def _topic(body: bytes) -> str:
    return body[2 : 2 + int.from_bytes(body[:2], "big")].decode()


def _packet_number(body: bytes) -> bytes:
    start = 2 + int.from_bytes(body[:2], "big")
    return body[start : start + 2]
