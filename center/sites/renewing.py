"""The center's own certificates, and the list of those that count no more: issued anew long before they end.

Certificates change and keys stay, so a certificate file always fits the key beside it, whenever a crash comes. Whoever
stole these keys stole the authority's with them.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from center import durable
from center.keys import load_tls_key
from center.settings import CenterSettings
from center.sites import authority
from center.sites.certificates import Revoked
from protocol.errors import BadInputError
from protocol.renewal import is_due
from protocol.topics import CENTER

REVOKED = Path("trust") / "ca.crl"


def issue(directory: Path, *, hosts: Sequence[str], now: datetime) -> None:
    """Certificates for gateway, SuperLink and broker, and for the center as a client of the broker.

    Args:
        hosts: names and addresses under which these are reached from elsewhere.

    Raises:
        BadInputError: a key is missing or damaged.
    """
    ca, ca_key = load_authority(directory)
    keys = directory / "keys"
    names = tuple(dict.fromkeys([*hosts, "127.0.0.1", "localhost"]))
    issue_server(keys / "tls.key", keys / "tls.crt", hosts=names, authority_pair=(ca, ca_key), now=now)
    request = authority.request_for(CENTER, load_tls_key(keys / "mqtt.key"))
    mine = authority.client_certificate(CENTER, request=request, authority=ca, authority_key=ca_key, now=now)
    durable.write(keys / "mqtt.crt", mine.public_bytes(Encoding.PEM))


def renew(directory: Path, settings: CenterSettings, *, now: datetime) -> None:
    """The same anew.

    Raises:
        BadInputError: a key is missing or damaged.
    """
    issue(directory, hosts=hosts_of(settings), now=now)


def renew_if_due(directory: Path, settings: CenterSettings, *, now: datetime) -> bool:
    """Renew when less than a third of the life of either certificate is left.

    Returns:
        Whether they were.

    Raises:
        BadInputError: a key or a certificate is missing or damaged.
    """
    files = [directory / "keys" / name for name in ("tls.crt", "mqtt.crt")]
    if not any(is_due(load_certificate(path), now=now) for path in files):
        return False
    renew(directory, settings, now=now)
    return True


def hosts_of(settings: CenterSettings) -> tuple[str, ...]:
    """All names under which the center's parts are reached."""
    return tuple(dict.fromkeys([settings.gateway.host, settings.broker.host, "127.0.0.1", "localhost"]))


def issue_server(
    key: Path,
    certificate: Path,
    *,
    hosts: tuple[str, ...],
    authority_pair: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
    now: datetime,
) -> None:
    """Write a certificate for a key that exists."""
    ca, ca_key = authority_pair
    public_key = load_tls_key(key).public_key()
    issued = authority.server_certificate(hosts, public_key=public_key, authority=ca, authority_key=ca_key, now=now)
    durable.write(certificate, issued.public_bytes(Encoding.PEM))


def keep_revoked(directory: Path, revoked: Sequence[Revoked], *, now: datetime) -> None:
    """Write the revocation list when it lacks a certificate or a third of its life is over.

    OpenSSL lets nobody in once a list has ended, so it lasts a year and is renewed after months.

    Raises:
        BadInputError: the authority's key is missing or damaged.
    """
    since = {entry.serial: datetime.fromtimestamp(entry.since_ms / 1000, UTC) for entry in revoked}
    path = directory / REVOKED
    if path.exists() and _still_right(path.read_bytes(), serials=set(since), now=now):
        return
    ca, ca_key = load_authority(directory)
    fresh = authority.revocation_list(since, authority=ca, authority_key=ca_key, now=now)
    durable.write(path, fresh.public_bytes(Encoding.PEM))


def _still_right(pem: bytes, *, serials: set[int], now: datetime) -> bool:
    try:
        current = x509.load_pem_x509_crl(pem)
    except ValueError:
        return False
    begins, ends = current.last_update_utc, current.next_update_utc
    return (
        {entry.serial_number for entry in current} == serials
        and ends is not None
        and now - begins < (ends - begins) / 3
        and now >= begins
    )


def load_authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The certificate authority and its key.

    Raises:
        BadInputError: missing or damaged.
    """
    return load_certificate(directory / "trust" / "ca.crt"), load_tls_key(directory / "keys" / "ca.key")


def load_certificate(path: Path) -> x509.Certificate:
    """A certificate in PEM.

    Raises:
        BadInputError: missing or damaged.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} cannot be read: {error}", advice="hanse-center renew") from error
