"""A center can be told to end at any moment, and as often as somebody likes, and ends."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from center.stopping import stop_event

FLOODED = """
import os, signal, threading, time
from center.stopping import stop_event

def flood():
    while not over.is_set():
        os.kill(os.getpid(), signal.SIGTERM)

over = threading.Event()
with stop_event() as stop:
    threading.Thread(target=flood, daemon=True).start()
    end = time.monotonic() + 1.5
    seen = 0
    while time.monotonic() < end:
        seen += stop.wait(1e-5)
        stop.clear()
    over.set()
print(seen)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_event_and_handlers_come_back(number):
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    with stop_event() as stop:
        assert not stop.wait(0.05)
        os.kill(os.getpid(), number)
        assert stop.wait(10)
    assert {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)} == before
    assert signal.set_wakeup_fd(-1) == -1
    assert "signals" not in {thread.name for thread in threading.enumerate()}


def test_signals_while_it_is_waited_for_never_hold_the_waiter_up():
    said = subprocess.run([sys.executable, "-c", FLOODED], capture_output=True, text=True, timeout=60, check=True)
    assert int(said.stdout) > 0
