"""``python -m center.tethered PID COMMAND...``: run a command that the kernel ends when its parent dies.

The signal is sent when the *thread* that started the command ends, so start it from one that lives as long as the
command should. Outside Linux the command simply runs.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tie(parent: int) -> None:
    """Ask the kernel to end this process when its parent dies.

    Raises:
        SystemExit: the parent is dead already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel knew what we want
            raise SystemExit(1)


def command(*arguments: str) -> list[str]:
    """The argument list that runs `arguments` tied to this process."""
    return [sys.executable, "-m", "center.tethered", str(os.getpid()), *arguments]


if __name__ == "__main__":
    tie(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - becoming the command is the point
