"""`hanse-center init`: makes a federation's keys, certificates and first TUF root, and writes `center.toml` last."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from center import durable
from center.keys import OFFLINE, new_signing_key, new_tls_key
from center.mqtt import content_keys
from center.settings import FILE_NAME
from center.signing.key_files import online_keys
from center.signing.repository import OnlineKeys, Repository
from center.sites import authority, renewing
from protocol.errors import BadInputError
from protocol.identity import FederationId


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the parts of a center listen.

    Attributes:
        host: of gateway and broker; also the name in their certificate.
    """

    host: str
    gateway_port: int
    superlink_port: int
    broker_port: int


def found(
    directory: Path,
    *,
    federation: FederationId,
    addresses: Addresses,
    now: datetime,
    root_keys: int = 3,
    root_threshold: int = 2,
) -> None:
    """Make a new center in an empty folder.

    Args:
        root_keys: how many offline keys may sign a new root of trust.
        root_threshold: how many of them must.

    Raises:
        BadInputError: there is a center in this folder already, or the threshold is above the number of keys.
    """
    if (directory / FILE_NAME).exists():
        raise BadInputError(f"{directory} holds a center already", advice="use another folder with --dir")
    if not 1 <= root_threshold <= root_keys:
        raise BadInputError(f"{root_keys} root keys cannot meet a threshold of {root_threshold}")
    keys, trust = directory / "keys", directory / "trust"
    center = new_signing_key(keys / "center.key")
    roster = new_signing_key(directory / OFFLINE / "roster.key")
    roots = [new_signing_key(directory / OFFLINE / f"root-{number}.key") for number in range(1, root_keys + 1)]
    targets = new_signing_key(directory / OFFLINE / "targets.key")
    content_keys.create(keys)
    ca_key = new_tls_key(keys / "ca.key")
    ca = authority.create(federation, key=ca_key, now=now)
    durable.write(trust / "ca.crt", ca.public_bytes(Encoding.PEM))
    durable.write(trust / "roster.pub", roster.public_key().public_bytes_raw().hex().encode() + b"\n")
    durable.write(trust / "center.pub", center.public_key().public_bytes_raw().hex().encode() + b"\n")
    new_tls_key(keys / "tls.key")
    new_tls_key(keys / "mqtt.key")
    renewing.issue(directory, hosts=[addresses.host], now=now)
    Repository.create(
        directory / "tuf",
        root_keys=roots,
        root_threshold=root_threshold,
        targets_key=targets,
        keys=OnlineKeys(**{role: new_signing_key(keys / f"{role}.key") for role in OnlineKeys._fields}),
        now=now,
    )
    durable.write(directory / FILE_NAME, _settings_text(federation, addresses).encode())


def open_repository(directory: Path) -> Repository:
    """The TUF repository of a center's folder, with its online keys.

    Raises:
        BadInputError: a key or the repository is missing or damaged.
    """
    return Repository(directory / "tuf", keys=online_keys(directory))


@contextmanager
def signing(directory: Path) -> Iterator[Repository]:
    """The repository for one that signs; others wait, for two who sign at once would use one version number twice.

    Raises:
        BadInputError: a key or the repository is missing or damaged.
    """
    with exclusive(directory):
        yield open_repository(directory)


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Have the repository of a center's folder to oneself; others wait."""
    with (directory / "tuf" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _settings_text(federation: FederationId, addresses: Addresses) -> str:
    return f"""\
# Written by hanse-center init. All settings and their defaults: docs/settings.md
federation = "{federation}"

[gateway]
host = "{addresses.host}"
port = {addresses.gateway_port}

[superlink]
port = {addresses.superlink_port}

[broker]
host = "{addresses.host}"
port = {addresses.broker_port}
"""
