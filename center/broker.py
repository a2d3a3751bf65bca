"""The MQTT broker that carries releases down: Mosquitto where it is installed, the embedded amqtt elsewhere."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from center import durable, tethered
from protocol.blocks import MAX_PAYLOAD_BYTES
from protocol.bundle import MAX_MANIFEST_BYTES
from protocol.errors import BadInputError, UnavailableError
from protocol.identity import FederationId
from protocol.topics import CENTER, Subject, Topics

Kind = Literal["mosquitto", "embedded"]

_START_SECONDS = 15.0
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.05
_ENVELOPE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPlan:
    """How a broker is to run.

    Attributes:
        folder: for its configuration, log and stored messages.
        authority: PEM of the certificate authority whose clients are let in.
        certificate: PEM of the broker's own certificate.
        key: PEM of its private key.
        queue_messages: messages kept for one slow client; more are dropped silently, hence the edges' window.
    """

    federation: FederationId
    folder: Path
    host: str
    port: int
    authority: Path
    certificate: Path
    key: Path
    queue_messages: int = 1000

    @property
    def max_packet_bytes(self) -> int:
        """The largest message of ours: a block or a manifest, with its topic."""
        return max(MAX_PAYLOAD_BYTES, MAX_MANIFEST_BYTES) + _ENVELOPE_BYTES


def mosquitto_path() -> str | None:
    """Mosquitto's executable, if it is installed; distributions keep it off the search path of users."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")


def mosquitto_configuration(plan: BrokerPlan, *, user: str | None = None) -> str:
    """Text of ``mosquitto.conf``: TLS only, the certificate's common name is the user, everything persistent.

    Args:
        user: account to run as when started by root.
    """
    lines = [
        "per_listener_settings false",
        f"listener {plan.port} {plan.host}",
        "protocol mqtt",
        f"cafile {plan.authority}",
        f"certfile {plan.certificate}",
        f"keyfile {plan.key}",
        "tls_version tlsv1.2",
        "require_certificate true",
        "use_identity_as_username true",
        "allow_anonymous false",
        f"acl_file {plan.folder / 'acl'}",
        f"max_queued_messages {plan.queue_messages}",
        f"max_packet_size {plan.max_packet_bytes}",
        "max_keepalive 120",
        "set_tcp_nodelay true",
        "retain_available true",
        "persistence true",
        f"persistence_location {plan.folder}/",
        "autosave_interval 60",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "connection_messages false",
    ]
    if user is not None:
        lines.append(f"user {user}")
    return "\n".join(lines) + "\n"


def access_rules(federation: FederationId) -> str:
    """Text of Mosquitto's ACL file: the same rules as `protocol.topics.may_read` and `may_write`."""
    topics = Topics(federation)
    return "\n".join(
        [
            f"user {CENTER}",
            f"topic readwrite {topics.base}/#",
            "",
            *(f"pattern read {topics.base}/{subject}" for subject in (Subject.ROSTER, Subject.ROUND)),
            *(f"pattern read {topics.base}/{subject}/#" for subject in (Subject.TUF, Subject.BLOCK)),
            f"pattern read {topics.base}/{Subject.KEY}/%u",
            f"pattern readwrite {topics.base}/{Subject.STATUS}/%u",
            "",
        ]
    )


class Broker:
    """A running broker, ended with the process that started it."""

    def __init__(self, process: subprocess.Popen[bytes], plan: BrokerPlan) -> None:
        self._process = process
        self.plan = plan

    @classmethod
    def start(cls, plan: BrokerPlan, *, kind: Kind) -> Self:
        """Write the configuration and start a broker.

        Raises:
            BadInputError: Mosquitto was asked for and is not installed.
            UnavailableError: it ends at once (a port in use, an unreadable key) or does not listen in time.
        """
        plan.folder.mkdir(parents=True, exist_ok=True)
        _check_port(plan)
        arguments = _mosquitto(plan) if kind == "mosquitto" else _embedded(plan)
        with (plan.folder / "broker.log").open("ab") as log:
            process = subprocess.Popen(
                tethered.command(*arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        broker = cls(process, plan)
        try:
            broker._wait_until_ready()
        except BaseException:
            broker.stop()
            raise
        return broker

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> None:
        """Until it ends by itself."""
        self._process.wait()

    def stop(self) -> None:
        """End it, and wait until it has stored what it keeps."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if not self.is_running:
                raise UnavailableError(
                    f"the broker ended at once: {self._last_words()}",
                    advice=f"the whole log is {self.plan.folder / 'broker.log'}",
                )
            if _listens(self.plan):
                return
            time.sleep(_POLL_SECONDS)
        raise UnavailableError(f"the broker does not listen on {self.plan.host}:{self.plan.port}: {self._last_words()}")

    def _last_words(self) -> str:
        lines = (self.plan.folder / "broker.log").read_text("utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it left no word"


def _mosquitto(plan: BrokerPlan) -> list[str]:
    executable = mosquitto_path()
    if executable is None:
        raise BadInputError("Mosquitto is not installed", advice="install it, or use the embedded broker")
    configuration = plan.folder / "mosquitto.conf"
    durable.write(plan.folder / "acl", access_rules(plan.federation).encode(), private=True)
    durable.write(configuration, mosquitto_configuration(plan, user="root" if os.geteuid() == 0 else None).encode())
    return [executable, "-c", str(configuration)]


def _embedded(plan: BrokerPlan) -> list[str]:
    path = plan.folder / "embedded.json"
    values = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(plan).items()}
    durable.write(path, json.dumps(values, indent=1).encode())
    return [sys.executable, "-m", "center.embedded_broker", str(path)]


def _check_port(plan: BrokerPlan) -> None:
    with socket.socket(socket.AF_INET6 if ":" in plan.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((plan.host, plan.port))
        except OSError as error:
            raise UnavailableError(
                f"the broker cannot listen on {plan.host}:{plan.port}: {error.strerror}",
                advice="end the other program, or change broker.port in center.toml",
            ) from error


def _listens(plan: BrokerPlan) -> bool:
    host = "127.0.0.1" if plan.host == "0.0.0.0" else plan.host  # noqa: S104 - compared, not bound
    try:
        socket.create_connection((host, plan.port), timeout=1.0).close()
    except OSError:
        return False
    return True
