"""Long work in a thread beside the event loop: it lets go every now and then, so that answers need not wait for it.

In the main thread nobody waits: there it is done before the loop runs, or in a process that answers nobody.
"""

import gc
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

_AT_A_TIME = 256
_SECONDS = 0.001

Row = TypeVar("Row")


def in_breaths(rows: Iterable[Row]) -> Iterator[Row]:
    """The same rows; after every 256 the interpreter is left to others for a millisecond."""
    for number, row in enumerate(rows, start=1):
        yield row
        if number % _AT_A_TIME == 0:
            breathe()


def breathe() -> None:
    """Leave the interpreter to others for a millisecond."""
    if threading.current_thread() is not threading.main_thread():
        time.sleep(_SECONDS)


@contextmanager
def without_collections() -> Iterator[None]:
    """Nobody looks for cycles of garbage meanwhile: among so many new objects that would stop everything."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
