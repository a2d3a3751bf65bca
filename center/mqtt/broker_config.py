"""What a broker is told: Mosquitto's configuration and access rules, written out, and the plan behind both.

Mosquitto 2.0 reads access rules, certificate and revocation list again at SIGHUP. The rules count at once, also for
whoever is connected; the certificates for whoever connects from then on, and tickets of earlier TLS sessions end. It
disconnects nobody by itself. Its dynamic security plugin is loaded for that alone: the access rules stand above it.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from center import durable
from protocol.blocks import MAX_PAYLOAD_BYTES
from protocol.bundle import MAX_MANIFEST_BYTES
from protocol.identity import EdgeId, FederationId
from protocol.topics import CENTER, Topics

RULES = "acl"
CONFIGURATION = "mosquitto.conf"
PID = "broker.pid"
CONTROL_TOPIC = "$CONTROL/dynamic-security/v1"

_ENVELOPE_BYTES = 4096
_PLUGIN_BOOK = "dynamic-security.json"
_PLUGIN_PLACES = (
    *(f"/usr/lib/{machine}-linux-gnu" for machine in ("x86_64", "aarch64")),
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/opt/homebrew/lib",
)
_PLUGIN_FILE = "mosquitto_dynamic_security.so"
_NOBODY_BY_DEFAULT = {
    "defaultACLAccess": dict.fromkeys(("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe"), False),
    "clients": [],
    "groups": [],
    "roles": [],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPlan:
    """How a broker is to run.

    Attributes:
        folder: for its configuration, access rules, log and stored messages.
        host: address to listen on; empty: on all.
        authority: PEM of the certificate authority whose clients are let in.
        certificate: PEM of the broker's own certificate.
        key: PEM of its private key.
        revoked: PEM list of certificates of that authority that count no more.
        queue_messages: messages kept for one slow client; more are dropped silently, hence the edges' window.
        queue_bytes: likewise, their size together.
        plugin: file of Mosquitto's dynamic security plugin; empty: it cannot put anybody out.
        largest_message: bytes that the operator allows a message, where that is more than ours need.
    """

    federation: FederationId
    folder: Path
    host: str
    port: int
    authority: Path
    certificate: Path
    key: Path
    revoked: Path
    queue_messages: int = 1000
    queue_bytes: int = 64 << 20
    plugin: str = ""
    largest_message: int = 0

    @property
    def max_packet_bytes(self) -> int:
        """The largest message: a block or a manifest, or what the operator allows, with its topic."""
        return max(MAX_PAYLOAD_BYTES, MAX_MANIFEST_BYTES, self.largest_message) + _ENVELOPE_BYTES

    def to_json(self) -> bytes:
        values = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        return json.dumps(values, indent=1).encode()


def read_plan(path: Path) -> BrokerPlan:
    """Read a plan that was written down."""
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    paths = {field.name for field in fields(BrokerPlan) if field.type is Path}
    values.update({name: Path(values[name]) for name in paths})
    return BrokerPlan(**values)


def find_plugin() -> str:
    """The file of Mosquitto's dynamic security plugin on this machine, or nothing."""
    found = (Path(place) / _PLUGIN_FILE for place in _PLUGIN_PLACES)
    return next((str(path) for path in found if path.is_file()), "")


def mosquitto_configuration(plan: BrokerPlan, *, user: str | None = None) -> str:
    """Text of ``mosquitto.conf``: TLS only, the certificate's common name is the user, everything persistent.

    Args:
        user: account to run as when started by root.
    """
    lines = [
        "# Written by hanse-center. Who may read and write what stands in the acl file, which is rewritten as sites",
        "# come and go: send SIGHUP then. It reloads the rules, the certificate and the revocation list.",
        "per_listener_settings false",
        f"listener {plan.port} {plan.host}".rstrip(),
        "protocol mqtt",
        f"cafile {plan.authority}",
        f"certfile {plan.certificate}",
        f"keyfile {plan.key}",
        f"crlfile {plan.revoked}",
        "tls_version tlsv1.2",
        "require_certificate true",
        "use_identity_as_username true",
        "allow_anonymous false",
        "allow_zero_length_clientid false",
        f"acl_file {plan.folder / RULES}",
        f"max_queued_messages {plan.queue_messages}",
        f"max_queued_bytes {plan.queue_bytes}",
        f"max_packet_size {plan.max_packet_bytes}",
        "max_keepalive 120",
        "set_tcp_nodelay true",
        "sys_interval 0",
        "retain_available true",
        "persistence true",
        f"persistence_location {plan.folder}/",
        "persistent_client_expiration 1h",
        "autosave_interval 60",
        f"pid_file {plan.folder / PID}",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "connection_messages false",
    ]
    if plan.plugin:
        lines += [f"plugin {plan.plugin}", f"plugin_opt_config_file {plan.folder / _PLUGIN_BOOK}"]
    if user is not None:
        lines.append(f"user {user}")
    return "\n".join(lines) + "\n"


def access_rules(federation: FederationId, edges: Iterable[EdgeId]) -> str:
    """Text of Mosquitto's ACL file: the same rules as `protocol.topics.may_read` and `may_write`, edge by edge.

    There are no patterns in it: who is not listed may do nothing, whatever certificate he shows.
    """
    topics = Topics(federation)
    lines = [
        f"user {CENTER}",
        f"topic readwrite {topics.base}/#",
        f"topic write {CONTROL_TOPIC}",
    ]
    for edge in sorted(set(edges) - {CENTER}):
        lines += [
            "",
            f"user {edge}",
            *(f"topic read {name}" for name in topics.common()),
            f"topic read {topics.key(edge)}",
            f"topic readwrite {topics.status(edge)}",
        ]
    return "\n".join(lines) + "\n"


def listed(rules: str) -> frozenset[str]:
    """The names in an ACL file."""
    return frozenset(line.removeprefix("user ") for line in rules.splitlines() if line.startswith("user "))


def write_rules(folder: Path, federation: FederationId, edges: Iterable[EdgeId]) -> None:
    """Write the ACL file; a running broker reads it at SIGHUP."""
    durable.write(folder / RULES, access_rules(federation, edges).encode(), private=True)


def write_configuration(plan: BrokerPlan, folder: Path, *, user: str | None = None) -> Path:
    """Write ``mosquitto.conf`` and what its plugin needs.

    Args:
        folder: where to write; the plan's own, unless that is on another machine.
    """
    path = folder / CONFIGURATION
    durable.write(path, mosquitto_configuration(plan, user=user).encode())
    if plan.plugin and not (folder / _PLUGIN_BOOK).exists():  # from here on it is Mosquitto's to write
        durable.write(folder / _PLUGIN_BOOK, json.dumps(_NOBODY_BY_DEFAULT).encode(), private=True)
    return path
