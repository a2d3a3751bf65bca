"""A real SuperLink for the tests of a module, with TLS of its own, and real nodes for each test."""

import datetime as dt
import hashlib
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from center import founding
from center.keys import CenterKeys
from center.mqtt import road
from center.mqtt.broker import Broker
from center.mqtt.connection import Connection
from center.mqtt.ledger import Ledger
from center.registry import Registry
from center.rounds.flower_app import FlowerCenter
from center.rounds.superlink import SuperLink
from center.rounds.transport import GridTransport
from center.settings import CenterSettings
from center.settings import load as load_settings
from center.sites import membership, upkeep
from center.sites.gateway import Gateway
from edge.keys import Keys
from edge.rounds.flower_node import Answer, FlowerNode, build_client_app
from protocol.blocks import BlockCipher
from protocol.bundle import Manifest
from protocol.errors import DamagedBlockError
from protocol.identity import EdgeId, FederationId
from protocol.release import WHOLE_QUEUE, Kind, Offer, Pace, Place
from protocol.sealing import ContentKey, decrypt, open_content_key
from protocol.topics import Topics
from protocol.transport import Reply, Request
from tests.waiting import everything_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """Files: an authority, and a certificate that it gave to 127.0.0.1."""

    ca: Path
    certificate: Path
    key: Path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def make_papers(folder: Path) -> Papers:
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)

    def certificate(subject: str, key: ec.EllipticCurvePrivateKey, *, is_ca: bool) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name("test authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
                ),
                critical=False,
            )
            .sign(authority, hashes.SHA256())
        )

    folder.mkdir(parents=True, exist_ok=True)
    papers = Papers(ca=folder / "ca.crt", certificate=folder / "server.crt", key=folder / "server.key")
    papers.ca.write_bytes(certificate("test authority", authority, is_ca=True).public_bytes(Encoding.PEM))
    papers.certificate.write_bytes(certificate("localhost", server, is_ca=False).public_bytes(Encoding.PEM))
    papers.key.write_bytes(server.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return papers


@pytest.fixture(scope="module")
def papers(tmp_path_factory) -> Papers:
    return make_papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture(scope="module")
def superlink(tmp_path_factory, papers) -> Iterator[SuperLink]:
    link = SuperLink(
        folder=tmp_path_factory.mktemp("superlink"),
        certificate=papers.certificate,
        key=papers.key,
        ca_certificate=papers.ca,
    )
    link.start()
    yield link
    link.stop()


@pytest.fixture(scope="module")
def center(superlink) -> Iterator[FlowerCenter]:
    flower = FlowerCenter(address=superlink.address, ca_certificate=superlink.ca_certificate, secret=superlink.secret())
    yield flower
    flower.close()


def public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def echo(request: Request) -> Reply:
    return Reply(body=request.document + request.weights)


class Crew:
    """Edges in threads, admitted and online; all are stopped in the end."""

    def __init__(self, *, center: FlowerCenter, url: str, ca: Path, folder: Path) -> None:
        self.center = center
        self.url = url
        self.ca = ca
        self.folder = folder
        self.keys: dict[EdgeId, ec.EllipticCurvePrivateKey] = {}
        self._threads: dict[EdgeId, tuple[threading.Event, threading.Thread]] = {}

    @property
    def public_keys(self) -> dict[EdgeId, bytes]:
        return {edge: public(key) for edge, key in self.keys.items()}

    def admit(self, name: str) -> EdgeId:
        edge = EdgeId(name)
        self.keys[edge] = ec.generate_private_key(ec.SECP384R1())
        self.center.register(public(self.keys[edge]))
        return edge

    def hire(self, name: str, answer: Answer = echo, *, url: str | None = None, **options) -> EdgeId:
        edge = self.admit(name) if EdgeId(name) not in self.keys else EdgeId(name)
        node = FlowerNode(
            gateway_url=url or self.url,
            ca_certificate=self.ca,
            node_key=self.keys[edge],
            app=build_client_app(answer),
            memory=self.folder / f"{edge}.node",
            poll=0.05,
            **options,
        )
        stop = threading.Event()
        thread = threading.Thread(target=node.run, args=(stop,), name=edge)
        thread.start()
        self._threads[edge] = (stop, thread)
        return edge

    def dismiss(self, *edges: EdgeId) -> None:
        for edge in edges or list(self._threads):
            stop, thread = self._threads.pop(edge)
            stop.set()
            thread.join(timeout=30)
            assert not thread.is_alive()

    def transport(self, **options) -> GridTransport:
        return self.center.transport(self.public_keys, poll=0.05, **options)


def ask(transport: GridTransport, *edges: EdgeId, timeout: float = 30.0, weights: bytes = b"") -> dict[EdgeId, Reply]:
    """One round: the same request to these edges, and their answers."""
    request = Request(action="test", document=os.urandom(8), weights=weights)
    transport.send(dict.fromkeys(edges, request))
    return collect(transport, *edges, timeout=timeout)


def collect(transport: GridTransport, *edges: EdgeId, timeout: float = 30.0) -> dict[EdgeId, Reply]:
    replies: dict[EdgeId, Reply] = {}
    deadline = time.monotonic() + timeout
    while set(edges) - set(replies) and time.monotonic() < deadline:
        replies |= dict(transport.receive(timeout=0.5))
    return replies


@pytest.fixture
def crew(superlink, center, tmp_path) -> Iterator[Crew]:
    crew = Crew(center=center, url=superlink.url, ca=superlink.ca_certificate, folder=tmp_path)
    yield crew
    crew.dismiss()


@pytest.fixture
def rounds():
    """`ask` and `collect` for tests, which cannot import a conftest."""
    return SimpleNamespace(ask=ask, collect=collect)


@pytest.fixture
def gateway(superlink, papers) -> Iterator[Gateway]:
    door = Gateway(
        host="127.0.0.1",
        port=0,
        certificate=papers.certificate,
        key=papers.key,
        superlink_url=superlink.url,
        ca_certificate=papers.ca,
    )
    door.start()
    yield door
    door.stop()


class Town:
    """A center's folder as `hanse-center init` makes it, a broker, and what edges could read there."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind, self.federation = folder, kind, FederationId("hanse")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        addresses = founding.Addresses(host="127.0.0.1", gateway_port=1, superlink_port=2, broker_port=port)
        founding.found(folder, federation=self.federation, addresses=addresses, now=dt.datetime.now(dt.UTC))
        self.topics = Topics(self.federation)
        self.now = dt.datetime.now(dt.UTC)
        self.sites: dict[str, Keys] = {}
        self.broker: Broker | None = None

    def set(self, section: str, **values: float) -> None:
        """Write settings of a section into center.toml."""
        path = self.folder / "center.toml"
        known = tomllib.loads(path.read_text())
        known.setdefault(section, {}).update(values)
        lines = [f"federation = {json.dumps(known.pop('federation'))}"]
        for name, inner in known.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in inner.items())]
        path.write_text("\n".join(lines) + "\n")

    @property
    def settings(self) -> CenterSettings:
        return load_settings(self.folder)

    def start_broker(self) -> None:
        upkeep.refresh(self.folder, self.settings, now=self.now)
        self.broker = Broker.start(road.broker_plan(self.folder, self.settings), kind=self.kind)

    def stop_broker(self) -> None:
        if self.broker is not None:
            self.broker.stop()

    def join(self, *names: str) -> None:
        with closing(Registry(self.folder / "registry.db")) as registry:
            for name in names:
                self.sites[name] = Keys.generate()
                registry.add_site(self.sites[name].member(EdgeId(name)), certificate="pem", now_ms=1)

    def admit(self, *names: str) -> None:
        self.join(*names)
        membership.admit(self.folder, self.settings, now=self.now)

    def connected(self):
        return road.connected(self.folder, self.settings, CenterKeys.load(self.folder))

    def build(self, files: dict[str, bytes], *, kind: Kind = Kind.BUNDLE) -> Path:
        """The folder of the next release."""
        number = founding.open_repository(self.folder).next_version(kind)
        place = self.folder / "releases" / f"{kind}-{number}"
        for path, data in {**files, "card.json": b"{}"}.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(data)
        return place

    def release(
        self, files: dict[str, bytes], *, place: Place = Place.ALL, reach: int = WHOLE_QUEUE, voice=None
    ) -> int:
        """Build, sign and publish; its number."""
        kind = Kind.CATALOGUE if place is Place.CATALOGUE else Kind.BUNDLE
        folder = self.build(files, kind=kind)
        with self.connected() if voice is None else nullcontext(voice) as speaking:
            return self.sign(speaking, folder, place=place, reach=reach)

    def sign(self, voice, folder: Path, *, place: Place = Place.ALL, reach: int = WHOLE_QUEUE) -> int:
        kind = Kind.CATALOGUE if place is Place.CATALOGUE else Kind.BUNDLE
        with road.signing_files(voice, folder, directory=self.folder, settings=self.settings) as (repository, manifest):
            offer = Offer(
                place=place,
                version=repository.next_version(kind),
                sha256=manifest.bundle_digest,
                bytes=manifest.total_bytes,
                evaluation={},
            )
            repository.add(offer, manifest.to_bytes())
            if place is Place.ALL:
                pace = Pace(version=offer.version, reach=reach)
                repository.add_target(pace.target, b"{}", custom=pace.to_custom())
            voice.publish_metadata(repository.publish_version(now=self.now))
        return offer.version

    def retained(self) -> dict[str, bytes]:
        """Everything that lies on the broker."""
        owner = Connection(road.broker_access(self.folder, self.settings), client_id=os.urandom(8).hex())
        owner.start()
        owner.wait_until_up(seconds=10)
        ledger = Ledger(self.folder / "published.db")
        expected = {topic for topic, _ in (*ledger.messages(), *ledger.places(delivered=True))}
        note = ledger.note() if self.kind == "embedded" else None  # it acknowledges before it retains
        ledger.close()
        deadline = time.monotonic() + 15
        try:
            while True:
                heard = everything_at(owner, self.topics, "", self.kind)
                there = expected <= heard.keys() and note in {None, heard.get(self.topics.inventory)}
                if there or time.monotonic() > deadline:
                    return heard
        finally:
            owner.stop()

    def read_as(
        self, site: str, *, stock: dict[str, bytes] | None = None, known: tuple[ContentKey, ...] = ()
    ) -> dict[str, dict[str, bytes]]:
        """What an edge reads: the files of every release, by target name; all is checked.

        Args:
            known: keys that it had before; one that has just started has none.
        """
        stock = self.retained() if stock is None else stock
        keys = {key.key_id: key for key in (*known, self.key_of(site, stock))}

        def file(name: str) -> bytes:
            topic = self.topics.tuf(name)
            return decrypt(stock[topic], key=keys[stock[topic][:8]], topic=topic)

        def block(name: str) -> bytes:
            for key in keys.values():
                with suppress(DamagedBlockError):
                    return BlockCipher(key).open(stock[self.topics.block(name)], expected=name)
            raise KeyError(name)

        def signed(name: str) -> dict:
            return json.loads(file(name))["signed"]

        snapshot = signed(f"{signed('timestamp.json')['meta']['snapshot.json']['version']}.snapshot.json")
        found: dict[str, dict[str, bytes]] = {}
        for role in ("releases", "wide", "membership"):
            number = snapshot["meta"][f"{role}.json"]["version"]
            for name, target in signed(f"{number}.{role}.json")["targets"].items():
                place, _, rest = name.partition("/")
                data = file(f"{place}/{target['hashes']['sha256']}.{rest}")
                assert hashlib.sha256(data).hexdigest() == target["hashes"]["sha256"]
                if "sha256" not in target["custom"]:
                    found[name] = {"": data}
                    continue
                manifest = Manifest.from_bytes(data)
                assert manifest.bundle_digest == target["custom"]["sha256"]
                found[name] = {
                    path: b"".join(block(name) for name in entry.blocks) for path, entry in manifest.files.items()
                }
        return found

    def key_of(self, site: str, stock: dict[str, bytes]) -> ContentKey:
        """The content key that lies on the broker for a site.

        Raises:
            KeyError: none does.
        """
        return open_content_key(
            stock[self.topics.key(EdgeId(site))],
            federation=self.federation,
            edge=EdgeId(site),
            private_key=self.sites[site].seal,
            center_key=CenterKeys.load(self.folder).center.public_key(),
        )


@pytest.fixture
def town(tmp_path, broker_kind) -> Iterator[Town]:
    """A federation with a running broker; nobody has joined yet."""
    town = Town(tmp_path / "center", broker_kind)
    try:
        town.start_broker()
        yield town
    finally:
        town.stop_broker()
        structlog.reset_defaults()  # a command that ran in here logs to an output that is closed now


_COUNTING = """
import os, signal, sys, time
from datetime import UTC, datetime
from pathlib import Path

from center import durable, settings
from center.mqtt import collecting, road
from center.releases import release_folders
from center.sites import membership
from center.mqtt.connection import Connection
from center.keys import CenterKeys
from center.mqtt.ledger import Ledger

folder, left = Path(sys.argv[1]), int(sys.argv[2])
loaded, now = settings.load(folder), datetime.now(UTC)

def count():
    global left
    left -= 1
    if left == 0:
        time.sleep(0.1)  # so that what was handed over before has left
        os.kill(os.getpid(), signal.SIGKILL)

def watched(owner, name):
    inner = getattr(owner, name)
    def call(*args, **options):
        count()
        done = inner(*args, **options)
        count()
        return done
    setattr(owner, name, call)

def deliver(self, messages, *, inner=Connection.deliver, **options):
    def counted():
        for message in messages:
            yield message
            count()
    inner(self, counted(), **options)

Connection.deliver = deliver
watched(durable, "write")
watched(release_folders.shutil, "rmtree")
for name in ("mark_unneeded", "remember", "stage", "delivered", "withdraw", "cleared"):
    watched(Ledger, name)
"""


@pytest.fixture
def dies(town):
    """Run a program beside the town's broker and kill -9 it at its n-th write or message; did it die early?"""

    def run(program: str, *words: str, step: int) -> bool:
        command = [sys.executable, "-c", _COUNTING + program, str(town.folder), str(step), *words]
        code = subprocess.run(command, check=False, timeout=60).returncode
        assert code in {0, -signal.SIGKILL}
        return code != 0

    return run
