"""The center's way to the broker, opened from its folder: what `serve` and the commands beside it publish with."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from center.founding import signing
from center.keys import CenterKeys
from center.mqtt import collecting, content_keys
from center.mqtt.broker_config import BrokerPlan, find_plugin
from center.mqtt.connection import BrokerAccess
from center.mqtt.limits import Limits
from center.mqtt.publishing import Publisher
from center.mqtt.release_blocks import manifest_of
from center.settings import CenterSettings
from center.signing.repository import Repository
from center.sites import renewing
from protocol.bundle import Manifest
from protocol.errors import BadInputError
from protocol.identity import federation_id


def publisher(directory: Path, settings: CenterSettings, keys: CenterKeys) -> Publisher:
    """A publisher that is not connected yet."""
    return Publisher(
        broker_access(directory, settings),
        federation=federation_id(settings.federation),
        signer=keys.center,
        keys=lambda: content_keys.load(directory / "keys"),
        limits=Limits.of(settings.broker),
        ledger=directory / "published.db",
    )


def broker_access(directory: Path, settings: CenterSettings) -> BrokerAccess:
    """Where the broker is, and the center's papers for it."""
    return BrokerAccess(
        host=settings.broker.host,
        port=settings.broker.port,
        authority=directory / "trust" / "ca.crt",
        certificate=directory / "keys" / "mqtt.crt",
        key=directory / "keys" / "mqtt.key",
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


@contextmanager
def signing_files(
    voice: Publisher, folder: Path, *, directory: Path, settings: CenterSettings
) -> Iterator[tuple[Repository, Manifest]]:
    """The repository, for one that signs a release whose blocks are on the broker; others who sign wait.

    Args:
        folder: the release's files.

    Yields:
        The repository, and the manifest of these files under the content key in force.

    Raises:
        BadInputError: the folder cannot be a release, or the broker has no room, also after garbage was collected;
            nothing was sent then.
        UnavailableError: the broker did not take it all; call again.
    """
    key = voice.keys.newest
    manifest = voice.describe(folder, key=key)
    _make_room(voice, manifest, directory=directory, settings=settings)
    voice.publish_blocks(folder, manifest, key=key)  # before the others have to wait
    with signing(directory) as repository:
        if voice.keys.newest != key:
            key = voice.keys.newest
            manifest = manifest_of(folder, key=key)
        voice.publish_blocks(folder, manifest, key=key)  # what was collected meanwhile
        yield repository, manifest


def _make_room(voice: Publisher, manifest: Manifest, *, directory: Path, settings: CenterSettings) -> None:
    try:
        voice.check_room(manifest)
    except BadInputError:
        now = datetime.now(UTC)
        garbage = collecting.look(voice, directory, settings, now=now)
        voice.check_room(manifest, without=garbage.messages)
        collecting.collect(voice, directory, settings, now=now)


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
        revoked=(directory / renewing.REVOKED).resolve(),
        plugin=find_plugin(),
        largest_message=settings.broker.max_message_bytes,
    )
