"""SIGTERM and Ctrl-C as an event that any thread can wait for."""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})


@contextmanager
def stop_event() -> Iterator[threading.Event]:
    """An event that is set when somebody wants this process to end. In the main thread only.

    A handler of Python's runs in the main thread between two of its steps, perhaps while that holds the lock of this
    very event; setting it there would wait for itself for ever. So the handlers do nothing, and another thread reads
    what the interpreter writes of each signal (`signal.set_wakeup_fd`).
    """
    stop = threading.Event()
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    reader = threading.Thread(target=_read, args=(reading, stop), name="signals", daemon=True)
    reader.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        writing.close()
        reader.join()
        reading.close()


def _read(reading: socket.socket, stop: threading.Event) -> None:
    while numbers := reading.recv(64):
        if not _SIGNALS.isdisjoint(numbers):
            stop.set()
