"""One MQTT connection over TLS with the edge's certificate: it reconnects by itself and reads retained messages."""

import socket
import ssl
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTErrorCode

from protocol.errors import BadInputError, FederationError, NotAdmittedError, UnavailableError, UntrustedError

Handler = Callable[[bytes], None]

_KEEPALIVE_SECONDS = 30
_QOS = 1
_NEW_CERTIFICATE = "ask the operator of the center for a new certificate, or join again"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAccess:
    """Where the broker is, and who we are there.

    Attributes:
        authority: PEM of the federation's certificate authority.
        certificate: PEM of the client certificate; its common name is our name on the broker.
        key: PEM of its private key.
    """

    host: str
    port: int
    authority: Path
    certificate: Path
    key: Path

    def tls(self) -> ssl.SSLContext:
        """The TLS settings.

        Raises:
            BadInputError: a file is missing or does not hold what it must.
        """
        try:
            context = ssl.create_default_context(cafile=self.authority)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise BadInputError(
                f"the certificate files beside {self.certificate} cannot be used: {error}", advice=_NEW_CERTIFICATE
            ) from error
        return context

    def __str__(self) -> str:
        return f"the broker at {self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How reading retained messages goes on.

    Attributes:
        window: outstanding topics; a broker drops silently what its queue for one client does not hold.
        silence: seconds without any answer before it is asked again.
        attempts: how often it is asked before it counts as unavailable.
    """

    window: int = 16
    silence: float = 10.0
    attempts: int = 3


class Connection:
    """One MQTT connection. Handlers run on its network thread and must return at once."""

    def __init__(self, access: BrokerAccess, *, client_id: str, will: tuple[str, bytes] | None = None) -> None:
        """Prepare; nothing is opened yet.

        Args:
            client_id: unlike any other client's, or the broker lets one push the other out.
            will: retained message that the broker publishes when this connection breaks.
        """
        self._access = access
        self._handlers: dict[str, list[Handler]] = {}
        self._on_up: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._up = threading.Event()
        self._changed = threading.Condition()
        self._trouble: FederationError | None = None
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv311)
        self._client.tls_set_context(access.tls())
        self._client.reconnect_delay_set(1, 30)
        if will is not None:
            self._client.will_set(will[0], will[1], qos=_QOS, retain=True)
        self._client.on_connect = self._connected
        self._client.on_connect_fail = self._not_reached
        self._client.on_disconnect = self._disconnected
        self._client.on_message = self._arrived
        self._client.on_log = self._logged
        self._client.on_socket_open = _send_at_once

    def start(self) -> None:
        """Begin to connect, in the background and for as long as it takes: an edge serves without a broker too."""
        self._client.connect_async(self._access.host, self._access.port, keepalive=_KEEPALIVE_SECONDS)
        self._client.loop_start()

    def stop(self) -> None:
        """Leave in good order; no last will is published."""
        self._client.disconnect()
        self._client.loop_stop()
        self._up.clear()

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    @property
    def trouble(self) -> FederationError | None:
        """Why there is no connection now, if that is known."""
        return None if self.is_up else self._trouble

    def wait_until_up(self, *, seconds: float) -> None:
        """Wait for a connection.

        Raises:
            UnavailableError: the broker does not answer in time.
            NotAdmittedError: it refuses our certificate.
            UntrustedError: it is not this federation's broker.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.is_up or isinstance(self._trouble, UntrustedError), timeout=seconds)
        if not self.is_up:
            raise self._trouble or UnavailableError(f"{self._access} did not answer within {seconds:g} s")

    def on_up(self, callback: Callable[[], None]) -> None:
        """Call this after each connection, on the network thread."""
        self._on_up.append(callback)

    def listen(self, topic: str, handler: Handler) -> None:
        """Hear what is retained at a topic now, and each change, through every reconnection."""
        self._ask([topic], handler)

    def publish(self, topic: str, payload: bytes) -> bool:
        """Publish one retained message; false where there is no connection (say it again when there is one)."""
        if not self.is_up:
            return False
        return self._client.publish(topic, payload, qos=_QOS, retain=True).rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def read(self, topics: Iterable[str], *, pace: Pace) -> Generator[tuple[str, bytes]]:
        """Read the retained message of each topic, in any order, each once.

        Close the iterator (`contextlib.closing`) when leaving early.

        Raises:
            UnavailableError: nothing came for too long. What was yielded before is good.
            UntrustedError: the broker refuses us, or is not this federation's.
        """
        arrived: SimpleQueue[tuple[str, bytes]] = SimpleQueue()
        waiting: dict[str, Handler] = {}
        done: dict[str, Handler] = {}
        source = iter(topics)
        asked = 1
        try:
            while True:
                if len(waiting) <= pace.window // 2:
                    self._release(done)
                    fresh = {topic: _into(arrived, topic) for topic in islice(source, pace.window - len(waiting))}
                    waiting.update(fresh)
                    self._ask_each(fresh)
                if not waiting:
                    return
                try:
                    topic, payload = arrived.get(timeout=pace.silence)
                except Empty:
                    if asked >= pace.attempts or isinstance(self.trouble, UntrustedError):
                        raise self._nothing_came(waiting, pace) from None
                    asked += 1
                    self._subscribe(waiting)
                    continue
                if topic in waiting:  # otherwise delivered twice
                    asked = 1
                    done[topic] = waiting.pop(topic)
                    yield topic, payload
        finally:
            self._release({**waiting, **done})

    def _nothing_came(self, waiting: Iterable[str], pace: Pace) -> FederationError:
        missing = sorted(waiting)
        seconds = pace.silence * pace.attempts
        return self.trouble or UnavailableError(
            f"{self._access} has not sent {missing[0]} and {len(missing) - 1} more within {seconds:g} s",
            advice="the center has to publish it again",
        )

    def _ask(self, topics: Iterable[str], handler: Handler) -> None:
        self._ask_each(dict.fromkeys(topics, handler))

    def _ask_each(self, handlers: dict[str, Handler]) -> None:
        with self._lock:
            for topic, handler in handlers.items():
                self._handlers.setdefault(topic, []).append(handler)
        self._subscribe(handlers)

    def _subscribe(self, topics: Iterable[str]) -> None:
        wanted = [(topic, _QOS) for topic in topics]
        if wanted and self.is_up:  # otherwise _connected subscribes to all
            self._client.subscribe(wanted)

    def _release(self, handlers: dict[str, Handler]) -> None:
        with self._lock:
            for topic, handler in handlers.items():
                remaining = self._handlers.get(topic, [])
                if handler in remaining:
                    remaining.remove(handler)
            idle = [topic for topic in handlers if not self._handlers.get(topic)]
            for topic in idle:
                self._handlers.pop(topic, None)
        handlers.clear()
        if idle and self.is_up:
            self._client.unsubscribe(idle)

    def _connected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._fail(NotAdmittedError(f"{self._access} refuses this edge: {reason}", advice=_NEW_CERTIFICATE))
            return
        self._trouble = None
        self._up.set()
        with self._lock:
            topics = list(self._handlers)
        self._subscribe(topics)
        for callback in self._on_up:
            callback()
        with self._changed:
            self._changed.notify_all()

    def _not_reached(self, _client: Any, _data: Any) -> None:
        match sys.exception():  # paho calls this while it handles the error, and passes no error
            case ssl.SSLCertVerificationError() as error:
                self._fail(
                    UntrustedError(
                        f"{self._access} does not show a certificate of this federation: {error.verify_message}",
                        advice="check the broker's address in edge.toml",
                    )
                )
            case ssl.SSLError() as error:
                self._fail(UnavailableError(f"{self._access} speaks no TLS that we accept: {error.reason}"))
            case error:
                self._fail(UnavailableError(f"{self._access} cannot be reached: {error}"))

    def _disconnected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        was_up = self.is_up
        self._up.clear()
        if was_up:
            self._fail(UnavailableError(f"{self._access} has closed the connection: {reason}"))
        elif not isinstance(self._trouble, UntrustedError):
            self._fail(
                UnavailableError(
                    f"{self._access} hung up before it answered: it does not accept our certificate, or is just ending",
                    advice=_NEW_CERTIFICATE,
                )
            )

    def _logged(self, _client: Any, _data: Any, level: int, text: str) -> None:
        # With TLS 1.3 a refused client certificate shows only as an alert at the first read, and paho only logs it.
        if level == LogLevel.MQTT_LOG_ERR and "alert" in text.lower() and not self.is_up:
            reason = text.rsplit("]", 1)[-1].split("(", maxsplit=1)[0].strip() or text
            self._fail(
                NotAdmittedError(f"{self._access} refuses this edge's certificate: {reason}", advice=_NEW_CERTIFICATE)
            )

    def _fail(self, trouble: FederationError) -> None:
        with self._changed:
            self._trouble = trouble
            self._changed.notify_all()

    def _arrived(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        with self._lock:
            handlers = list(self._handlers.get(message.topic, ()))
        if message.payload:  # an empty retained message means: nothing here any more
            for handler in handlers:
                handler(bytes(message.payload))


def _into(arrived: SimpleQueue[tuple[str, bytes]], topic: str) -> Handler:
    def put(payload: bytes) -> None:
        arrived.put((topic, payload))

    return put


def _send_at_once(_client: Any, _data: Any, connected: Any) -> None:
    # Without this each small acknowledgement waits 40 ms for company (Nagle's algorithm).
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
