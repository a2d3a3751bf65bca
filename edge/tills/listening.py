"""The subscription to the tills' topic: a message is acknowledged once what it says is on disk, and not before.

The broker keeps what is not acknowledged and sends it again, to this process or to the next one. So nothing is lost
when this process is killed, the disk is full or the broker starts anew, as long as the broker itself keeps its queue.
What cannot be an event is acknowledged too, once it lies in the file of rejects: else it would come back for ever.
"""

import asyncio
import socket
import ssl
import sys
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as mqtt
import structlog
from paho.mqtt.enums import CallbackAPIVersion

from edge.settings import TillSettings
from edge.tills.messages import Refused, Taken, read
from edge.tills.rejects import Rejects
from edge.tills.taking import Taking
from protocol.errors import BadInputError, FederationError

_log = structlog.get_logger(__name__)
_KEEPALIVE_SECONDS: Final = 30
_QOS: Final = 1
_SOONEST_SECONDS: Final = 0.2
_LATEST_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 2.0
_REMEMBERED: Final = 4_096
_REFUSED: Final = 128  # MQTT 3.1.1, 3.9.3: a subscription was refused


class Tills:
    """One connection to the site's own broker, for as long as the process lives."""

    def __init__(self, settings: TillSettings, taking: Taking, rejects: Rejects, *, folder: Path, site: str) -> None:
        """Prepare; nothing is opened yet.

        Args:
            folder: where paths in the settings begin.

        Raises:
            BadInputError: the password or the certificate authority cannot be read.
        """
        self._settings = settings
        self._taking = taking
        self._rejects = rejects
        self._trouble = f"{self} has not answered yet"
        self._up = False
        self._connection = 0
        self._seen: OrderedDict[tuple[int, bytes], str] = OrderedDict()
        self._messages = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client = self._new_client(folder, settings.client_id or f"hanse-edge-{site}")

    def __str__(self) -> str:
        return f"the tills' broker at {self._settings.host}:{self._settings.port}"

    @property
    def trouble(self) -> str:
        """Why tills are not heard now; empty: they are."""
        return "" if self._up else self._trouble or f"{self} is not listened to"

    def start(self) -> None:
        """Begin to connect, in the background and for as long as it takes. From within the event loop."""
        self._loop = asyncio.get_running_loop()
        self._client.connect_async(self._settings.host, self._settings.port, keepalive=_KEEPALIVE_SECONDS)
        self._client.loop_start()

    async def stop(self) -> None:
        """Leave, once what has been heard is on disk and acknowledged; what cannot be written now comes again."""
        self._loop = None
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STOP_SECONDS)
        await asyncio.to_thread(self._leave)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _new_client(self, folder: Path, client_id: str) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=False,
            protocol=mqtt.MQTTv311,
            manual_ack=True,
        )
        if self._settings.username:
            client.username_pw_set(self._settings.username, _password(self._settings.password_file, folder))
        if self._settings.ca is not None:
            client.tls_set_context(_tls(folder / self._settings.ca))
        client.reconnect_delay_set(1, int(_LATEST_SECONDS))
        client.on_connect = self._connected
        client.on_connect_fail = self._not_reached
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed
        client.on_message = self._arrived
        client.on_socket_open = _send_at_once
        return client

    # What follows up to _arrived runs in paho's thread.

    def _connected(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._connection += 1
        if reason.is_failure:
            self._fail(f"{self} refuses us: {reason}; check username and password_file under [tills] in edge.toml")
            return
        client.subscribe(self._settings.topic, qos=_QOS)

    def _subscribed(self, _client: Any, _data: Any, _mid: int, reasons: Sequence[Any], _properties: Any) -> None:
        if any(reason.value >= _REFUSED for reason in reasons):
            self._fail(f"{self} lets us not read {self._settings.topic}; allow it to {self._settings.username or 'us'}")
            return
        self._up, self._trouble = True, ""
        self._taking.heard(True)
        _log.info("tills are heard", broker=f"{self._settings.host}:{self._settings.port}", topic=self._settings.topic)

    def _not_reached(self, _client: Any, _data: Any) -> None:
        match sys.exception():  # paho calls this while it handles the error, and passes no error
            case ssl.SSLError() as error:
                self._fail(f"{self} shows no certificate that we accept: {error.reason}; check ca under [tills]")
            case error:
                self._fail(f"{self} cannot be reached: {error}")

    def _disconnected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if self._up:
            self._up = False
            self._taking.heard(False)
            if self._loop is not None:
                self._fail(f"{self} has closed the connection: {reason}")

    def _fail(self, trouble: str) -> None:
        """Said once, not at each attempt."""
        if trouble != self._trouble:
            self._trouble = trouble
            _log.warning("tills are not heard", why=trouble)

    def _arrived(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        loop, connection = self._loop, self._connection
        if loop is not None:
            loop.call_soon_threadsafe(self._begin, message, connection)

    # From here on in the event loop.

    def _begin(self, message: mqtt.MQTTMessage, connection: int) -> None:
        if self._loop is None:
            return
        task = self._loop.create_task(self._take(message, connection))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:  # a fault of ours: it comes again
            where = traceback.extract_tb(error.__traceback__)[-1]  # the error itself may name somebody
            _log.error(
                "a till's message is not taken", why=type(error).__name__, file=where.filename, line=where.lineno
            )

    async def _take(self, message: mqtt.MQTTMessage, connection: int) -> None:
        if message.retain:  # a copy of something that was said long ago, repeated at every connection
            self._taking.note("retained", 1)
        else:
            found = list(read(bytes(message.payload), message_id=self._id_of(message), check=self._taking.check))
            await self._keep(found, message.topic)
        if connection == self._connection:  # else the broker sends it again, under a number that may be another's now
            self._client.ack(message.mid, message.qos)

    async def _keep(self, found: Sequence[Taken | Refused], topic: str) -> None:
        """On disk when this returns: the events in the store, the rest in the file of rejects."""
        good = [one for one in found if isinstance(one, Taken)]
        refused = [one for one in found if isinstance(one, Refused)]
        if good:
            events = [one.event for one in good]
            try:
                await self._until_done(lambda: self._taking.add(events))
            except BadInputError as error:
                refused += [Refused(said=one.said, why=error.line()) for one in good]
                good = []
        if refused:
            now_ms = self._taking.now_ms()
            await self._until_done(lambda: asyncio.to_thread(self._rejects.keep, refused, topic=topic, now_ms=now_ms))
        self._taking.note("event", len(good))
        self._taking.note("rejected", len(refused))

    async def _until_done(self, write: Callable[[], Awaitable[object]]) -> None:
        """Try until the disk takes it; meanwhile the broker, which waits for acknowledgements, sends no more.

        Raises:
            BadInputError: it will never be taken.
        """
        seconds, told = _SOONEST_SECONDS, False
        while True:
            try:
                await write()
            except BadInputError:
                raise
            except FederationError as error:
                if not told:
                    _log.error("what tills say waits at their broker", why=error.line())
                told = True
                await asyncio.sleep(seconds)
                seconds = min(2 * seconds, _LATEST_SECONDS)
            else:
                return

    def _id_of(self, message: mqtt.MQTTMessage) -> str:
        """One name for one message; a copy that the broker sends after a broken connection has the same."""
        key = message.mid, sha256(message.payload).digest()
        if not (message.dup and key in self._seen):
            self._messages += 1
            self._seen[key] = f"{self._taking.now_ms()}-{self._messages}-{key[1].hex()}"
        self._seen.move_to_end(key)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return self._seen[key]


def _password(path: Path | None, folder: Path) -> str | None:
    if path is None:
        return None
    try:
        return (folder / path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(
            f"the tills' password cannot be read: {error}", advice="see [tills] in edge.toml"
        ) from error


def _tls(authority: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise BadInputError(f"{authority} holds no certificate authority: {error}", advice="see [tills]") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _send_at_once(_client: Any, _data: Any, connected: Any) -> None:
    # Without this each small acknowledgement waits 40 ms for company (Nagle's algorithm).
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
