"""One MQTT connection over TLS with the edge's certificate: it reconnects by itself and reads retained messages."""

import socket
import ssl
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTErrorCode

from edge.releases.retained import Pace, Reading
from protocol.blocks import MAX_PAYLOAD_BYTES
from protocol.bundle import MAX_MANIFEST_BYTES
from protocol.errors import BadInputError, FederationError, NotAdmittedError, UnavailableError, UntrustedError

Handler = Callable[[bytes], None]

MAX_PACKET_BYTES = max(MAX_PAYLOAD_BYTES, MAX_MANIFEST_BYTES) + 4096
"""The largest MQTT packet that is read; a longer one ends the connection."""

_MAX_NOTE_BYTES = 64 * 1024
_KEEPALIVE_SECONDS = 30
_REVIVE_SECONDS = 60.0
_QOS = 1
_OF_TIME = {9, 10}  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_CLOCK = "check this machine's clock, then the broker's certificate"
_NEW_CERTIFICATE = "try hanse-edge renew; if the center refuses, it has removed this site"


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


class _Client(mqtt.Client):
    """paho's client, which would take a message of 256 MB into memory before anybody could refuse it.

    Attributes:
        too_long: bytes of a message that was longer than any of ours; 0 if there was none.
    """

    too_long = 0

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize > MAX_PACKET_BYTES:
            self.too_long = bufsize
            raise ConnectionError(f"a message of {bufsize} bytes")
        return bytes(super()._sock_recv(bufsize))


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
        self._readings: dict[str, list[Reading]] = {}
        self._on_up: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._ended = False
        self._up = threading.Event()
        self._changed = threading.Condition()
        self._trouble: FederationError | None = None
        self._revived = -_REVIVE_SECONDS
        self._client_id, self._will = client_id, will
        self._tls = access.tls()
        self._client = self._new_client()

    def _new_client(self) -> _Client:
        client = _Client(CallbackAPIVersion.VERSION2, client_id=self._client_id, protocol=mqtt.MQTTv311)
        client.tls_set_context(self._tls)
        client.reconnect_delay_set(1, 30)
        if self._will is not None:
            client.will_set(self._will[0], self._will[1], qos=_QOS, retain=True)
        client.on_pre_connect = self._take_certificate
        client.on_connect = self._connected
        client.on_connect_fail = self._not_reached
        client.on_disconnect = self._disconnected
        client.on_message = self._arrived
        client.on_log = self._logged
        client.on_socket_open = _send_at_once
        return client

    def start(self) -> None:
        """Begin to connect, in the background and for as long as it takes: an edge serves without a broker too."""
        self._client.connect_async(self._access.host, self._access.port, keepalive=_KEEPALIVE_SECONDS)
        self._client.loop_start()

    def stop(self) -> None:
        """Leave in good order; no last will is published."""
        with self._turn:
            self._ended = True
            self._leave()

    def reconnect(self) -> None:
        """Connect anew, with the certificate that lies in the files now; what is listened to and read goes on."""
        with self._turn:
            if not self._ended:
                self._leave()
                self._client = self._new_client()  # paho leaves two sockets open where one is started twice
                self.start()

    def _leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._up.clear()

    def _take_certificate(self, _client: Any, _data: Any) -> None:
        with suppress(OSError):  # also ssl.SSLError; it goes on with the one it has, and doctor says what is wrong
            self._tls.load_cert_chain(self._access.certificate, self._access.key)

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
        """Hear what is retained at a topic now, and each change, through every reconnection; 64 KiB at most."""
        with self._lock:
            self._handlers.setdefault(topic, []).append(handler)
        self._subscribe([topic])

    def listen_again(self) -> None:
        """Ask for all that is listened to: a broker may have lost what it was to say, and repeats what it retains."""
        with self._lock:
            topics = list(self._handlers)
        self._subscribe(topics)

    def publish(self, topic: str, payload: bytes) -> bool:
        """Publish one retained message; false where there is no connection (say it again when there is one)."""
        if not self.is_up:
            return False
        return self._client.publish(topic, payload, qos=_QOS, retain=True).rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def read(self, topics: Iterable[str], *, pace: Pace, limit: int) -> Generator[tuple[str, bytes]]:
        """Read the retained message of each topic, in any order, each once.

        Close the iterator (`contextlib.closing`) when leaving early.

        Args:
            limit: bytes of the largest message that can be right.

        Raises:
            UnavailableError: nothing came for too long, or too slowly. What was yielded before is good.
            UntrustedError: the broker refuses us, or is not this federation's.
            UntrustedReleaseError: a message is longer than the limit.
        """
        return Reading(self, topics, pace=pace, limit=limit).messages()

    def ask(self, reading: Reading, topics: Iterable[str]) -> None:
        """Subscribe for a reading, or again: the broker repeats what it retains."""
        wanted = list(topics)
        with self._lock:
            for topic in wanted:
                readings = self._readings.setdefault(topic, [])
                if reading not in readings:
                    readings.append(reading)
        self._subscribe(wanted)

    def release(self, reading: Reading, topics: Iterable[str]) -> None:
        """Unsubscribe what a reading has no more need of, unless somebody else has."""
        idle = []
        with self._lock:
            for topic in topics:
                readings = self._readings.get(topic, [])
                if reading in readings:
                    readings.remove(reading)
                if not readings:
                    self._readings.pop(topic, None)
                    if topic not in self._handlers:
                        idle.append(topic)
        if idle and self.is_up:
            self._client.unsubscribe(idle)

    def revive(self) -> None:
        """Connect anew where nothing comes any more; once a minute at most."""
        now = monotonic()
        if self.is_up and now - self._revived >= _REVIVE_SECONDS:
            self._revived = now
            self.reconnect()

    def _subscribe(self, topics: Iterable[str]) -> None:
        wanted = [(topic, _QOS) for topic in topics]
        if wanted and self.is_up:  # otherwise _connected subscribes to all
            self._client.subscribe(wanted)

    def _connected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._fail(NotAdmittedError(f"{self._access} refuses this edge: {reason}", advice=_NEW_CERTIFICATE))
            return
        self._trouble = None
        self._up.set()
        with self._lock:
            topics = [*self._handlers, *(topic for topic in self._readings if topic not in self._handlers)]
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
                        advice=_CLOCK if error.verify_code in _OF_TIME else "check the broker's address in edge.toml",
                    )
                )
            case ssl.SSLError() as error:
                self._fail(UnavailableError(f"{self._access} speaks no TLS that we accept: {error.reason}"))
            case error:
                self._fail(UnavailableError(f"{self._access} cannot be reached: {error}"))

    def _disconnected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        was_up = self.is_up
        self._up.clear()
        if self._client.too_long:
            self._fail(UnavailableError(f"{self._access} sends a message of {self._client.too_long} bytes: not ours"))
            self._client.too_long = 0
        elif was_up:
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
        topic, payload = message.topic, bytes(message.payload)
        if not payload:  # an empty retained message means: nothing here any more
            return
        with self._lock:
            handlers = list(self._handlers.get(topic, ())) if len(payload) <= _MAX_NOTE_BYTES else []
            readings = list(self._readings.get(topic, ()))
        for handler in handlers:
            handler(payload)
        for reading in readings:
            reading.take(topic, payload)


def _send_at_once(_client: Any, _data: Any, connected: Any) -> None:
    # Without this each small acknowledgement waits 40 ms for company (Nagle's algorithm).
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
