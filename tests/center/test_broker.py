import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from center.broker import Broker, access_rules, mosquitto_configuration
from center.connection import BrokerAccess, Connection
from center.embedded_broker import identity_of
from protocol.errors import BadInputError, NotAdmittedError, UnavailableError, UntrustedError
from protocol.topics import CENTER

# paho leaves the socket of a failed TLS handshake to the garbage collector.
LEAKY = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Client:
    """A client that keeps no rules of its own."""

    def __init__(self, papers, *, client_id="", will=None, clean=True, certificate=True):
        self.heard, self.up, self.refusal = {}, False, None
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
        self._client.on_message = lambda _c, _d, message: self.heard.update({message.topic: message.payload})
        try:
            self._client.connect(papers["host"], papers["port"], keepalive=5)
            self._client.loop_start()
        except OSError as error:
            self.refusal = error

    def _connected(self, _client, _data, _flags, reason, _properties):
        self.up = not reason.is_failure
        self.refusal = reason if reason.is_failure else None

    def subscribe(self, topic):
        self._client.subscribe(topic, 1)
        time.sleep(0.4)
        return dict(self.heard)

    def publish(self, topic, payload=b"robbed"):
        self._client.publish(topic, payload, qos=1, retain=True).wait_for_publish(1.0)
        time.sleep(0.2)

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


@pytest.fixture
def owner(road):
    """The broker with one message on every kind of topic."""
    owner = road.as_owner_of_the_broker()
    topics = road.topics
    common = [topics.roster, topics.round, topics.tuf("timestamp.json"), topics.block("ab" * 32), topics.inventory]
    own = [make(edge) for edge in ("luebeck", "bremen") for make in (topics.key, topics.status)]
    owner.deliver([(topic, b"there") for topic in (*common, *own)], window=4, seconds=5)
    return owner


@pytest.mark.usefixtures("owner")
def test_an_edge_reads_what_it_must(road, client, eventually):
    edge = client("luebeck")
    eventually(lambda: edge.up)
    wanted = [road.topics.roster, road.topics.round, road.topics.tuf("timestamp.json"), road.topics.block("ab" * 32)]
    for topic in (*wanted, road.topics.key("luebeck")):
        assert topic in edge.subscribe(topic)


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
    edge.publish("hanse/1/rhein/roster")
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
        "import sys, time\nfrom pathlib import Path\nfrom center.broker import Broker, BrokerPlan\n"
        "f = Path(sys.argv[1])\nplan = BrokerPlan(federation='hanse', folder=f / 'broker', host='127.0.0.1',"
        " port=int(sys.argv[2]), authority=f / 'ca.crt', certificate=f / 'broker.crt', key=f / 'broker.key')\n"
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
    monkeypatch.setattr("center.broker.mosquitto_path", lambda: None)
    with pytest.raises(BadInputError, match="Mosquitto is not installed"):
        Broker.start(quiet_road.plan(), kind="mosquitto")


def test_the_generated_configuration_lets_nobody_in_without_a_certificate(quiet_road):
    text = mosquitto_configuration(quiet_road.plan())
    assert "require_certificate true" in text
    assert "allow_anonymous false" in text
    assert text.count("listener ") == 1
    assert "pattern readwrite hanse/1/hanse/status/%u" in access_rules(quiet_road.federation)


def test_a_certificate_without_a_name_is_nobody():
    assert identity_of(None) is None
    assert identity_of({"subject": ()}) is None
    assert identity_of({"subject": ((("organizationName", "x"),), (("commonName", "luebeck"),))}) == "luebeck"


def test_the_broker_can_be_ended_by_signal(road, eventually):
    os.kill(road.broker.pid, signal.SIGTERM)
    eventually(lambda: not road.broker.is_running, seconds=5)
