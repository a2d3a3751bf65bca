"""`hanse-edge doctor`: keys, certificate, clock, gateway, broker, port, disk, books, log. Looks, changes nothing."""

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

from edge import audit
from edge.keys import Keys
from edge.records.store import Store
from edge.releases import renewal
from edge.settings import CenterSettings, EdgeSettings
from protocol.audit import check_chain
from protocol.diagnosis import Finding
from protocol.errors import FederationError

_LEAST_FREE_BYTES = 1 << 30
_MOST_SKEW = timedelta(seconds=60)
_RENEW_BEFORE = timedelta(days=30)
_TIMEOUT_SECONDS = 5.0


def examine(directory: Path, settings: EdgeSettings, *, now: datetime) -> Iterator[Finding]:
    """Every check in turn; none stops the others."""
    center = settings.center
    tied: tuple[tuple[str, Callable[[], Finding]], ...] = ()
    if center is not None:
        tied = (
            ("keys", lambda: _keys(directory)),
            ("certificate", lambda: _certificate(directory, now)),
            ("gateway and clock", lambda: _gateway(directory, center, now)),
            ("broker", lambda: _broker(directory, center)),
        )
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        *tied,
        ("port", lambda: _port(settings)),
        ("disk", lambda: _disk(directory)),
        ("books", lambda: _books(directory)),
        ("audit log", lambda: _audit(directory)),
    )
    for name, check in checks:
        try:
            yield check()
        except (FederationError, OSError, ValueError) as error:
            fix = error.advice if isinstance(error, FederationError) else ""
            yield Finding(check=name, problem=str(error), fix=fix or "see the message")


def _keys(directory: Path) -> Finding:
    Keys.load(directory / "keys")
    secret = [*(directory / "keys").glob("*.key"), *(directory / "keys").glob("*.pem")]
    open_to_others = [path.name for path in secret if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if open_to_others:
        return Finding(check="keys", problem=f"others can read {', '.join(open_to_others)}", fix="chmod 600 keys/*")
    return Finding(check="keys")


def _certificate(directory: Path, now: datetime) -> Finding:
    certificate = renewal.read(directory)
    left = certificate.not_valid_after_utc - now
    if left < _RENEW_BEFORE:
        return Finding(
            check="certificate",
            problem=f"the broker's client certificate ends on {certificate.not_valid_after_utc:%Y-%m-%d}",
            fix="hanse-edge renew",
        )
    return Finding(check="certificate")


def _gateway(directory: Path, center: CenterSettings, now: datetime) -> Finding:
    name = "gateway and clock"
    context = ssl.create_default_context(cafile=str(directory / "trust" / "ca.crt"))
    try:
        with httpx.Client(verify=context, timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            response = client.get(f"{center.gateway}/health")
    except httpx.HTTPError as error:
        return Finding(
            check=name,
            problem=f"{center.gateway}: {error}",
            fix="serving goes on without the center; check the line, or center.gateway in edge.toml",
        )
    if not response.is_success:
        return Finding(
            check=name,
            problem=f"{center.gateway} answers {response.status_code}",
            fix="serving goes on without the center; tell the federation operator",
        )
    date = response.headers.get("date")
    there = parsedate_to_datetime(date) if date else now
    if abs(there.astimezone(UTC) - now) > _MOST_SKEW:
        skew = round((now - there).total_seconds())
        return Finding(check=name, problem=f"this clock is {skew} s off the center's", fix="switch NTP on")
    return Finding(check=name)


def _broker(directory: Path, center: CenterSettings) -> Finding:
    context = ssl.create_default_context(cafile=str(directory / "trust" / "ca.crt"))
    context.load_cert_chain(directory / renewal.PAIR)
    address = (center.broker_host, center.broker_port)
    try:
        with (
            closing(socket.create_connection(address, timeout=_TIMEOUT_SECONDS)) as raw,
            closing(context.wrap_socket(raw, server_hostname=address[0])),
        ):
            return Finding(check="broker")
    except OSError as error:
        return Finding(
            check="broker",
            problem=f"{address[0]}:{address[1]}: {error}",
            fix="serving goes on; no release arrives until the broker answers",
        )


def _port(settings: EdgeSettings) -> Finding:
    address = (settings.serving.host, settings.serving.port)
    try:
        with httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            if "ready" in client.get(f"http://{address[0]}:{address[1]}/readyz").json():
                return Finding(check="port")  # it is this edge, serving
    except httpx.TransportError:
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        return Finding(check="port")
    except ValueError:
        pass  # something answers, but not an edge
    return Finding(
        check="port", problem=f"something else listens on port {address[1]}", fix="set serving.port in edge.toml"
    )


def _disk(directory: Path) -> Finding:
    free = shutil.disk_usage(directory).free
    if free < _LEAST_FREE_BYTES:
        return Finding(check="disk", problem=f"{free / 1e6:.0f} MB free", fix="free at least 1 GB for releases")
    return Finding(check="disk")


def _books(directory: Path) -> Finding:
    with closing(Store.open(directory / "store.db")):
        return Finding(check="books")


def _audit(directory: Path) -> Finding:
    if (directory / audit.FILE_NAME).exists():
        check_chain(audit.read(directory))
    return Finding(check="audit log")
