"""``python -m center.embedded_broker PLAN.json``: amqtt for one machine, made to keep the rules that Mosquitto keeps.

Everything amqtt calls private is used in this file alone, and amqtt is pinned. What 0.11.4 does otherwise, each a way
around the rules: it asks for certificates without requiring them; looks up a session by client id before it asks who is
there, and then believes the certificate of whoever opened that session first; sends a newcomer what is retained for
other clients' subscriptions; and publishes last wills without asking the rules.
"""

import asyncio
import json
import logging
import os
import signal
import ssl
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.errors import MQTTError
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin

from center.broker import BrokerPlan
from protocol.identity import FederationId
from protocol.topics import may_read, may_write

_LISTENER = "default"


def identity_of(certificate: dict[str, Any] | None) -> str | None:
    """The common name of a verified client certificate, as `ssl` describes it."""
    for names in (certificate or {}).get("subject", ()):
        for field, value in names:
            if field == "commonName":
                return str(value)
    return None


def _identity(session: Any) -> str | None:
    return identity_of(session.ssl_object.getpeercert()) if session.ssl_object else None


@dataclass
class _Federation:
    federation: str = ""


class CertificateRule(BaseAuthPlugin):  # type: ignore[misc] # amqtt has no types
    """Lets in who shows a certificate of this federation and leaves no will where it may not write."""

    Config = _Federation

    async def authenticate(self, *, session: Any) -> bool:
        identity = _identity(session)
        if identity is None:
            return False
        federation = FederationId(self.config.federation)
        return not session.will_flag or may_write(identity, session.will_topic or "", federation=federation)


class TopicRule(BaseTopicPlugin):  # type: ignore[misc] # amqtt has no types
    """Who may read and write what: `protocol.topics`."""

    Config = _Federation

    async def topic_filtering(self, *, session: Any = None, topic: str | None = None, action: Any = None) -> bool:
        identity = _identity(session) if session is not None else None
        if identity is None or topic is None:
            return False
        allowed = may_write if action == Action.PUBLISH else may_read
        return allowed(identity, topic, federation=FederationId(self.config.federation))


class StrictBroker(Broker):  # type: ignore[misc] # amqtt has no types
    """amqtt with certificates required and sessions kept apart by identity."""

    @staticmethod
    def _create_ssl_context(listener: Any) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=listener.cafile)
        context.load_cert_chain(listener.certfile, listener.keyfile)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    async def _initialize_client_session(self, reader: Any, writer: Any, *_address: Any) -> tuple[Any, Any]:
        handler, session = await BrokerProtocolHandler.init_from_connect(reader, writer, self.plugins_manager)
        identity = _identity(session)
        if identity is None:
            await writer.close()
            raise MQTTError("a client without a certificate")
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
    broker = StrictBroker(configuration(plan))
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await broker.start()
    await stopping.wait()
    # amqtt's own shutdown waits up to 30 s for slow clients, and it keeps nothing: ending at once loses nothing more.
    os._exit(0)


def run_embedded_broker(plan: BrokerPlan) -> None:
    """Run the embedded broker in this process until it is told to end."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(serve(plan))


def read_plan(path: Path) -> BrokerPlan:
    """Read what `center.broker` wrote."""
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    paths = {field.name for field in fields(BrokerPlan) if field.type is Path}
    values.update({name: Path(values[name]) for name in paths})
    return BrokerPlan(**values)


if __name__ == "__main__":
    run_embedded_broker(read_plan(Path(sys.argv[1])))
