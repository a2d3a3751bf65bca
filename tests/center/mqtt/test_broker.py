import gc
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import warnings
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from center.mqtt import reloading
from center.mqtt.broker import Broker
from center.mqtt.broker_config import CONTROL_TOPIC
from center.mqtt.connection import BrokerAccess, Connection
from center.mqtt.embedded_broker import identity_of
from protocol.errors import BadInputError, NotAdmittedError, UnavailableError, UntrustedError
from protocol.topics import CENTER

# paho leaves the socket of a failed TLS handshake to the garbage collector.
LEAKY = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Client:
    """A client that keeps no rules of its own."""

    def __init__(self, papers, *, client_id="", will=None, clean=True, certificate=True):
        self.heard, self.up, self.refusal, self.downs = {}, False, None, 0
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv311, clean_session=clean
        )
        context = ssl.create_default_context(cafile=papers["authority"])
        if certificate:
            context.load_cert_chain(papers["certificate"], papers["key"])
        self._client.tls_set_context(context)
        if will:
            self._client.will_set(will, b"robbed", qos=1, retain=True)
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_message = lambda _c, _d, message: self.heard.update({message.topic: message.payload})
        try:
            self._client.connect(papers["host"], papers["port"], keepalive=5)
            self._client.loop_start()
        except OSError as error:
            self.refusal = error

    def _connected(self, _client, _data, _flags, reason, _properties):
        self.up = not reason.is_failure
        self.refusal = reason if reason.is_failure else None

    def _disconnected(self, *_details):
        self.up = False
        self.downs += 1

    def subscribe(self, topic):
        """What it has heard when the broker has acknowledged the next packet, and a moment later."""
        self._client.subscribe(topic, 1)
        self.publish("a/mark", retain=False)
        time.sleep(0.1)  # the embedded broker acknowledges before it does anything
        return dict(self.heard)

    def publish(self, topic, payload=b"robbed", *, retain=True):
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(1.0)

    def vanish(self):
        """Break the connection without a goodbye."""
        self._client.loop_stop()
        self._client.socket().shutdown(socket.SHUT_RDWR)
        self._client.socket().close()

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def client(road):
    opened = []

    def connect(name, **how):
        opened.append(Client(road.papers(name), **how))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()
    opened.clear()
    with warnings.catch_warnings():  # paho leaves the socket of a failed TLS handshake to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def owner(road):
    """The broker with one message on every kind of topic."""
    owner = road.as_owner_of_the_broker()
    topics = road.topics
    common = [topics.round, topics.tuf("timestamp.json"), topics.block("ab" * 32), topics.inventory]
    own = [make(edge) for edge in ("luebeck", "bremen") for make in (topics.key, topics.status)]
    owner.deliver([(topic, b"there") for topic in (*common, *own)], window=4, seconds=5)
    return owner


@pytest.mark.usefixtures("owner")
def test_an_edge_reads_what_it_must(road, client, eventually):
    edge = client("luebeck")
    eventually(lambda: edge.up)
    wanted = [road.topics.round, road.topics.tuf("timestamp.json"), road.topics.block("ab" * 32)]
    for topic in (*wanted, road.topics.key("luebeck")):
        edge.subscribe(topic)
        eventually(lambda topic=topic: topic in edge.heard)


@pytest.mark.usefixtures("owner")
def test_an_edge_reads_nobody_elses_key_or_status(road, client, eventually):
    edge = client("luebeck")
    eventually(lambda: edge.up)
    private = [road.topics.key("bremen"), road.topics.status("bremen"), road.topics.inventory]
    for topic in (*private, "#", f"{road.topics.base}/#", f"{road.topics.base}/key/+", "+/+/+/status/+"):
        heard = edge.subscribe(topic)
        assert not set(private) & set(heard)


def test_an_edge_cannot_write_anothers_status_or_any_block(road, owner, client, eventually):
    edge = client("luebeck")
    eventually(lambda: edge.up)
    for topic in road.retained(owner):
        if topic != road.topics.status("luebeck"):
            edge.publish(topic)
    edge.publish(road.topics.block("cd" * 32))
    edge.publish("hanse/1/rhein/round")
    after = road.retained(owner)
    assert all(payload == b"there" for payload in after.values())
    assert road.topics.block("cd" * 32) not in after


def test_an_edge_writes_its_own_status(road, owner, client, eventually):
    edge = client("luebeck")
    eventually(lambda: edge.up)
    edge.publish(road.topics.status("luebeck"), b"well")
    assert road.retained(owner)[road.topics.status("luebeck")] == b"well"


def test_a_last_will_is_no_way_around_the_rules(road, owner, client):
    edge = client("luebeck", will=road.topics.block("ab" * 32))
    time.sleep(0.5)
    if edge.up:
        edge.vanish()
    time.sleep(1.0)
    assert road.retained(owner)[road.topics.block("ab" * 32)] == b"there"


def test_another_edges_client_id_opens_no_door(road, owner, client, eventually):
    victim = client("bremen", client_id="till", clean=False)
    eventually(lambda: victim.up)
    thief = client("luebeck", client_id="till", clean=False)
    time.sleep(0.5)
    heard = thief.subscribe(road.topics.key("bremen"))
    thief.publish(road.topics.status("bremen"))
    assert road.topics.key("bremen") not in heard
    assert road.retained(owner)[road.topics.status("bremen")] == b"there"


@pytest.mark.usefixtures("owner")
def test_a_newcomer_is_not_sent_what_others_subscribed_to(road, client, eventually):
    reader = client("bremen")
    eventually(lambda: reader.up)
    assert reader.subscribe(road.topics.key("bremen"))
    newcomer = client("luebeck")
    eventually(lambda: newcomer.up)
    time.sleep(0.4)
    assert newcomer.heard == {}


@LEAKY
def test_who_shows_no_certificate_stays_outside(client):
    stranger = client("luebeck", certificate=False)
    time.sleep(1.0)
    assert not stranger.up


@LEAKY
def test_a_certificate_of_another_federation_is_refused_and_said_so(road, other_road):
    foreign = {**other_road.papers(CENTER), "port": road.port, "authority": road.folder / "ca.crt"}
    connection = Connection(BrokerAccess(**foreign), client_id="x")
    connection.start()
    try:
        # asyncio cuts the line without the TLS alert that Mosquitto sends
        with pytest.raises((NotAdmittedError, UnavailableError), match="certificate"):
            connection.wait_until_up(seconds=2)
    finally:
        connection.stop()


@LEAKY
def test_another_federations_broker_is_not_ours(road, other_road):
    connection = Connection(BrokerAccess(**{**road.papers(CENTER), "port": other_road.port}), client_id="x")
    connection.start()
    try:
        with pytest.raises(UntrustedError, match="is not this federation's"):
            connection.wait_until_up(seconds=10)
    finally:
        connection.stop()


def test_a_port_in_use_is_said(road):
    with pytest.raises(UnavailableError, match=f"cannot listen on 127.0.0.1:{road.port}"):
        Broker.start(road.plan(), kind=road.kind)


def test_a_broker_that_cannot_read_its_key_says_why(quiet_road, broker_kind):
    (quiet_road.folder / "broker.key").write_text("no key")
    with pytest.raises(UnavailableError, match="ended at once"):
        Broker.start(quiet_road.plan(), kind=broker_kind)


def test_a_broker_dies_with_who_started_it(quiet_road, broker_kind, eventually):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom center.mqtt.broker import Broker\n"
        "from center.mqtt.broker_config import BrokerPlan\n"
        "f = Path(sys.argv[1])\nplan = BrokerPlan(federation='hanse', folder=f / 'broker', host='127.0.0.1',"
        " port=int(sys.argv[2]), authority=f / 'ca.crt', certificate=f / 'broker.crt', key=f / 'broker.key',"
        " revoked=f / 'ca.crl')\n"
        "print(Broker.start(plan, kind=sys.argv[3]).pid, flush=True)\ntime.sleep(60)\n"
    )
    arguments = [str(quiet_road.folder), str(quiet_road.port), broker_kind]
    with subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert _alive(pid)
        parent.kill()
    eventually(lambda: not _alive(pid), seconds=5)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_stopping_is_quick(road):
    began = time.monotonic()
    road.broker.stop()
    assert not road.broker.is_running
    assert time.monotonic() - began < 3


def test_mosquitto_missing_is_said(quiet_road, monkeypatch):
    monkeypatch.setattr("center.mqtt.broker.mosquitto_path", lambda: None)
    with pytest.raises(BadInputError, match="Mosquitto is not installed"):
        Broker.start(quiet_road.plan(), kind="mosquitto")


def test_a_certificate_without_a_name_is_nobody():
    assert identity_of(None) is None
    assert identity_of({"subject": ()}) is None
    assert identity_of({"subject": ((("organizationName", "x"),), (("commonName", "luebeck"),))}) == "luebeck"


def test_the_broker_can_be_ended_by_signal(road, eventually):
    os.kill(road.broker.pid, signal.SIGTERM)
    eventually(lambda: not road.broker.is_running, seconds=5)


@pytest.mark.usefixtures("owner")
def test_who_is_not_listed_hears_nothing_and_says_nothing(road, owner, client, eventually):
    edge = client("luebeck")
    eventually(lambda: edge.up)
    road.admit_to_broker("danzig")
    stranger = client("danzig")
    eventually(lambda: stranger.up)
    road.admitted.remove("danzig")
    road.admit_to_broker()
    eventually(lambda: not stranger.up or road.kind == "mosquitto")
    assert road.retained(owner)  # Mosquitto has been round its loop since
    if stranger.up:
        stranger.publish(road.topics.status("danzig"))
        assert stranger.subscribe(road.topics.round) == {}
    assert road.topics.status("danzig") not in road.retained(owner)
    assert edge.subscribe(road.topics.round)  # while the others are served


def test_a_removed_edge_is_out_while_it_is_connected_and_stays_out(road, owner, client, eventually):
    edge, other = client("luebeck", will=road.topics.status("luebeck")), client("bremen")
    eventually(lambda: edge.up and other.up)
    edge.subscribe(road.topics.round)
    began = time.monotonic()
    road.revoke([road.serial("luebeck")])
    road.admitted.remove("luebeck")
    road.admit_to_broker()
    if road.kind == "mosquitto":
        reloading.put_out(BrokerAccess(**road.papers(CENTER)), ["luebeck"])
    eventually(lambda: not edge.up)
    assert time.monotonic() - began < 10
    assert other.up
    assert owner.is_up
    assert road.retained(owner)[road.topics.status("luebeck")] == b"there"  # nor does its last will come true
    road.admitted.add("luebeck")  # the name is free again: for others
    road.admit_to_broker()
    again = client("luebeck")
    assert other.subscribe(road.topics.round)
    assert not again.up


def test_a_tls_session_from_before_opens_no_door_after(road, eventually):
    context = ssl.create_default_context(cafile=road.papers("luebeck")["authority"])
    context.load_cert_chain(road.papers("luebeck")["certificate"], road.papers("luebeck")["key"])
    session = _hello(road, context)[1]
    assert session is not None
    road.revoke([road.serial("luebeck")])
    road.broker.reload()

    def refused():
        try:
            return _hello(road, context, session=session)[0] != ACCEPTED
        except OSError:
            return True

    eventually(refused)
    assert all(refused() for _ in range(3))


ACCEPTED = b"\x20\x02\x00\x00"


def _hello(road, context, *, session=None):
    """The broker's answer to a CONNECT, and the TLS session."""
    with (
        socket.create_connection(("127.0.0.1", road.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as line,
    ):
        line.sendall(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x0a\x00\x03abc")
        return line.recv(4), line.session


def test_a_new_certificate_is_shown_without_a_restart(road, client, eventually):
    edge = client("luebeck")
    eventually(lambda: edge.up)
    before, pid = road.shown_serial(), road.broker.pid
    road._broker_papers()
    road.broker.reload()
    eventually(lambda: road.shown_serial() != before)
    assert road.shown_serial() == road.serial("broker")
    assert road.broker.pid == pid
    assert road.broker.is_running
    assert edge.subscribe(road.topics.round) == {}
    assert edge.up


@pytest.mark.parametrize("file", ["ca.crl", "broker.crt"])
def test_after_half_a_file_a_whole_one_mends_it(road, owner, client, eventually, file):
    edge = client("luebeck")
    eventually(lambda: edge.up)
    good = (road.folder / file).read_bytes()
    (road.folder / file).write_bytes(good[:40])
    road.broker.reload()
    edge.publish(road.topics.key("luebeck"))
    (road.folder / file).write_bytes(good)
    road.broker.reload()
    eventually(lambda: road.retained(owner))
    later = client("bremen")
    eventually(lambda: later.up)
    edge.publish(road.topics.status("luebeck"), b"still")
    after = road.retained(owner)
    assert after[road.topics.status("luebeck")] == b"still"
    assert after[road.topics.key("luebeck")] == b"there"
    assert road.broker.is_running


def test_a_packet_that_is_too_large_ends_the_connection_and_nothing_else(road, owner, client, eventually):
    edge, other = client("luebeck"), client("bremen")
    eventually(lambda: edge.up and other.up)
    edge.publish(road.topics.status("luebeck"), bytes(road.plan().max_packet_bytes - 200))
    assert edge.up
    edge.publish(road.topics.status("luebeck"), bytes(road.plan().max_packet_bytes + 1))
    eventually(lambda: edge.downs)
    assert other.up
    assert len(road.retained(owner)[road.topics.status("luebeck")]) == road.plan().max_packet_bytes - 200


@pytest.mark.usefixtures("owner")
def test_no_detour_leads_to_anothers_topics(road, client, eventually):
    edge = client("luebeck")
    eventually(lambda: edge.up)
    base = road.topics.base
    for detour in (f"$share/g/{road.topics.key('bremen')}", f"$share/g/{base}/#", "$SYS/#", "$CONTROL/#", "+/#"):
        edge.subscribe(detour)
    allowed = {road.topics.key("luebeck"), road.topics.status("luebeck"), road.topics.round}
    allowed |= {road.topics.tuf("timestamp.json"), road.topics.block("ab" * 32)}
    assert set(edge.heard) <= allowed


def test_an_edge_cannot_put_others_out(road, owner, client, eventually):
    edge, other = client("luebeck"), client("bremen")
    eventually(lambda: edge.up and other.up)
    commands = [{"command": command, "username": "bremen"} for command in ("createClient", "deleteClient")]
    edge.publish(CONTROL_TOPIC, json.dumps({"commands": commands}).encode())
    assert other.subscribe(road.topics.round)
    assert other.up
    assert owner.is_up
