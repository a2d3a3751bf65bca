"""Flower's SuperLink as a child of the center: started, watched, ended.

It listens on loopback only, in process isolation with a SuperExec secret, so that nobody but this center can take a run
to execute. TLS stands on loopback too: SuperLink refuses node authentication without it.
"""

import contextlib
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from importlib.metadata import entry_points
from pathlib import Path

import httpx

from protocol.errors import BadInputError, UnavailableError

HOST = "127.0.0.1"
_SECRET_BYTES = 32
_POLL_SECONDS = 0.1


class SuperLink:
    """One SuperLink and its folder.

    Args:
        folder: where its database, its secret, its log and its FLWR_HOME live.
        certificate: PEM, valid for 127.0.0.1.
        key: PEM, of that certificate.
        ca_certificate: PEM, the authority that signed it.
        port: to listen on; 0 takes a free one, the same for the life of this object.
    """

    def __init__(self, *, folder: Path, certificate: Path, key: Path, ca_certificate: Path, port: int = 0) -> None:
        self._folder = folder
        self._certificate = certificate
        self._key = key
        self.ca_certificate = ca_certificate
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        return f"https://{self.address}"

    @property
    def log(self) -> Path:
        return self._folder / "superlink.log"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def secret(self) -> bytes:
        """32 random bytes, made on first use and kept: who knows them may execute runs."""
        path = self._folder / "superexec.secret"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(".new")
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123
                file.write(secrets.token_bytes(_SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        return path.read_bytes()

    def start(self, *, timeout: float = 60.0) -> None:
        """Start and wait until it answers.

        Raises:
            BadInputError: the port is in use.
            UnavailableError: it ended, or said nothing for ``timeout`` seconds.
        """
        self.secret()
        self.port = _free_port(self.port)
        # Its standard input is a pipe that nobody writes to: it closes when we die, however we die.
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "center.rounds.superlink", *self._arguments()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=_environment(self._folder / "flwr"),
                start_new_session=True,
            )
        try:
            self._wait_until_ready(time.monotonic() + timeout)
        except UnavailableError:
            self.stop(grace=0)
            raise

    def alive(self) -> bool:
        """Is the process still there?"""
        return self._process is not None and self._process.poll() is None

    def watch(self) -> bool:
        """Start it again if it died; the center calls this every second or so.

        Returns:
            Whether it had to.

        Raises:
            BadInputError: somebody else took its port meanwhile.
            UnavailableError: it does not come up.
        """
        if self.alive():
            return False
        self.stop(grace=0)
        self.start()
        return True

    def retire(self) -> None:
        """Let it end by itself, politely; `watch` starts it again, with the certificate that is there by then."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()

    def stop(self, *, grace: float = 2.0) -> None:
        """End it and whatever it started: politely, and after ``grace`` seconds for good."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None and grace > 0:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=grace)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin:
            process.stdin.close()

    def _arguments(self) -> list[str]:
        options = {
            "--host": HOST,
            "--port": str(self.port),
            "--ssl-certfile": str(self._certificate),
            "--ssl-keyfile": str(self._key),
            "--ssl-ca-certfile": str(self.ca_certificate),
            "--isolation": "process",
            "--superexec-auth-secret-file": str(self._folder / "superexec.secret"),
            "--database": str(self._folder / "superlink.db"),
        }
        flags = ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
        return [word for option in options.items() for word in option] + flags

    def _wait_until_ready(self, deadline: float) -> None:
        context = ssl.create_default_context(cafile=str(self.ca_certificate))
        with httpx.Client(verify=context, timeout=2.0, trust_env=False) as client:
            while time.monotonic() < deadline:
                if not self.alive():
                    raise UnavailableError("SuperLink ended while it started", advice=f"see {self.log}")
                with contextlib.suppress(httpx.TransportError):
                    if client.get(f"{self.url}/health").is_success:
                        return
                time.sleep(_POLL_SECONDS)
        raise UnavailableError("SuperLink does not answer", advice=f"see {self.log}")


def _free_port(port: int) -> int:
    """The port itself, or a free one for 0.

    Raises:
        BadInputError: somebody listens there.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BadInputError(
                f"port {port} on {HOST} cannot be used for SuperLink: {error.strerror}",
                advice="end what listens there, or choose another port",
            ) from error
        return int(probe.getsockname()[1])


def _environment(home: Path) -> dict[str, str]:
    """Ours without any FLWR_ setting that a shell may have left: each of them can open a port or a telephone line."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    return inherited | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }


def _die_with_parent() -> None:
    """Read standard input until its other end closes, which is when the center is gone, and follow it."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def _child() -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    (command,) = entry_points(group="console_scripts", name="flower-superlink")
    sys.argv[0] = command.name
    command.load()()


if __name__ == "__main__":
    _child()
