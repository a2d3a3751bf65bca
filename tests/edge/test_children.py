"""Children end with their parent, however it ends, and come back when they crash."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from edge.children import Child


class Puppet(Child):
    """A child that runs a few lines of Python instead of one of our commands."""

    def __init__(self, text, *words, niceness=5):
        super().__init__([], directory=Path(), niceness=niceness)
        self._command = [sys.executable, "-c", textwrap.dedent(text), *words]


TRUE_CHILD = """
    import os, sys, time
    from edge.children import end_with_parent
    end_with_parent()
    print(os.getpid(), os.nice(0), file=open(sys.argv[1], "w"), flush=True)
    time.sleep(60)
"""
PARENT = """
    import sys, time
    sys.path.insert(0, sys.argv[2])
    from test_children import Puppet, TRUE_CHILD
    child = Puppet(TRUE_CHILD, sys.argv[1])
    child.start()
    time.sleep(60)
"""


def _alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _pid(note, eventually):
    return int(eventually(lambda: note.exists() and note.read_text().strip()).split()[0])


@pytest.fixture
def stubborn():
    """Started by a test, stopped with it."""
    children = []
    yield children
    for child in children:
        child.stop()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_when_its_parent_is_killed(tmp_path, eventually, how) -> None:
    note = tmp_path / "pid"
    words = [sys.executable, "-c", textwrap.dedent(PARENT), str(note), str(Path(__file__).parent)]
    with subprocess.Popen(words, start_new_session=True) as parent:
        pid = _pid(note, eventually)
        assert _alive(pid)
        os.kill(parent.pid, how)
        parent.wait()
    eventually(lambda: not _alive(pid))


def test_a_child_runs_at_lower_priority(tmp_path, eventually, stubborn) -> None:
    note = tmp_path / "pid"
    child = Puppet(TRUE_CHILD, str(note))
    stubborn.append(child)
    child.start()
    _pid(note, eventually)
    assert int(note.read_text().split()[1]) == os.nice(0) + 5


def test_a_child_s_whole_session_stands_back(tmp_path, eventually, stubborn) -> None:
    """Niceness alone is nothing to the kernel where each session has a share of its own."""
    group = Path("/proc/self/autogroup")
    if not group.exists():  # such a kernel knows niceness only, which the test before this one sees to
        return
    ours = group.read_text()
    note = tmp_path / "pid"
    child = Puppet(TRUE_CHILD, str(note))
    stubborn.append(child)
    child.start()
    pid = _pid(note, eventually)
    asked = ["nice", str(os.nice(0) + 5)]
    eventually(lambda: Path(f"/proc/{pid}/autogroup").read_text().split()[-2:] == asked)
    assert group.read_text() == ours


def test_a_child_in_somebody_else_s_session_lets_that_session_be(tmp_path, eventually) -> None:
    """`hanse-edge learn` typed with nice in a shell: the shell keeps its share."""
    group = Path("/proc/self/autogroup")
    if not group.exists():
        return
    ours = group.read_text()
    note = tmp_path / "pid"
    words = ["nice", "-n", "7", sys.executable, "-c", textwrap.dedent(TRUE_CHILD), str(note)]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as child:
        _pid(note, eventually)
        time.sleep(0.3)  # long enough for what must not happen
        child.stdin.close()
    assert group.read_text() == ours


def test_a_child_of_the_lowest_priority_runs_only_when_nothing_else_wants_to(tmp_path, eventually, stubborn) -> None:
    note = tmp_path / "pid"
    child = Puppet(TRUE_CHILD, str(note), niceness=19)
    stubborn.append(child)
    child.start()
    assert os.sched_getscheduler(_pid(note, eventually)) == os.SCHED_IDLE
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_a_child_that_crashed_is_started_again_and_leaks_no_pipe(eventually, stubborn) -> None:
    child = Puppet("import sys; sys.exit(3)")
    stubborn.append(child)
    child.start()
    eventually(lambda: not child.running())
    assert child.returncode() == 3
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        child.start()
        eventually(lambda: not child.running())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_starting_what_runs_changes_nothing(stubborn) -> None:
    child = Puppet("import time; time.sleep(60)")
    stubborn.append(child)
    child.start()
    pid = child._process.pid
    child.start()
    assert child._process.pid == pid


def test_a_child_that_ignores_sigterm_is_killed(tmp_path, eventually, monkeypatch) -> None:
    monkeypatch.setattr("edge.children._GRACE_SECONDS", 0.2)
    text = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(sys.argv[1], "w").close()
        time.sleep(60)
    """
    child = Puppet(text, str(tmp_path / "ready"))
    child.start()
    eventually((tmp_path / "ready").exists)
    pid, begun = child._process.pid, time.monotonic()
    child.stop()
    assert not _alive(pid)
    assert time.monotonic() - begun < 5
    assert not child.running()
    child.stop()  # twice is as good as once
