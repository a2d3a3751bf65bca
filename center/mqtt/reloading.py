"""Tells a running broker that its files have changed, and puts out who was removed.

What is to hold is written into the broker's folder first; then the broker is told, and only then is it noted that it
knows. So a crash at any moment, or a broker that could not be reached, is made up for by the next look.
"""

import json
import os
import secrets
import signal
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self

import structlog

from center import durable
from center.mqtt.broker import EMBEDDED_PLAN, Kind, catches_hangup
from center.mqtt.broker_config import CONFIGURATION, CONTROL_TOPIC, PID
from center.mqtt.connection import BrokerAccess, Connection
from protocol.errors import UnavailableError
from protocol.identity import EdgeId

_log = structlog.get_logger(__name__)
_FILE = "loaded"
_DELIVER_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a broker has read.

    Attributes:
        digest: of its access rules, certificate and revocation list, in hexadecimal.
        revoked: serial numbers in that list, in hexadecimal, sorted.
    """

    digest: str = ""
    revoked: tuple[str, ...] = ()

    @classmethod
    def of(cls, files: Iterable[Path], *, revoked: Iterable[int]) -> Self:
        digest = sha256(b"".join(sha256(path.read_bytes()).digest() for path in files)).hexdigest()
        return cls(digest=digest, revoked=tuple(sorted(f"{serial:x}" for serial in revoked)))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What was noted last; nothing at all after damage, which costs one more signal."""
        try:
            values = json.loads((folder / _FILE).read_text("utf-8"))
            return cls(digest=str(values["digest"]), revoked=tuple(map(str, values["revoked"])))
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def write(self, folder: Path) -> None:
        durable.write(folder / _FILE, json.dumps(asdict(self)).encode())


def signal_broker(folder: Path) -> Kind | None:
    """Let the broker of this folder read its files again.

    Returns:
        What kind it is; None where none runs: it will read them when it starts.

    Raises:
        UnavailableError: it is just starting.
        PermissionError: another account runs it.
    """
    try:
        pid = int((folder / PID).read_text("ascii"))
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        ready = catches_hangup(pid)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    kinds: dict[Kind, bytes] = {
        "mosquitto": os.fsencode(folder / CONFIGURATION),
        "embedded": os.fsencode(folder / EMBEDDED_PLAN),
    }
    kind = next((kind for kind, argument in kinds.items() if argument in arguments), None)
    if kind is None:
        return None  # the number is another program's by now
    if not ready:
        raise UnavailableError(f"the broker in {folder} is just starting")
    try:
        os.kill(pid, signal.SIGHUP)
    except ProcessLookupError:
        return None
    return kind


def put_out(access: BrokerAccess, edges: Iterable[EdgeId]) -> None:
    """Let Mosquitto end all connections of these names. It keeps nothing of them afterwards.

    Raises:
        UnavailableError: it does not answer.
        UntrustedError: it is not this federation's.
    """
    names = sorted(edges)
    if not names:
        return
    # A client that its plugin has never heard of cannot be deleted, and deleting is what disconnects.
    commands = [
        {"command": command, "username": name} for name in names for command in ("createClient", "deleteClient")
    ]
    connection = Connection(access, client_id=f"center-{secrets.token_hex(8)}")
    connection.start()
    try:
        connection.wait_until_up(seconds=_DELIVER_SECONDS)
        message = json.dumps({"commands": commands}).encode()
        connection.deliver([(CONTROL_TOPIC, message)], window=1, seconds=_DELIVER_SECONDS)
    finally:
        connection.stop()
    _log.info("put out", edges=names)
