"""One `serve` a folder: a lock of the kernel's, which ends with its process."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from protocol.errors import BadInputError

_NAME = "serve.lock"
_MOMENT_SECONDS = 0.2


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Be the one.

    Raises:
        BadInputError: another one serves.
    """
    with (directory / _NAME).open("w") as lock:
        if not (_take(lock) or _take_soon(lock)):
            raise BadInputError(f"a center serves in {directory} already", advice="end it first")
        yield


def served(directory: Path) -> bool:
    """Does somebody serve here?"""
    with (directory / _NAME).open("w") as lock:
        return not _take(lock)


def _take_soon(lock: IO[str]) -> bool:
    """Whoever only looks whether somebody serves has the lock for a moment."""
    time.sleep(_MOMENT_SECONDS)
    return _take(lock)


def _take(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
