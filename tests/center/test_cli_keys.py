"""`hanse-center keys`, as an operator types it, with a real broker."""

import json
import socket
import threading
from datetime import UTC, datetime

import pytest

from center import cli, settings
from center.mqtt import road
from center.mqtt.broker import Broker
from center.mqtt.connection import Connection
from center.registry import Registry
from center.signing.key_files import offline_files
from center.sites import upkeep
from protocol.topics import Topics


def ports(count):
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return found


@pytest.fixture
def folder(tmp_path):
    gateway, superlink, broker = ports(3)
    words = ["--gateway-port", gateway, "--superlink-port", superlink, "--broker-port", broker]
    assert cli.main(["init", "hanse", "--dir", str(tmp_path / "center"), *map(str, words)]) == 0
    return tmp_path / "center"


@pytest.fixture
def keys(folder, capsys):
    """Give a command; what it says, as JSON where it was asked to."""

    def give(*words, code=0):
        capsys.readouterr()
        line = ["keys", *map(str, words)]
        if words[0] != "new-approver":
            line += ["--dir", str(folder)]
        assert cli.main(line) == code
        said = capsys.readouterr()
        assert (said.err.count("\n") == 1) == (code != 0), said.err
        return said.err if code else json.loads(said.out) if "--json" in words else said.out

    return give


def start_broker(folder):
    loaded = settings.load(folder)
    upkeep.refresh(folder, loaded, now=datetime.now(UTC))
    return Broker.start(road.broker_plan(folder, loaded), kind="embedded")


@pytest.fixture
def broker(folder):
    running = start_broker(folder)
    yield running
    running.stop()


def on_broker(folder):
    """The number of the root that lies on the broker."""
    loaded = settings.load(folder)
    found, arrived = [], threading.Event()

    def take(_topic, payload):
        found.append(payload)
        arrived.set()

    connection = Connection(road.broker_access(folder, loaded), client_id="looking")
    connection.listen(Topics(loaded.federation).tuf("root.json"), take)
    connection.start()
    try:
        assert arrived.wait(10)
    finally:
        connection.stop()
    return json.loads(found[-1])["signed"]["version"]


@pytest.mark.usefixtures("broker")
def test_keys_are_rotated_published_and_written_into_the_audit_log(folder, keys):
    before = {row["role"]: row for row in keys("status", "--json")}
    done = keys("rotate", "timestamp", "snapshot", "--json")
    assert done["old"]["timestamp"] == list(before["timestamp"]["keys"])
    assert done["versions"]["root"] == 2
    assert on_broker(folder) == 2
    log = [entry for entry in Registry(folder / "registry.db").audit_log() if entry.kind == "keys changed"]
    assert {entry.facts["role"]: entry.facts["old"] for entry in log} == done["old"]
    said = keys("rotate", "root")
    assert said.count("is trusted no more") == 3
    assert "root 3 is in force" in said
    assert on_broker(folder) == 3


@pytest.mark.usefixtures("broker")
def test_people_who_approve_come_and_go(keys, tmp_path):
    private = tmp_path / "anna.key"
    assert "anna.key.pub" in keys("new-approver", private)
    assert private.stat().st_mode & 0o077 == 0
    assert "exists" in keys("new-approver", private, code=1)
    public = tmp_path / "anna.key.pub"
    assert "wide was signed by 1/2 keys" in keys("approver", "add", public, code=1)
    done = keys("approver", "add", public, "--approve-with", private, "--json")
    (name,) = done["new"]["wide"]
    assert {row["role"]: row["threshold"] for row in keys("status", "--json")}["wide"] == 2
    keys("renew", "--approve-with", private)
    assert keys("approver", "remove", name[:8], "--json")["old"] == {"wide": [name]}
    assert {row["role"]: row["threshold"] for row in keys("status", "--json")}["wide"] == 1


def test_without_a_broker_the_new_keys_are_in_force_and_the_operator_is_told(folder, keys):
    said = keys("rotate", "timestamp", code=1)
    assert "signed and in force here, but not on the broker yet" in said
    assert "hanse-center keys publish" in said
    running = start_broker(folder)
    try:
        keys("publish")
        assert on_broker(folder) == 2
    finally:
        running.stop()


def test_bad_words_are_one_line(folder, keys, tmp_path):
    held = len(offline_files([folder / "offline"]))
    assert "one of root, targets" in keys("rotate", "roster", code=1)
    assert "is no folder" in keys("rotate", "root", "--offline", tmp_path / "usb", code=1)
    assert "holds no public key" in keys("approver", "add", folder / "center.toml", code=1)
    assert "no key 'beef'" in keys("approver", "remove", "beef", code=1)
    assert len(offline_files([folder / "offline"])) == held
