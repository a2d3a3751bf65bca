"""Processes beside the serving one, of lower priority: the learner, and the fitting of the fusion.

A child's standard input is a pipe that nobody writes to: it closes when this process dies, however it dies, and the
child ends itself then (`end_with_parent`).
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

_GRACE_SECONDS = 5.0


class Child:
    """One of our own commands in a process of lower priority, or none at the moment."""

    def __init__(self, words: Sequence[str], *, directory: Path, niceness: int) -> None:
        self._command = [sys.executable, "-m", "edge.cli", *words, "--dir", str(directory)]
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

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def returncode(self) -> int | None:
        """Of the last one, once it has ended."""
        return self._process.poll() if self._process else None

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


def end_with_parent() -> None:
    """Called by a child: end this process at once when the parent is gone."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(sys.stdin.fileno(), 1):
                pass
        os._exit(0)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
