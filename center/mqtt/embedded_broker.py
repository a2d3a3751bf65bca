"""``python -m center.mqtt.embedded_broker PLAN``: amqtt for one machine, made to keep the rules that Mosquitto keeps.

Everything amqtt calls private is used in this file alone, and amqtt is pinned. What 0.11.4 does otherwise, each a way
around the rules: it asks for certificates without requiring them; looks up a session by client id before it asks who is
there, and then believes the certificate of whoever opened that session first; sends a newcomer what is retained for
other clients' subscriptions; publishes last wills without asking the rules; and takes packets of any size.

At SIGHUP it reads access rules, certificate and revocation list again and puts out who counts no more.
"""

import asyncio
import logging
import os
import signal
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.errors import MQTTError
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from cryptography import x509

from center.mqtt.broker_config import PID, RULES, BrokerPlan, listed, read_plan
from protocol.identity import FederationId
from protocol.topics import may_read, may_write

_log = logging.getLogger(__name__)
_LISTENER = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Who may do anything at all, as of the last reading.

    Attributes:
        names: in the access rules.
        revoked: serial numbers of certificates that count no more.
    """

    names: frozenset[str]
    revoked: frozenset[int]

    @classmethod
    def read(cls, plan: BrokerPlan) -> "Admitted":
        """Read both files.

        Raises:
            OSError: one is missing.
            ValueError: one is damaged.
        """
        revocations = x509.load_pem_x509_crl(plan.revoked.read_bytes())
        return cls(
            names=listed((plan.folder / RULES).read_text("utf-8")),
            revoked=frozenset(entry.serial_number for entry in revocations),
        )

    def identity(self, certificate: dict[str, Any] | None) -> str | None:
        """In whose name this verified certificate acts, or nobody's."""
        name = identity_of(certificate)
        if name not in self.names or int((certificate or {}).get("serialNumber", "0"), 16) in self.revoked:
            return None
        return name


def identity_of(certificate: dict[str, Any] | None) -> str | None:
    """The common name of a verified client certificate, as `ssl` describes it."""
    for names in (certificate or {}).get("subject", ()):
        for field, value in names:
            if field == "commonName":
                return str(value)
    return None


def _certificate(session: Any) -> dict[str, Any] | None:
    return session.ssl_object.getpeercert() if session.ssl_object else None


def _admitted(rule: Any) -> Admitted:
    admitted: Admitted = rule.context._broker_instance.admitted  # noqa: SLF001 - it hands its plugins nothing else
    return admitted


@dataclass
class _Federation:
    federation: str = ""


class CertificateRule(BaseAuthPlugin):  # type: ignore[misc] # amqtt has no types
    """Lets in who shows a certificate of this federation that counts, and leaves no will where it may not write."""

    Config = _Federation

    async def authenticate(self, *, session: Any) -> bool:
        identity = _admitted(self).identity(_certificate(session))
        if identity is None:
            return False
        federation = FederationId(self.config.federation)
        return not session.will_flag or may_write(identity, session.will_topic or "", federation=federation)


class TopicRule(BaseTopicPlugin):  # type: ignore[misc] # amqtt has no types
    """Who may read and write what: `protocol.topics`."""

    Config = _Federation

    async def topic_filtering(self, *, session: Any = None, topic: str | None = None, action: Any = None) -> bool:
        identity = _admitted(self).identity(_certificate(session)) if session is not None else None
        if identity is None or topic is None:
            return False
        allowed = may_write if action == Action.PUBLISH else may_read
        return allowed(identity, topic, federation=FederationId(self.config.federation))


class _BoundedReader(StreamReaderAdapter):  # type: ignore[misc] # amqtt has no types
    """Reads no more at once than a packet may hold."""

    def __init__(self, reader: asyncio.StreamReader, *, limit: int) -> None:
        super().__init__(reader)
        self._limit = limit

    async def read(self, n: int = -1) -> bytes:
        if n > self._limit:
            raise MQTTError(f"a packet of {n} bytes")
        return bytes(await super().read(n))


class StrictBroker(Broker):  # type: ignore[misc] # amqtt has no types
    """amqtt with certificates required and sessions kept apart by identity."""

    _tls: ssl.SSLContext

    def __init__(self, plan: BrokerPlan) -> None:
        self.admitted = Admitted.read(plan)
        self._plan = plan
        super().__init__(configuration(plan))

    @staticmethod
    def _create_ssl_context(listener: Any) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=listener.cafile)
        context.load_cert_chain(listener.certfile, listener.keyfile)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    async def _create_server_instance(self, *details: Any) -> Any:
        self._tls = details[-1]
        return await super()._create_server_instance(*details)

    async def reload(self) -> None:
        """Take up what has changed; what cannot be read leaves everything as it is."""
        try:
            self.admitted = Admitted.read(self._plan)
            self._tls.load_cert_chain(self._plan.certificate, self._plan.key)
        except (OSError, ValueError) as error:
            _log.warning("nothing is taken up: %s", error)
        for session, handler in list(self._sessions.values()):
            if self.admitted.identity(_certificate(session)) is None:
                session.will_flag = False
                await handler.handle_connection_closed()

    async def stream_connected(self, reader: asyncio.StreamReader, writer: Any, listener_name: str) -> None:
        await self._client_connected(
            listener_name,
            _BoundedReader(reader, limit=self._plan.max_packet_bytes),
            StreamWriterAdapter(writer),
        )

    async def _initialize_client_session(self, reader: Any, writer: Any, *_address: Any) -> tuple[Any, Any]:
        handler, session = await BrokerProtocolHandler.init_from_connect(reader, writer, self.plugins_manager)
        identity = self.admitted.identity(_certificate(session))
        if identity is None:
            await writer.close()
            raise MQTTError("a client without a certificate that counts")
        session.client_id = f"{identity}/{session.client_id}"
        session.clean_session = True  # nothing is ever kept for a client: it reads retained messages
        session.parent = 0
        await self._delete_session(session.client_id)
        return handler, session

    async def _publish_retained_messages_for_subscription(self, subscription: tuple[str, int], session: Any) -> None:
        topic, _ = subscription
        subscribers = self._subscriptions.get(topic, ())
        if any(subscriber.client_id == session.client_id for subscriber, _ in subscribers):
            await super()._publish_retained_messages_for_subscription(subscription, session)


def configuration(plan: BrokerPlan) -> dict[str, Any]:
    """The plan in amqtt's words."""
    return {
        "listeners": {
            _LISTENER: {
                "type": "tcp",
                "bind": f"{plan.host}:{plan.port}",
                "ssl": True,
                "cafile": str(plan.authority),
                "certfile": str(plan.certificate),
                "keyfile": str(plan.key),
            }
        },
        "plugins": {
            f"{__name__}.CertificateRule": {"federation": plan.federation},
            f"{__name__}.TopicRule": {"federation": plan.federation},
        },
    }


async def serve(plan: BrokerPlan) -> None:
    """Run until SIGTERM or SIGINT."""
    broker = StrictBroker(plan)
    stopping, reloading = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, reloading.set)
    await broker.start()
    (plan.folder / PID).write_text(f"{os.getpid()}\n")
    minding = asyncio.create_task(_mind(broker, reloading))
    await stopping.wait()
    minding.cancel()
    # amqtt's own shutdown waits up to 30 s for slow clients, and it keeps nothing: ending at once loses nothing more.
    os._exit(0)


async def _mind(broker: StrictBroker, reloading: asyncio.Event) -> None:
    while True:
        await reloading.wait()
        reloading.clear()
        await broker.reload()


def run_embedded_broker(plan: BrokerPlan) -> None:
    """Run the embedded broker in this process until it is told to end."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(serve(plan))


if __name__ == "__main__":
    run_embedded_broker(read_plan(Path(sys.argv[1])))
