"""The generated configuration under attack, in a real Mosquitto that an operator would have started himself."""

import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from paho.mqtt.enums import CallbackAPIVersion

from center import cli, founding, settings
from center.keys import CenterKeys
from center.mqtt import broker_export, road
from center.mqtt.broker import Broker, mosquitto_path
from center.mqtt.broker_config import BrokerPlan, access_rules, listed, mosquitto_configuration, read_plan
from center.mqtt.reloading import Loaded
from center.registry import Registry
from center.sites import authority, upkeep
from center.sites.certificates import Certificates
from center.sites.issuing import Issuer
from protocol.errors import BadInputError, UnavailableError
from protocol.identity import EdgeId, FederationId
from protocol.topics import CENTER, Topics, may_read, may_write

TOPICS = Topics(FederationId("hanse"))
EDGES = ("bremen", "luebeck")
COMMON = (TOPICS.round, TOPICS.tuf("timestamp.json"), TOPICS.block("ab" * 32))
SECRET = (TOPICS.key("bremen"), TOPICS.status("bremen"), TOPICS.inventory)

needs_mosquitto = pytest.mark.skipif(mosquitto_path() is None, reason="Mosquitto is not installed")


def now_ms():
    return time.time_ns() // 1_000_000


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Town:
    """A center's folder whose broker runs; certificates of edges lie beside it."""

    def __init__(self, folder):
        self.folder = folder / "center"
        addresses = founding.Addresses(
            host="127.0.0.1", gateway_port=free_port(), superlink_port=free_port(), broker_port=free_port()
        )
        founding.found(self.folder, federation=FederationId("hanse"), addresses=addresses, now=datetime.now(UTC))
        self.settings = settings.load(self.folder)
        self.port = self.settings.broker.port
        self.papers = {CENTER: (self.folder / "keys" / "mqtt.crt", self.folder / "keys" / "mqtt.key")}
        self.clients = []
        for edge in EDGES:
            self.enroll(edge)

    def enroll(self, edge):
        keys = CenterKeys.load(self.folder)
        key = authority.new_key()
        with closing(Certificates(self.folder / "registry.db")) as certificates:
            issuer = Issuer(
                certificates=certificates,
                authority=keys.authority,
                authority_key=keys.authority_key,
                now_ms=now_ms,
            )
            pem = issuer.issue(EdgeId(edge), request=authority.request_for(EdgeId(edge), key))
        number = sum(path.name.startswith(edge) for path in self.folder.iterdir())
        paths = (self.folder / f"{edge}-{number}.crt", self.folder / f"{edge}-{number}.key")
        paths[0].write_text(pem)
        paths[1].write_bytes(authority.key_pem(key))
        self.papers[edge] = paths

    def refresh(self):
        return upkeep.refresh(self.folder, self.settings, now=datetime.now(UTC))

    def expel(self, edge):
        return upkeep.expel(self.folder, self.settings, EdgeId(edge), now=datetime.now(UTC))

    def serial(self):
        """Of the certificate that the broker shows."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=5) as plain,
            self.context(CENTER).wrap_socket(plain, server_hostname="127.0.0.1") as line,
        ):
            return int(line.getpeercert()["serialNumber"], 16)

    def context(self, name=None, *, papers=None):
        context = ssl.create_default_context(cafile=self.folder / "trust" / "ca.crt")
        if name or papers:
            context.load_cert_chain(*(papers or self.papers[name]))
        return context

    def client(self, name, **how):
        client = Client(self, name, **how)
        self.clients.append(client)
        return client

    def close(self):
        for client in self.clients:
            client.close()


class Client:
    """A client that keeps no rules of its own. Whatever it asks it waits for, by the broker's acknowledgement."""

    def __init__(self, town, name, *, papers=None, client_id="", protocol=mqtt.MQTTv311, will=None, clean=True):
        self.heard, self.downs, self._changed = {}, 0, threading.Condition()
        self._up, self._acknowledged = threading.Event(), threading.Event()
        client_id = client_id or secrets.token_hex(8)
        more = {} if protocol == mqtt.MQTTv5 else {"clean_session": clean}
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol, reconnect_on_failure=False, **more
        )
        self._client.tls_set_context(town.context(name, papers=papers))
        if will:
            self._client.will_set(will, b"robbed", qos=1, retain=True)
        self._client.on_connect = lambda *details: None if details[3].is_failure else self._up.set()
        self._client.on_disconnect = self._disconnected
        self._client.on_message = self._arrived
        self._client.on_subscribe = lambda *_details: self._acknowledged.set()
        self._client.connect("127.0.0.1", town.port, keepalive=20)
        self._client.loop_start()

    @property
    def up(self):
        return self._up.wait(5) and not self.downs

    def _disconnected(self, *_details):
        with self._changed:
            self.downs += 1
            self._changed.notify_all()

    def _arrived(self, _client, _data, message):
        with self._changed:
            self.heard.setdefault(message.topic, []).append(message.payload)
            self._changed.notify_all()

    def subscribe(self, *filters):
        assert self.up
        for each in filters:
            self._acknowledged.clear()
            self._client.subscribe(each, 1)
            assert self._acknowledged.wait(5)
        return self

    def publish(self, topic, payload=b"robbed", *, retain=True):
        assert self._up.wait(5)
        message = self._client.publish(topic, payload, qos=1, retain=retain)
        try:
            message.wait_for_publish(5)
            return message.is_published()
        except RuntimeError:  # the broker hung up
            return False

    def wait(self, what, seconds=10):
        with self._changed:
            return self._changed.wait_for(what, seconds)

    def hears(self, topic, payload):
        return self.wait(lambda: payload in self.heard.get(topic, []))

    def vanish(self):
        self._client.loop_stop()
        self._client.socket().shutdown(socket.SHUT_RDWR)
        self._client.socket().close()

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def town(tmp_path):
    town = Town(tmp_path)
    yield town
    town.close()


@pytest.fixture
def export(town, tmp_path):
    """The folder that `hanse-center broker-config` writes."""
    folder = tmp_path / "mosquitto"
    assert cli.main(["broker-config", str(folder), "--dir", str(town.folder)]) == 0
    return folder


@pytest.fixture
def mosquitto(town, export, eventually):
    """Mosquitto as its operator starts it, with one message on every kind of topic."""
    configuration = export / "mosquitto.conf"
    if os.geteuid() == 0:
        configuration.write_text(configuration.read_text() + "user root\n")
    with (export / "log").open("wb") as log:
        process = subprocess.Popen([mosquitto_path(), "-c", str(configuration)], stdout=log, stderr=log)
    try:
        eventually(lambda: _listens(town.port))
        owner = town.client(CENTER)
        for topic in (*COMMON, *SECRET, TOPICS.key("luebeck")):
            assert owner.publish(topic, b"there")
        yield process
    finally:
        town.close()
        process.terminate()
        process.wait()


def _listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def retained(town):
    """All that the broker keeps, as the center reads it."""
    reader = town.client(CENTER).subscribe(f"{TOPICS.base}/#")
    mark = f"{time.monotonic_ns()}".encode()
    reader.publish(TOPICS.tuf("mark"), mark)  # it comes after everything that is retained
    assert reader.hears(TOPICS.tuf("mark"), mark)
    return {topic: payloads[0] for topic, payloads in reader.heard.items() if topic != TOPICS.tuf("mark")}


@needs_mosquitto
@pytest.mark.usefixtures("mosquitto")
@pytest.mark.parametrize("protocol", [mqtt.MQTTv311, mqtt.MQTTv5])
def test_no_subscription_leads_to_what_is_anothers(town, protocol) -> None:
    edge = town.client("luebeck", protocol=protocol)
    edge.subscribe(*SECRET, "#", "+/#", f"{TOPICS.base}/#", f"{TOPICS.base}/key/+", f"{TOPICS.base}/+/bremen")
    edge.subscribe("$SYS/#", "$CONTROL/#", f"$share/g/{TOPICS.base}/#", f"$share/g/{TOPICS.key('bremen')}")
    owner = town.client(CENTER)
    for topic in (*SECRET, TOPICS.round):  # what is published now is no more for it than what was
        owner.publish(topic, b"news")
    assert edge.hears(TOPICS.round, b"news")
    assert set(edge.heard) == {*COMMON, TOPICS.key("luebeck")}


@needs_mosquitto
@pytest.mark.usefixtures("mosquitto")
def test_an_edge_writes_nothing_but_its_own_status(town) -> None:
    before = retained(town)
    edge = town.client("luebeck")
    forbidden = [
        *before,
        *COMMON,
        TOPICS.block("cd" * 32),
        TOPICS.tuf("root.json"),
        TOPICS.key("luebeck"),
        TOPICS.key("visby"),
        f"{TOPICS.status('luebeck')}/more",
        f"{TOPICS.base}/status",
        "hanse/1/rhein/round",
        "$SYS/broker/uptime",
        "anything",
    ]
    for topic in forbidden:
        edge.publish(topic)
        edge.publish(topic, b"")  # nor can it clear what is retained
    assert edge.publish(TOPICS.status("luebeck"), b"well")
    assert retained(town) == {**before, TOPICS.status("luebeck"): b"well"}


@needs_mosquitto
@pytest.mark.usefixtures("mosquitto")
@pytest.mark.parametrize("topic", [*COMMON, *SECRET, TOPICS.key("luebeck")])
def test_a_last_will_writes_no_more_than_a_hand(town, topic) -> None:
    before = retained(town)
    edge = town.client("luebeck", will=topic)
    assert edge.up
    edge.vanish()
    heir = town.client("luebeck", will=TOPICS.status("luebeck"))
    watcher = town.client(CENTER).subscribe(TOPICS.status("luebeck"))
    assert heir.up
    heir.vanish()
    assert watcher.hears(TOPICS.status("luebeck"), b"robbed")  # this one may, and came later
    assert retained(town) == {**before, TOPICS.status("luebeck"): b"robbed"}


@needs_mosquitto
@pytest.mark.usefixtures("mosquitto")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_who_shows_no_certificate_of_ours_does_not_get_in(town, tmp_path) -> None:
    foreign_key, key = authority.new_key(), authority.new_key()
    foreign = authority.create(FederationId("hanse"), key=foreign_key, now=datetime.now(UTC))
    forged = authority.client_certificate(
        CENTER,
        request=authority.request_for(CENTER, key),
        authority=foreign,
        authority_key=foreign_key,
        now=datetime.now(UTC),
    )
    (tmp_path / "forged.crt").write_bytes(forged.public_bytes(Encoding.PEM))
    (tmp_path / "forged.key").write_bytes(authority.key_pem(key))
    server = (town.folder / "keys" / "tls.crt", town.folder / "keys" / "tls.key")
    for papers in (None, (tmp_path / "forged.crt", tmp_path / "forged.key"), server):
        assert _answer(town, town.context(papers=papers)) != ACCEPTED
    assert _answer(town, town.context("luebeck")) == ACCEPTED


ACCEPTED = b"\x20\x02\x00\x00"


def _answer(town, context):
    """The first bytes of a broker to whoever says CONNECT; nothing if it hangs up."""
    try:
        with (
            socket.create_connection(("127.0.0.1", town.port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as line,
        ):
            line.sendall(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x0a\x00\x03abc")
            return line.recv(4)
    except OSError:
        return b""


@needs_mosquitto
def test_a_removed_edge_is_out_at_once_and_another_of_its_name_is_not(town, mosquitto) -> None:
    thieves = [town.client("luebeck", client_id=name, clean=False) for name in ("one", "two")]
    other = town.client("bremen").subscribe(TOPICS.round)
    assert all(thief.up for thief in thieves)
    began = time.monotonic()
    assert town.expel("luebeck") == ()
    assert all(thief.wait(lambda thief=thief: thief.downs) for thief in thieves)
    assert time.monotonic() - began < 10
    assert _answer(town, town.context("luebeck")) != ACCEPTED
    stolen = town.papers["luebeck"]
    town.enroll("luebeck")
    town.refresh()
    successor = town.client("luebeck").subscribe(TOPICS.key("luebeck"))
    assert successor.hears(TOPICS.key("luebeck"), b"there")
    assert _answer(town, town.context(papers=stolen)) != ACCEPTED
    town.client(CENTER).publish(TOPICS.round, b"news")
    assert other.hears(TOPICS.round, b"news")
    assert mosquitto.poll() is None


@needs_mosquitto
@pytest.mark.usefixtures("mosquitto")
def test_what_waited_for_a_removed_edge_is_not_given_to_its_successor(town) -> None:
    sleeper = town.client("luebeck", client_id="till", clean=False).subscribe(TOPICS.key("luebeck"))
    assert sleeper.hears(TOPICS.key("luebeck"), b"there")
    sleeper.close()
    town.client(CENTER).publish(TOPICS.key("luebeck"), b"for luebeck")
    thief = town.client("bremen", client_id="till", clean=False)
    thief.subscribe(TOPICS.round)
    assert thief.hears(TOPICS.round, b"there")
    assert TOPICS.key("luebeck") not in thief.heard


@needs_mosquitto
def test_without_its_plugin_mosquitto_strikes_a_removed_edge_dumb_and_deaf(town, tmp_path, eventually) -> None:
    folder = tmp_path / "bare"
    town.refresh()
    plan = replace(road.broker_plan(town.folder, town.settings), folder=folder, plugin="")
    bare = Broker.start(plan, kind="mosquitto")
    try:
        (folder / "acl").write_text(access_rules(plan.federation, EDGES))
        bare.reload()
        edge = town.client("luebeck").subscribe(TOPICS.round)
        owner = town.client(CENTER)
        eventually(lambda: owner.publish(TOPICS.round, b"before") and edge.heard)
        (folder / "acl").write_text(access_rules(plan.federation, ["bremen"]))
        bare.reload()
        witness = town.client("bremen").subscribe(TOPICS.round)
        owner.publish(TOPICS.round, b"after")
        assert witness.hears(TOPICS.round, b"after")
        edge.publish(TOPICS.status("luebeck"))
        edge.subscribe(TOPICS.round)
        assert edge.up
        assert set(edge.heard[TOPICS.round]) == {b"before"}
        assert TOPICS.status("luebeck") not in retained(town)
    finally:
        town.close()
        bare.stop()


@needs_mosquitto
def test_certificates_are_renewed_while_everything_runs(town, mosquitto, eventually) -> None:
    edge = town.client("luebeck").subscribe(TOPICS.round)
    before = town.serial()
    mine = (town.folder / "keys" / "mqtt.crt").read_bytes()
    assert cli.main(["renew", "--dir", str(town.folder)]) == 0
    eventually(lambda: town.serial() != before)
    assert (town.folder / "keys" / "mqtt.crt").read_bytes() != mine
    town.client(CENTER).publish(TOPICS.round, b"still")  # with the center's new one
    assert edge.hears(TOPICS.round, b"still")
    assert not edge.downs
    assert mosquitto.poll() is None


@needs_mosquitto
@pytest.mark.usefixtures("mosquitto")
def test_a_packet_that_is_too_large_is_not_taken(town, export) -> None:
    largest = read_plan(export / "plan.json").max_packet_bytes
    edge = town.client("luebeck")
    assert edge.publish(TOPICS.status("luebeck"), bytes(largest - 100))
    edge.publish(TOPICS.status("luebeck"), bytes(largest + 1))
    assert edge.wait(lambda: edge.downs)
    assert len(retained(town)[TOPICS.status("luebeck")]) == largest - 100


@needs_mosquitto
@pytest.mark.parametrize("limit", [{"queue_messages": 5}, {"queue_bytes": 5000}])
def test_what_waits_for_one_slow_client_is_bounded(town, tmp_path, limit) -> None:
    town.refresh()
    plan = replace(road.broker_plan(town.folder, town.settings), folder=tmp_path / "small", **limit)
    plan.folder.mkdir()
    (plan.folder / "acl").write_text(access_rules(plan.federation, EDGES))
    small = Broker.start(plan, kind="mosquitto")
    try:
        sleeper = town.client("luebeck", client_id="till", clean=False).subscribe(TOPICS.round)
        sleeper.close()
        owner = town.client(CENTER)
        for number in range(200):
            owner.publish(TOPICS.round, f"{number:1000}".encode(), retain=False)
        awake = town.client("luebeck", client_id="till", clean=False)
        assert awake.up
        owner.publish(TOPICS.key("luebeck"), b"mark")
        awake.subscribe(TOPICS.key("luebeck"))
        assert awake.hears(TOPICS.key("luebeck"), b"mark")
        assert 1 <= len(awake.heard[TOPICS.round]) <= 30
    finally:
        town.close()
        small.stop()


@needs_mosquitto
def test_a_broker_that_could_not_be_told_is_told_the_next_time(town, mosquitto, monkeypatch) -> None:
    edge = town.client("luebeck")
    assert edge.up
    with monkeypatch.context() as patch:

        def away(*_details):
            raise UnavailableError("the broker is away")

        patch.setattr(upkeep, "put_out", away)
        assert [str(trouble) for trouble in town.expel("luebeck")] == ["the broker is away"]
    assert edge.up
    assert town.refresh() == ()
    assert edge.wait(lambda: edge.downs)
    assert mosquitto.poll() is None


@needs_mosquitto
@pytest.mark.usefixtures("mosquitto")
def test_nothing_new_is_no_reason_for_a_signal(town, export, monkeypatch) -> None:
    signalled = []
    monkeypatch.setattr(upkeep, "signal_broker", signalled.append)
    town.refresh()
    assert signalled == []
    town.enroll("visby")
    town.refresh()
    assert set(signalled) == {(town.folder / "broker").resolve(), export}


def test_a_number_that_is_another_programs_by_now_is_left_alone(town) -> None:
    folder = town.folder / "broker"
    town.refresh()
    script = "import signal, sys, time\nsignal.signal(signal.SIGHUP, sys.exit)\nprint(1, flush=True)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as other:
        try:
            other.stdout.readline()
            (folder / "broker.pid").write_text(f"{other.pid}\n")
            town.enroll("visby")
            assert town.refresh() == ()
            assert "visby" in listed((folder / "acl").read_text())
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(0.3)
        finally:
            other.kill()


def test_a_broker_that_has_no_handler_yet_is_not_killed(town) -> None:
    folder = (town.folder / "broker").resolve()
    town.refresh()
    script = "import sys, time; print(1, flush=True); time.sleep(60)"
    arguments = [sys.executable, "-c", script, str(folder / "mosquitto.conf")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as starting:
        try:
            starting.stdout.readline()
            (folder / "broker.pid").write_text(f"{starting.pid}\n")
            known = Loaded.read(folder)
            town.enroll("visby")
            assert ["just starting" in str(trouble) for trouble in town.refresh()] == [True]
            assert starting.poll() is None
            assert Loaded.read(folder) == known
        finally:
            starting.send_signal(signal.SIGKILL)


def test_the_center_run_broker_and_the_exported_one_are_told_the_same(town, broker_kind, eventually) -> None:
    town.refresh()
    running = Broker.start(road.broker_plan(town.folder, town.settings), kind=broker_kind)
    try:
        edge, other = town.client("luebeck"), town.client("bremen")
        assert edge.up
        assert other.up
        before = town.serial()
        assert town.expel("luebeck") == ()
        assert edge.wait(lambda: edge.downs)
        assert _answer(town, town.context("luebeck")) != ACCEPTED
        assert cli.main(["renew", "--dir", str(town.folder)]) == 0
        eventually(lambda: town.serial() != before)
        assert other.up
        assert running.is_running
        town.enroll("visby")
        assert town.refresh() == ()
        assert town.client("visby").publish(TOPICS.status("visby"), b"well")
        eventually(lambda: TOPICS.status("visby") in retained(town))
    finally:
        town.close()
        running.stop()


def test_an_invited_site_is_listed_before_it_has_joined(town) -> None:
    assert cli.main(["enroll", "visby", "--dir", str(town.folder)]) == 0
    assert "visby" in listed((town.folder / "broker" / "acl").read_text())


def test_the_list_of_revoked_certificates_is_renewed_long_before_it_ends(town) -> None:
    path = town.folder / "trust" / "ca.crl"
    town.expel("luebeck")
    first = x509.load_pem_x509_crl(path.read_bytes())
    town.refresh()
    assert x509.load_pem_x509_crl(path.read_bytes()) == first
    months = datetime.now(UTC) + timedelta(days=150)
    upkeep.refresh(town.folder, town.settings, now=months)
    fresh = x509.load_pem_x509_crl(path.read_bytes())
    assert fresh.next_update_utc - months > timedelta(days=390)
    assert [entry.serial_number for entry in fresh] == [entry.serial_number for entry in first]


def test_rules_in_the_file_are_the_rules_of_the_protocol() -> None:
    lines = access_rules(FederationId("hanse"), [EdgeId("visby"), EdgeId("riga"), CENTER]).splitlines()
    assert listed("\n".join(lines)) == {CENTER, "visby", "riga"}
    visby = lines[lines.index("user visby") + 1 :]
    for line in visby:
        _, access, name = line.split()
        topic = name.replace("tuf/#", "tuf/root.json").replace("block/#", "block/" + "ab" * 32)
        assert may_read("visby", topic, federation=FederationId("hanse"))
        assert may_write("visby", topic, federation=FederationId("hanse")) == (access == "readwrite")
    assert not any(line.startswith("pattern") for line in lines)


def test_the_text_for_another_machine_names_its_places(tmp_path) -> None:
    town = Town(tmp_path)
    folder = tmp_path / "copy"
    words = [
        "broker-config",
        str(folder),
        "--dir",
        str(town.folder),
        "--at",
        "/etc/mosquitto/hanse",
        "--plugin",
        "/p.so",
    ]
    assert cli.main(words) == 0
    text = (folder / "mosquitto.conf").read_text()
    assert str(tmp_path) not in text
    for line in ("crlfile /etc/mosquitto/hanse/ca.crl", "plugin /p.so", "allow_anonymous false", "persistence true"):
        assert line in text.splitlines()
    assert {path.name for path in folder.iterdir()} >= {"ca.crt", "ca.crl", "broker.crt", "broker.key", "acl"}
    assert (folder / "broker.key").read_bytes() != (town.folder / "keys" / "tls.key").read_bytes()
    assert json.loads((folder / "dynamic-security.json").read_text())["clients"] == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path) -> None:
    town = Town(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="cannot be written"):
        broker_export.export(
            town.folder, town.settings, tmp_path / "file", placed=None, plugin=None, now=datetime.now(UTC)
        )


def test_the_configuration_lets_nobody_in_without_a_certificate(tmp_path) -> None:
    files = {name: tmp_path / name for name in ("folder", "authority", "certificate", "key", "revoked")}
    plan = BrokerPlan(federation=FederationId("hanse"), host="127.0.0.1", port=1, **files)
    lines = mosquitto_configuration(plan).splitlines()
    assert {"require_certificate true", "allow_anonymous false", f"crlfile {tmp_path / 'revoked'}"} <= set(lines)
    assert sum(line.startswith("listener ") for line in lines) == 1
    assert not any(line.startswith("plugin") for line in lines)


def test_a_registry_without_certificates_lists_only_the_invited(town) -> None:
    with closing(Registry(town.folder / "registry.db")) as registry:
        assert registry.invited() == ()
