"""The center's way to the broker, opened from its folder: what `serve` and the commands beside it publish with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from center.admission import content_key
from center.broker import BrokerPlan
from center.connection import BrokerAccess
from center.keys import CenterKeys
from center.publishing import Publisher
from center.settings import CenterSettings
from protocol.identity import Roster, federation_id


def publisher(directory: Path, settings: CenterSettings, keys: CenterKeys) -> Publisher:
    """A publisher that is not connected yet."""
    access = BrokerAccess(
        host=settings.broker.host,
        port=settings.broker.port,
        authority=directory / "trust" / "ca.crt",
        certificate=directory / "keys" / "mqtt.crt",
        key=directory / "keys" / "mqtt.key",
    )
    return Publisher(
        access,
        federation=federation_id(settings.federation),
        signer=keys.center,
        key=content_key(keys),
        ledger=directory / "published.db",
    )


@contextmanager
def connected(directory: Path, settings: CenterSettings, keys: CenterKeys) -> Iterator[Publisher]:
    """A connected publisher for the time of one command.

    Raises:
        UnavailableError: the broker does not answer.
        UntrustedError: it is not this federation's.
    """
    voice = publisher(directory, settings, keys)
    try:
        voice.start()
        yield voice
    finally:
        voice.stop()


def publish_roster(voice: Publisher, roster: Roster, signed: bytes) -> None:
    """Tell everybody who is in, and give each admitted edge the content key.

    Raises:
        UnavailableError: the broker did not take it.
    """
    voice.publish_roster(signed)
    for member in roster.members:
        voice.publish_key(member.edge, public_key=member.seal)


def broker_plan(directory: Path, settings: CenterSettings) -> BrokerPlan:
    """How this center's broker is to run."""
    return BrokerPlan(
        federation=federation_id(settings.federation),
        folder=(directory / "broker").resolve(),
        host=settings.broker.host,
        port=settings.broker.port,
        authority=(directory / "trust" / "ca.crt").resolve(),
        certificate=(directory / "keys" / "tls.crt").resolve(),
        key=(directory / "keys" / "tls.key").resolve(),
    )
