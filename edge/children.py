"""Processes beside the serving one, of lower priority: the learner, and the fitting of the fusion.

A child's standard input is a pipe that nobody writes to: it closes when this process dies, however it dies, and the
child ends itself then (`end_with_parent`).
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

_GRACE_SECONDS = 5.0
_ONLY_WHEN_IDLE = 19
_ATTEMPTS, _ATTEMPT_SECONDS = 20, 0.05


class Child:
    """One of our own commands in a process of lower priority, or none at the moment."""

    def __init__(self, words: Sequence[str], *, directory: Path, niceness: int, module: str = "edge.cli") -> None:
        self._command = [sys.executable, "-m", module, *words, "--dir", str(directory)]
        self._niceness = niceness
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.running():
            return
        self.stop()  # lets the pipe of the last one go
        self._process = subprocess.Popen(
            [*_nice(self._niceness), *self._command], stdin=subprocess.PIPE, start_new_session=True
        )
        if self._niceness:
            _stand_back(self._process.pid, self._niceness)

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def returncode(self) -> int | None:
        """Of the last one, once it has ended."""
        return self._process.poll() if self._process else None

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """End it and wait."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin:
            process.stdin.close()
        process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _nice(niceness: int) -> list[str]:
    return ["nice", "-n", str(niceness)] if niceness and os.name == "posix" else []


def _stand_back(pid: int, niceness: int) -> None:
    """Make the kernel let this process serve first, where there is more to do than cores to do it.

    Linux divides the time among sessions, and niceness counts only within one: a child in a session of its own takes
    half a core from the serving process however nice it is, unless its session is told to be nice, too (sched(7), "The
    autogroup feature"). Where there are no such groups, as under systemd, the policy of idle tasks does the same.
    """
    _tell_session(pid, os.nice(0) + niceness)
    if niceness >= _ONLY_WHEN_IDLE and hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):  # it has ended already
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


def _tell_session(pid: int | str, niceness: int) -> bool:
    try:
        Path(f"/proc/{pid}/autogroup").write_text(str(min(niceness, _ONLY_WHEN_IDLE)), "ascii")
    except BlockingIOError:  # only every tenth of a second may an ordinary user say so
        return False
    except OSError:  # there are no such groups here
        return True
    return True


def end_with_parent() -> None:
    """Called by a child: end this process at once when the parent is gone."""

    def watch() -> None:
        for _ in range(_ATTEMPTS if os.getsid(0) == os.getpid() else 0):  # never somebody else's: a shell's, a test's
            if _tell_session("self", os.nice(0)):
                break
            time.sleep(_ATTEMPT_SECONDS)
        with contextlib.suppress(OSError):
            while os.read(sys.stdin.fileno(), 1):
                pass
        os._exit(0)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
