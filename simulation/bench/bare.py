"""Bare paho: what a release would cost if nothing were encrypted, signed, verified or written down."""

import secrets
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from center.mqtt.connection import BrokerAccess
from protocol.errors import UnavailableError
from protocol.topics import Topics

_SECONDS = 30.0
_QOS = 1
_NAME_BYTES = 32


def topics_for(pieces: Iterable[bytes], topics: Topics) -> dict[str, bytes]:
    """Each piece at a block's topic of its own."""
    return {topics.block(secrets.token_hex(_NAME_BYTES)): piece for piece in pieces}


def client(tls: ssl.SSLContext) -> mqtt.Client:
    """Not connected yet; it sends at once, like our own."""
    made = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"bare-{secrets.token_hex(8)}", protocol=mqtt.MQTTv311)
    made.tls_set_context(tls)
    made.on_socket_open = _send_at_once
    return made


class BarePublisher:
    """Publishes retained messages with QoS 1, as fast as paho does."""

    def __init__(self, publisher: mqtt.Client) -> None:
        self._publisher = publisher

    @classmethod
    @contextmanager
    def connected(cls, access: BrokerAccess) -> Iterator[Self]:
        """Connected with the center's certificate.

        Raises:
            UnavailableError: the broker does not answer.
        """
        up = threading.Event()
        publisher = client(access.tls())
        publisher.on_connect = lambda *_: up.set()
        publisher.connect(access.host, access.port)
        publisher.loop_start()
        try:
            if not up.wait(_SECONDS):
                raise UnavailableError(f"{access} did not answer")
            yield cls(publisher)
        finally:
            publisher.disconnect()
            publisher.loop_stop()

    def publish(self, messages: Mapping[str, bytes]) -> None:
        """Hand all to the broker, and wait until it has acknowledged every one."""
        sent = [self._publisher.publish(topic, data, qos=_QOS, retain=True) for topic, data in messages.items()]
        for message in sent:
            message.wait_for_publish(_SECONDS)


def _send_at_once(_client: Any, _data: Any, connected: Any) -> None:
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
