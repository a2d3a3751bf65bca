"""`hanse-center doctor`: keys, signatures, certificates, gateway, broker, disk, books. Looks, changes nothing."""

import shutil
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
from cryptography import x509

from center.keys import OFFLINE, CenterKeys
from center.mqtt import content_keys
from center.registry import Registry
from center.settings import CenterSettings
from center.signing import key_status
from protocol.diagnosis import Finding
from protocol.errors import FederationError

_LEAST_FREE_BYTES = 2 << 30
_MOST_SKEW = timedelta(seconds=60)
_RENEW_BEFORE = timedelta(days=30)
_TIMEOUT_SECONDS = 5.0


def examine(directory: Path, settings: CenterSettings, *, now: datetime) -> Iterator[Finding]:
    """Every check in turn; none stops the others."""
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("keys", lambda: _keys(directory)),
        ("offline keys", lambda: _offline(directory)),
        (key_status.CHECK, lambda: key_status.examine(directory, now=now)),
        ("certificate", lambda: _certificate(directory, now)),
        ("gateway and clock", lambda: _gateway(directory, settings, now)),
        ("broker", lambda: _broker(directory, settings)),
        ("disk", lambda: _disk(directory)),
        ("books", lambda: _books(directory)),
    )
    for name, check in checks:
        try:
            yield check()
        except (FederationError, OSError, ValueError) as error:
            fix = error.advice if isinstance(error, FederationError) else ""
            yield Finding(check=name, problem=str(error), fix=fix or "see the message")


def _keys(directory: Path) -> Finding:
    CenterKeys.load(directory)
    open_to_others = [p.name for p in (directory / "keys").glob("*.key") if stat.S_IMODE(p.stat().st_mode) & 0o077]
    if open_to_others:
        return Finding(check="keys", problem=f"others can read {', '.join(open_to_others)}", fix="chmod 600 keys/*.key")
    if content_keys.load(directory / "keys").coming is not None:
        return Finding(
            check="keys",
            problem="a change of the content key was interrupted: a removed site can still read what comes",
            fix="hanse-center keys rotate content goes on with it",
        )
    return Finding(check="keys")


def _offline(directory: Path) -> Finding:
    if any((directory / OFFLINE).glob("*.key")):
        return Finding(
            check="offline keys",
            problem="the keys that sign rosters, roots and who may release lie on this machine",
            fix=f"move {OFFLINE}/ to media you can lock away; the commands that want them take --offline DIR",
        )
    return Finding(check="offline keys")


def _certificate(directory: Path, now: datetime) -> Finding:
    certificate = x509.load_pem_x509_certificate((directory / "keys" / "tls.crt").read_bytes())
    left = certificate.not_valid_after_utc - now
    if left < _RENEW_BEFORE:
        return Finding(
            check="certificate",
            problem=f"the certificate of gateway and broker ends on {certificate.not_valid_after_utc:%Y-%m-%d}",
            fix="hanse-center renew",
        )
    return Finding(check="certificate")


def _gateway(directory: Path, settings: CenterSettings, now: datetime) -> Finding:
    name = "gateway and clock"
    url = f"https://{settings.gateway.host}:{settings.gateway.port}/health"
    context = ssl.create_default_context(cafile=str(directory / "trust" / "ca.crt"))
    try:
        with httpx.Client(verify=context, timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            response = client.get(url)
    except httpx.HTTPError as error:
        return Finding(check=name, problem=f"{url}: {error}", fix="hanse-center serve")
    if not response.is_success:
        return Finding(check=name, problem=f"{url} answers {response.status_code}", fix="see superlink/superlink.log")
    date = response.headers.get("date")
    there = parsedate_to_datetime(date) if date else now
    if abs(there.astimezone(UTC) - now) > _MOST_SKEW:
        return Finding(check=name, problem="the gateway's clock differs from this one", fix="switch NTP on")
    return Finding(check=name)


def _broker(directory: Path, settings: CenterSettings) -> Finding:
    context = ssl.create_default_context(cafile=str(directory / "trust" / "ca.crt"))
    context.load_cert_chain(directory / "keys" / "mqtt.crt", directory / "keys" / "mqtt.key")
    address = (settings.broker.host, settings.broker.port)
    try:
        with (
            closing(socket.create_connection(address, timeout=_TIMEOUT_SECONDS)) as raw,
            closing(context.wrap_socket(raw, server_hostname=address[0])),
        ):
            return Finding(check="broker")
    except OSError as error:
        return Finding(check="broker", problem=f"{address[0]}:{address[1]}: {error}", fix="hanse-center broker")


def _disk(directory: Path) -> Finding:
    free = shutil.disk_usage(directory).free
    if free < _LEAST_FREE_BYTES:
        return Finding(check="disk", problem=f"{free / 1e6:.0f} MB free", fix="free at least 2 GB")
    return Finding(check="disk")


def _books(directory: Path) -> Finding:
    with closing(Registry(directory / "registry.db")):
        return Finding(check="books")
