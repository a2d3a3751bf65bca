"""The MQTT broker that carries releases down: Mosquitto where it is installed, the embedded amqtt elsewhere."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal, Self

from center import durable, tethered
from center.mqtt.broker_config import RULES, BrokerPlan, write_configuration, write_rules
from protocol.errors import BadInputError, UnavailableError

Kind = Literal["mosquitto", "embedded"]

EMBEDDED_PLAN = "embedded.json"

_START_SECONDS = 15.0
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.05


def mosquitto_path() -> str | None:
    """Mosquitto's executable, if it is installed; distributions keep it off the search path of users."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")


class Broker:
    """A running broker, ended with the process that started it."""

    def __init__(self, process: subprocess.Popen[bytes], plan: BrokerPlan) -> None:
        self._process = process
        self.plan = plan

    @classmethod
    def start(cls, plan: BrokerPlan, *, kind: Kind) -> Self:
        """Write the configuration and start a broker; without access rules in its folder it lets nobody do anything.

        Raises:
            BadInputError: Mosquitto was asked for and is not installed.
            UnavailableError: it ends at once (a port in use, an unreadable key) or does not listen in time.
        """
        plan.folder.mkdir(parents=True, exist_ok=True)
        _check_port(plan)
        if not (plan.folder / RULES).exists():
            write_rules(plan.folder, plan.federation, ())
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

    def reload(self) -> None:
        """Read access rules, certificate and revocation list again; who counts no more is put out or struck dumb."""
        self._process.send_signal(signal.SIGHUP)

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
            if _listens(self.plan) and catches_hangup(self.pid):
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
    configuration = write_configuration(plan, plan.folder, user="root" if os.geteuid() == 0 else None)
    return [executable, "-c", str(configuration)]


def _embedded(plan: BrokerPlan) -> list[str]:
    path = plan.folder / EMBEDDED_PLAN
    durable.write(path, plan.to_json())
    return [sys.executable, "-m", "center.mqtt.embedded_broker", str(path)]


def catches_hangup(pid: int) -> bool:
    """Would SIGHUP be understood? A program that has set no handlers yet dies of it. True where nobody can tell.

    Raises:
        FileNotFoundError: there is no such process any more.
    """
    if not Path("/proc/self").exists():
        return True
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGHUP - 1) & 1)
    return False


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
