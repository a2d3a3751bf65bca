"""`hanse-edge erase`: who is to be forgotten is read from standard input and stands nowhere afterwards."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from edge import asking, audit, cli, settings
from edge.records.store import Store
from protocol.errors import UnavailableError

NAME = "person-0815-of-hamburg"


@pytest.fixture
def folder(tmp_path, capsys):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "shop"
    assert cli.main(["new", "my-shop", "--dir", str(folder), "--port", str(port), "--json"]) == 0
    (tmp_path / "events.csv").write_text(
        "event_id,user,session,item,time\n"
        + "".join(f"e{n},{NAME},,i{n % 3},{1_700_000_000 + n}\n" for n in range(20))
        + "e20,,visit-12345,i1,1700000000\ne21,ada,,i1,1700000000\n"
    )
    assert cli.main(["import", "events", str(tmp_path / "events.csv"), "--dir", str(folder)]) == 0
    capsys.readouterr()
    return folder


@pytest.fixture
def erase(folder, monkeypatch, capsys):
    def run(line, *options):
        monkeypatch.setattr(sys, "stdin", io.StringIO(line))
        code = cli.main(["erase", "--dir", str(folder), "--json", *options])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else said.err

    return run


def files_with(folder, name):
    """Files in which it stands by itself, not as the beginning of another."""
    return [
        path.name
        for path in folder.rglob("*")
        if path.is_file() and re.search(re.escape(name.encode()) + rb"(?![0-9])", path.read_bytes())
    ]


def test_a_user_is_erased_in_the_folder_of_an_edge_that_rests(folder, erase):
    assert erase(NAME + "\n") == (0, {"known": True, "events": 20, "clean": True})
    assert erase("visit-12345\n", "--session") == (0, {"known": True, "events": 1, "clean": True})
    assert erase(NAME) == (0, {"known": False, "events": 0, "clean": True})
    with Store.open(folder / "store.db") as store:
        assert (store.event_count(), store.history("ada", limit=9)) == (1, ["i1"])
    entries = [entry for entry in audit.read(folder) if entry.kind == "somebody erased"]
    assert [dict(entry.facts)["events"] for entry in entries] == [20, 1]
    assert files_with(folder, NAME) == files_with(folder, "visit-12345") == []


@pytest.mark.parametrize("line", ["", "\n", "a\x00b\n", "x" * 300])
def test_a_name_that_is_none_is_refused_in_a_line(erase, line):
    code, said = erase(line)
    assert code == 1
    assert re.fullmatch(r"edge: user [^\n]+\n", said)


def test_an_edge_that_runs_erases_itself(folder, erase):
    server = subprocess.Popen(
        [sys.executable, "-m", "edge.cli", "serve", "--dir", str(folder)],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HANSE_EDGE_STORE__RETENTION_DAYS": "36500"},
    )
    loaded = settings.load(folder)
    try:
        wait_until_ready(loaded)
        before = asking.recommend(NAME, limit=3, directory=folder, settings=loaded)
        assert "unknown_user" not in before["reasons"]
        assert erase(NAME)[1] == {"known": True, "events": 20, "clean": True}
        after = asking.recommend(NAME, limit=3, directory=folder, settings=loaded)
        assert "unknown_user" in after["reasons"]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)
    assert files_with(folder, NAME) == []


def wait_until_ready(loaded):
    for _ in range(600):
        try:
            asking.health(loaded)
        except UnavailableError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the edge did not start")
