"""The center's own MQTT connection: publishes retained messages with acknowledgement, in a bounded window."""

import socket
import ssl
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, LogLevel

from protocol.errors import BadInputError, FederationError, NotAdmittedError, UnavailableError, UntrustedError

Handler = Callable[[str, bytes], None]

_KEEPALIVE_SECONDS = 30
_QOS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAccess:
    """Where the broker is, and the center's own client certificate.

    Attributes:
        authority: PEM of the federation's certificate authority.
        certificate: PEM; its common name is `protocol.topics.CENTER`.
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
            raise BadInputError(f"the certificate files beside {self.certificate} cannot be used: {error}") from error
        return context

    def __str__(self) -> str:
        return f"the broker at {self.host}:{self.port}"


class Connection:
    """One MQTT connection that reconnects by itself. Handlers run on its network thread."""

    def __init__(self, access: BrokerAccess, *, client_id: str) -> None:
        self._access = access
        self._handlers: dict[str, Handler] = {}
        self._lock = threading.Lock()
        self._up = threading.Event()
        self._changed = threading.Condition()
        self._trouble: FederationError | None = None
        self.times_connected = 0
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv311)
        self._tls = access.tls()
        self._client.tls_set_context(self._tls)
        self._client.on_pre_connect = self._take_certificate
        self._client.reconnect_delay_set(1, 10)
        self._client.on_connect = self._connected
        self._client.on_connect_fail = self._not_reached
        self._client.on_disconnect = self._disconnected
        self._client.on_message = self._arrived
        self._client.on_log = self._logged
        self._client.on_socket_open = _send_at_once

    def start(self) -> None:
        """Begin to connect, in the background and for as long as it takes."""
        self._client.connect_async(self._access.host, self._access.port, keepalive=_KEEPALIVE_SECONDS)
        self._client.loop_start()

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._up.clear()

    def _take_certificate(self, _client: Any, _data: Any) -> None:
        with suppress(OSError):  # also ssl.SSLError; it goes on with the one it has, and doctor says what is wrong
            self._tls.load_cert_chain(self._access.certificate, self._access.key)

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    def wait_until_up(self, *, seconds: float) -> None:
        """Wait for a connection.

        Raises:
            UnavailableError: the broker does not answer in time.
            UntrustedError: it refuses the center, or is not this federation's.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.is_up or isinstance(self._trouble, UntrustedError), timeout=seconds)
        if not self.is_up:
            raise self._trouble or UnavailableError(f"{self._access} did not answer within {seconds:g} s")

    def listen(self, topic: str, handler: Handler) -> None:
        """Hear what is retained at a topic or filter now, and each change, through every reconnection."""
        with self._lock:
            self._handlers[topic] = handler
        if self.is_up:
            self._client.subscribe(topic, _QOS)

    def forget(self, topic: str) -> None:
        """Stop listening."""
        with self._lock:
            self._handlers.pop(topic, None)
        if self.is_up:
            self._client.unsubscribe(topic)

    def deliver(
        self,
        messages: Iterable[tuple[str, bytes]],
        *,
        window: int,
        seconds: float,
        acknowledged: Callable[[str], None] = lambda _topic: None,
    ) -> None:
        """Publish retained messages and wait until the broker has acknowledged every one.

        Args:
            messages: topic and payload, taken one at a time as the window allows; an empty payload clears the topic.
            window: messages on their way at the same time.
            seconds: longest silence of the broker.
            acknowledged: is told each topic, in the order of `messages`.

        Raises:
            UnavailableError: an acknowledgement did not come, or the connection broke. Publishing again is harmless.
        """
        outstanding: deque[tuple[str, mqtt.MQTTMessageInfo]] = deque()

        def settle() -> None:
            topic, message = outstanding.popleft()
            self._wait_for(topic, message, seconds=seconds)
            acknowledged(topic)

        for topic, payload in messages:
            self.wait_until_up(seconds=seconds)
            outstanding.append((topic, self._client.publish(topic, payload, qos=_QOS, retain=True)))
            if len(outstanding) >= window:
                settle()
        while outstanding:
            settle()

    def _wait_for(self, topic: str, message: mqtt.MQTTMessageInfo, *, seconds: float) -> None:
        try:
            message.wait_for_publish(seconds)
            acknowledged = message.is_published()
        except (RuntimeError, ValueError):
            acknowledged = False
        if not acknowledged:
            raise self._trouble or UnavailableError(f"{self._access} has not acknowledged {topic} in {seconds:g} s")

    def _connected(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._fail(NotAdmittedError(f"{self._access} refuses the center: {reason}"))
            return
        self._trouble = None
        self.times_connected += 1
        self._up.set()
        with self._lock:
            topics = [(topic, _QOS) for topic in self._handlers]
        if topics:
            client.subscribe(topics)
        with self._changed:
            self._changed.notify_all()

    def _not_reached(self, _client: Any, _data: Any) -> None:
        match sys.exception():  # paho calls this while it handles the error, and passes no error
            case ssl.SSLCertVerificationError() as error:
                self._fail(UntrustedError(f"{self._access} is not this federation's: {error.verify_message}"))
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
                    advice="run hanse-center doctor",
                )
            )

    def _logged(self, _client: Any, _data: Any, level: int, text: str) -> None:
        # With TLS 1.3 a refused client certificate shows only as an alert at the first read, and paho only logs it.
        if level == LogLevel.MQTT_LOG_ERR and "alert" in text.lower() and not self.is_up:
            self._fail(NotAdmittedError(f"{self._access} refuses the center's certificate"))

    def _fail(self, trouble: FederationError) -> None:
        with self._changed:
            self._trouble = trouble
            self._changed.notify_all()

    def _arrived(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        with self._lock:
            handlers = [act for topic, act in self._handlers.items() if mqtt.topic_matches_sub(topic, message.topic)]
        for handler in handlers:
            handler(message.topic, bytes(message.payload))


def _send_at_once(_client: Any, _data: Any, connected: Any) -> None:
    # Without this each small acknowledgement waits 40 ms for company (Nagle's algorithm).
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
