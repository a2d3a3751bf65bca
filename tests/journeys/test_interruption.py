"""Whoever stops the demo, however, finds nothing of it running afterwards."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from simulation.processes import program, wait_until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(400)]


def processes_of(directory: Path) -> set[int]:
    """Everything that runs with this folder on its command line."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text("ascii").rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if str(directory).encode() in line and state != "Z":
            found.add(int(entry.name))
    return found


@contextmanager
def running_demo(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A demo with broker, center and SuperLink up, its first site joining."""
    demo = subprocess.Popen(
        [program("hanse-sim"), "demo", "--sites", "3", "--rounds", "1", "--fraction", "0.01", "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with demo:
        try:
            wait_until((directory / "sites").exists, what="the demo", seconds=150)
            assert len(processes_of(directory)) > 3
            yield demo
        finally:
            demo.kill()


def test_ctrl_c_and_kill_9_end_every_child_and_the_next_run_starts_clean(tmp_path) -> None:
    directory = tmp_path / "demo"
    with running_demo(directory) as demo:
        os.killpg(demo.pid, signal.SIGINT)
        _, said = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert b"interrupted" in said
    assert b"Traceback" not in said
    wait_until(lambda: not processes_of(directory), what="the end of the children", seconds=10)
    (directory / "sites").rename(tmp_path / "old")
    with running_demo(directory) as demo:  # in the folder that the first one left
        demo.kill()
        demo.communicate(timeout=10)
    wait_until(lambda: not processes_of(directory), what="the end of the children, killed", seconds=60)
