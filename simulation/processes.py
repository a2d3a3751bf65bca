"""Children of the harness: started with a log each, ended by process id, none left behind."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from protocol.errors import FederationError, UnavailableError

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 10.0
_LOG_LINES = 5


class CommandFailedError(FederationError):
    """A command of ours ended with an error; its own line is the message."""


class Child:
    """One long-running process of the federation.

    Attributes:
        name: for people.
        log: where its output goes.
    """

    def __init__(self, name: str, command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C reaches the harness alone, which ends its children in order
                preexec_fn=_dying_with(os.getpid()),  # noqa: PLW1509 - two system calls, no lock of ours is needed
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def check(self) -> None:
        """Is it still there?

        Raises:
            UnavailableError: it ended; the end of its log is in the message.
        """
        if not self.alive():
            raise UnavailableError(f"{self.name} ended: {self.last_words()}", advice=f"see {self.log}")

    def last_words(self) -> str:
        lines = self.log.read_text("utf-8", errors="replace").strip().splitlines()
        return " | ".join(lines[-_LOG_LINES:]) or "without a word"

    def stop(self) -> None:
        """End it: politely, then for good, with everything it started."""
        if self.alive():
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=_GRACE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill -9, the whole process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def _dying_with(parent: int) -> Callable[[], None]:
    """What a child does before anything else. Linux: get SIGTERM when the harness dies, however it dies."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def ask_for_it() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died before we asked
                os._exit(1)

    return ask_for_it


def program(name: str) -> str:
    """The path of one of our commands, beside the interpreter that runs us."""
    return str(Path(sys.executable).with_name(name))


def run(command: Sequence[str], *, environment: Mapping[str, str], timeout: float = 600.0) -> str:
    """Run a command to its end and give back what it printed.

    It ends with the harness, too: a site that joins would go on asking a center that is gone.

    Raises:
        CommandFailedError: it failed; its last line says why.
    """
    result = subprocess.run(
        list(command),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, **environment},
        preexec_fn=_dying_with(os.getpid()),
    )
    if result.returncode != 0:
        lines = (result.stderr.strip() or result.stdout.strip()).splitlines()
        said = lines[-1] if lines else f"exit code {result.returncode}"
        raise CommandFailedError(f"{Path(command[0]).name} {command[1]}: {said}")
    return result.stdout


def free_ports(count: int) -> list[int]:
    """Free loopback ports, all different."""
    probes = []
    try:
        for _ in range(count):
            probe = socket.socket()
            probes.append(probe)
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def wait_until(ready: Callable[[], bool], *, what: str, seconds: float, children: Sequence[Child] = ()) -> None:
    """Look again and again until something holds.

    Raises:
        UnavailableError: it does not hold in time, or a child ended meanwhile.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        for child in children:
            child.check()
        if time.monotonic() > deadline:
            raise UnavailableError(f"{what} took longer than {seconds:.0f} s")
        time.sleep(0.2)
