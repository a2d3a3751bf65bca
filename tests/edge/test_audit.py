"""The log says what happened here, and says so when somebody has changed it."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from edge import audit
from edge.audit import AuditLog
from edge.diary import Diary
from edge.tracing import trace
from protocol import rec_id
from protocol.audit import GENESIS
from protocol.errors import BadInputError, MalformedMessageError, UntrustedError

ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture
def log(tmp_path):
    with closing(AuditLog(tmp_path)) as opened:
        yield opened


@pytest.fixture
def history(log):
    """Release 7 is installed, tried and committed; 8 goes back; 9 names the files of 7."""
    training = {"campaign": "c1", "rounds": 4, "weights_sha256": "ab"}
    steps = [
        ("installed", {"release": 7, "sha256": ONE, "training": training, "center_audit": TWO}),
        ("on trial", {"release": 7, "sha256": ONE}),
        ("committed", {"release": 7, "sha256": ONE}),
        ("installed", {"release": 8, "sha256": TWO, "training": {}}),
        ("went back", {"release": 8, "sha256": TWO, "why": "too slow"}),
        ("adopted", {"release": 9, "sha256": ONE, "training": training}),
    ]
    for time_ms, (kind, facts) in enumerate(steps):
        log.note(kind, time_ms=time_ms, **facts)
    return log


def test_entries_follow_one_another_across_restarts(history, tmp_path):
    history.close()
    with closing(AuditLog(tmp_path)) as again:
        last = again.note("roster accepted", time_ms=9, version=2)
        assert last.seq == 7
        assert again.check() == last.digest
        assert again.check(head=again.entries()[2].digest) == last.digest


def test_an_empty_log_is_whole(log):
    assert log.check() == GENESIS


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET entry = CAST(replace(CAST(entry AS TEXT), 'too slow', 'no idea') AS BLOB) WHERE seq = 5",
        "DELETE FROM entries WHERE seq = 5",
        "DELETE FROM entries WHERE seq = 1",
        "UPDATE entries SET entry = (SELECT entry FROM entries WHERE seq = 4) WHERE seq = 5",
        "UPDATE entries SET entry = x'78' WHERE seq = 5",
    ],
)
def test_a_change_is_found(history, tmp_path, change):
    with closing(sqlite3.connect(tmp_path / audit.FILE_NAME)) as database, database:
        database.execute(change)
    with pytest.raises((UntrustedError, MalformedMessageError)):
        history.check()


def test_a_log_that_was_cut_and_written_anew_misses_what_was_noted_elsewhere(history, tmp_path):
    head = history.check()
    with closing(sqlite3.connect(tmp_path / audit.FILE_NAME)) as database, database:
        database.execute("DELETE FROM entries WHERE seq > 4")
    history.note("committed", time_ms=9, release=8, sha256=TWO)
    with pytest.raises(UntrustedError, match="noted elsewhere"):
        history.check(head=head)


def test_many_threads_write_one_chain(log):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: log.note("round answered", time_ms=number, round=number), range(60)))
    log.check()
    assert sorted(entry.facts["round"] for entry in log.entries()) == list(range(60))


WRITING = """
import sys
from pathlib import Path
from edge.audit import AuditLog
from edge.diary import Diary
log = AuditLog(Path(sys.argv[1]))
for number in range(10**6):
    print(log.note("round answered", time_ms=0, round=number).seq, flush=True)
"""


def test_kill_9_of_one_of_two_writers_loses_no_entry_and_breaks_nothing(log, tmp_path):
    child = subprocess.Popen([sys.executable, "-c", WRITING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        confirmed = [int(child.stdout.readline()) for _ in range(20)]
        own = [log.note("committed", time_ms=1, release=number, sha256=ONE).seq for number in range(100)]
        confirmed += [*own, *(int(child.stdout.readline()) for _ in range(20))]
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    log.check()
    assert set(confirmed) <= {entry.seq for entry in log.entries()}


def test_an_answer_is_traced_to_its_release(history):
    name = rec_id.make(version=8, sha256=TWO, drawn=bytes(8))
    found = trace(name, history.entries())
    assert (found.version, found.sha256) == (8, TWO)
    assert [step.kind for step in found.steps] == ["installed", "went back"]
    assert "went back: too slow" in found.to_text()
    again = trace(rec_id.make(version=9, sha256=ONE, drawn=bytes(8)), history.entries())
    assert again.training["campaign"] == "c1"
    assert [step.kind for step in again.steps] == ["adopted"]


def test_an_answer_of_another_site_or_before_the_first_release_is_said_to_be(history):
    with pytest.raises(BadInputError, match="never had release 8"):
        trace(rec_id.make(version=8, sha256=ONE, drawn=bytes(8)), history.entries())
    with pytest.raises(BadInputError, match="not a rec_id"):
        trace("hello", history.entries())
    assert "before the first release" in trace(rec_id.make(version=0, sha256="", drawn=bytes(8)), []).to_text()


def test_a_folder_without_a_log_is_said(tmp_path):
    with pytest.raises(BadInputError, match="no audit log yet"):
        audit.read(tmp_path)


def test_a_damaged_log_stops_no_shop_and_is_left_as_it_is(tmp_path):
    (tmp_path / audit.FILE_NAME).write_bytes(b"no database at all" * 100)
    with closing(Diary(tmp_path)) as diary:
        diary.note("committed", release=1, sha256=ONE)
        assert diary.head() == ""
    assert (tmp_path / audit.FILE_NAME).read_bytes().startswith(b"no database")
    with pytest.raises(BadInputError, match="damaged"):
        audit.read(tmp_path)


def test_the_diary_writes_the_log(tmp_path):
    with closing(Diary(tmp_path)) as diary:
        assert diary.head() == GENESIS
        diary.note("committed", release=1, sha256=ONE)
        assert diary.head() == audit.read(tmp_path)[-1].digest
