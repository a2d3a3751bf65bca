"""A real broker, a real center behind it and real edges: the road of a release, for the tests of both ends."""

import dataclasses
import secrets
import socket
import ssl
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from center.mqtt.broker import Broker, mosquitto_path
from center.mqtt.broker_config import BrokerPlan, find_plugin, write_rules
from center.mqtt.connection import BrokerAccess as CenterAccess
from center.mqtt.connection import Connection as CenterConnection
from center.mqtt.content_keys import ContentKeys
from center.mqtt.limits import UNLIMITED
from center.mqtt.publishing import Publisher
from center.mqtt.release_blocks import manifest_of
from center.signing.repository import OnlineKeys, Repository
from center.sites import authority
from edge.releases.connection import BrokerAccess, Pace
from edge.releases.installer import Installer
from edge.releases.sync import Hearing, Sync, Trust
from protocol import release
from protocol.bundle import CARD, FileDigest
from protocol.card import CATALOGUE_FILE, BundleCard, CatalogueCard
from protocol.identity import EdgeId, FederationId
from protocol.release import WHOLE_QUEUE, Kind, Offer, Place
from protocol.sealing import ContentKey, SealingKey
from protocol.topics import CENTER, Topics
from tests.waiting import eventually, everything_at

BRISK = Pace(window=8, silence=1.0, attempts=3)
CATALOGUE_ROWS = b"a catalogue"

_LONGEST_FIRST = (
    "tests/journeys/test_first_walk.py",
    "tests/center/mqtt/test_broker.py",
    "tests/center/mqtt/test_publishing.py",
    "tests/center/mqtt/test_rekeying.py",
    "tests/center/mqtt/test_collecting.py",
    "tests/journeys/test_dropouts.py",
    "tests/edge/releases/test_fetching.py",
    "tests/edge/attacks/test_broker.py",
    "tests/simulation/test_bench_sync.py",
    "tests/center/rounds/test_campaign.py",
    "tests/edge/test_agent.py",
    "tests/journeys/test_interruption.py",
    "tests/edge/releases/test_sync.py",
    "tests/edge/api/test_schema.py",
    "tests/center/releases/test_releasing.py",
    "tests/simulation/test_bench.py",
    "tests/center/rounds/test_superlink.py",
    "tests/center/rounds/test_flower_app.py",
)
"""Files of twenty seconds and more: begun last, one of them would keep one core while the others stand idle.

Those that keep both cores busy (journeys, training) stand apart, with such between them that mostly wait.
"""


def pytest_collection_modifyitems(items):
    """The longest files come first; each stays together and in its own order."""
    place = {name: number for number, name in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))


class Heard:
    """What one edge was told."""

    def __init__(self):
        self.wakes, self.troubles = [], []
        self.release = threading.Event()

    def hearing(self):
        return Hearing(
            on_wake=self.wakes.append,
            on_release_available=self.release.set,
            on_trouble=self.troubles.append,
        )


class Road:
    """One federation with its broker; everything it starts ends with it."""

    def __init__(self, folder: Path, kind: str, federation: str = "hanse", *, now: datetime | None = None):
        self.folder, self.kind, self.federation = folder, kind, FederationId(federation)
        folder.mkdir(exist_ok=True)
        self.topics = Topics(self.federation)
        self.now = now or datetime.now(UTC)
        self.authority_key = authority.new_key()
        self.authority = authority.create(self.federation, key=self.authority_key, now=self.now)
        (folder / "ca.crt").write_bytes(self.authority.public_bytes(Encoding.PEM))
        self.admitted = {"luebeck", "bremen"}
        self.revoke([])
        self._broker_papers()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.signer = Ed25519PrivateKey.generate()
        self.key = ContentKey(number=1, secret=secrets.token_bytes(32))
        self.limits = UNLIMITED
        self.online = OnlineKeys(*(Ed25519PrivateKey.generate() for _ in OnlineKeys._fields))
        self.root_key, self.targets_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self.repository = Repository.create(
            folder / "repository",
            root_keys=[self.root_key],
            targets_key=self.targets_key,
            keys=self.online,
            now=self.now,
        )
        self.sealing = {}
        self._closing = []
        self.broker = None

    def _broker_papers(self):
        key = authority.new_key()
        certificate = authority.server_certificate(
            ("127.0.0.1",),
            public_key=key.public_key(),
            authority=self.authority,
            authority_key=self.authority_key,
            now=self.now,
        )
        (self.folder / "broker.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
        (self.folder / "broker.key").write_bytes(authority.key_pem(key))

    def plan(self):
        return BrokerPlan(
            federation=self.federation,
            folder=self.folder / "broker",
            host="127.0.0.1",
            port=self.port,
            authority=self.folder / "ca.crt",
            certificate=self.folder / "broker.crt",
            key=self.folder / "broker.key",
            revoked=self.folder / "ca.crl",
            plugin=find_plugin(),
        )

    def revoke(self, serials):
        """Write the list of certificates that count no more; a running broker reads it when it is told to."""
        revoked = authority.revocation_list(
            dict.fromkeys(serials, self.now),
            authority=self.authority,
            authority_key=self.authority_key,
            now=self.now,
        )
        (self.folder / "ca.crl").write_bytes(revoked.public_bytes(Encoding.PEM))

    def admit_to_broker(self, *names: str):
        """Let these do on the broker what edges may."""
        self.admitted |= set(names) - {CENTER}
        write_rules(self.plan().folder, self.federation, self.admitted)
        if self.broker is not None:
            self.broker.reload()

    def serial(self, name: str) -> int:
        """The number of a certificate that was given."""
        return x509.load_pem_x509_certificate((self.folder / f"{name}.crt").read_bytes()).serial_number

    def shown_serial(self) -> int:
        """The number of the certificate that the broker shows."""
        papers = self.papers(CENTER)
        context = ssl.create_default_context(cafile=papers["authority"])
        context.load_cert_chain(papers["certificate"], papers["key"])
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as line,
        ):
            return int(line.getpeercert()["serialNumber"], 16)

    def start_broker(self):
        self.admit_to_broker()
        self.broker = Broker.start(self.plan(), kind=self.kind)
        return self.broker

    def papers(self, name: str):
        """Where the broker is, with a client certificate in the name of `name`."""
        paths = {"certificate": self.folder / f"{name}.crt", "key": self.folder / f"{name}.key"}
        if not paths["key"].exists():
            key = authority.new_key()
            certificate = authority.client_certificate(
                EdgeId(name),
                request=authority.request_for(EdgeId(name), key),
                authority=self.authority,
                authority_key=self.authority_key,
                now=self.now,
            )
            paths["certificate"].write_bytes(certificate.public_bytes(Encoding.PEM))
            paths["key"].write_bytes(authority.key_pem(key))
        if name not in {CENTER, *self.admitted}:
            self.admit_to_broker(name)
        return {"host": "127.0.0.1", "port": self.port, "authority": self.folder / "ca.crt", **paths}

    def publisher(self, ledger: str = "ledger.db"):
        publisher = Publisher(
            CenterAccess(**self.papers(CENTER)),
            federation=self.federation,
            signer=self.signer,
            keys=lambda: ContentKeys(newest=self.key),
            limits=self.limits,
            ledger=self.folder / ledger,
        )
        self._closing.append(publisher.stop)
        publisher.start()
        return publisher

    def admit(self, publisher, name: str):
        self.sealing.setdefault(name, SealingKey.generate())
        publisher.publish_keys({EdgeId(name): self.sealing[name].public_bytes()})

    def edge(self, name: str, *, heard=None, folder=None, start=True, **changes):
        """A running `Sync`."""
        home = folder or self.folder / f"edge-{name}"
        home.mkdir(exist_ok=True)
        trust = Trust(
            center_key=self.signer.public_key(),
            sealing_key=self.sealing.setdefault(name, SealingKey.generate()),
            root=self.repository.first_root,
        )
        sync = Sync(
            BrokerAccess(**{**self.papers(name), **changes}),
            federation=self.federation,
            edge=EdgeId(name),
            trust=trust,
            hearing=(heard or Heard()).hearing(),
            folder=home,
            pace=BRISK,
            report_seconds=0.05,
        )
        if start:
            sync.start()
            self._closing.append(sync.stop)
        return sync

    def installer(self, name: str):
        return Installer(self.folder / f"edge-{name}", federation=self.federation, edge_version="0.1.0")

    def bundle(self, name: str, files: dict[str, bytes], *, version: int = 1, listed=None, **changes):
        """A bundle's directory; `listed` is what its card says of its files, if that is not the truth."""
        card = BundleCard(
            version=version,
            federation=self.federation,
            created_ms=1,
            catalogue_version=1,
            catalogue_sha256=FileDigest.of(CATALOGUE_ROWS).sha256,
            submodels={},
            files=listed or {path: FileDigest.of(data) for path, data in files.items()},
        )
        return self._directory(name, files, dataclasses.replace(card, **changes))

    def catalogue(self, name: str = "catalogue", rows: bytes = CATALOGUE_ROWS, version: int = 1):
        files = {CATALOGUE_FILE: rows}
        digests = {path: FileDigest.of(data) for path, data in files.items()}
        return self._directory(name, files, CatalogueCard(version=version, items=1, bytes_unpacked=11, files=digests))

    def _directory(self, name, files, card):
        directory = self.folder / name
        for path, data in {**files, CARD: card.to_bytes()}.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(data)
        return directory

    def sign(self, place: Place, directory: Path, *, epoch: int = 1, number: int | None = None):
        """Put a directory into the repository, for everybody at once; the manifest and what has to be published."""
        manifest = manifest_of(directory, key=self.key)
        kind = Kind.CATALOGUE if place is Place.CATALOGUE else Kind.BUNDLE
        offer = Offer(
            place=place,
            version=number or self.repository.next_version(kind),
            sha256=manifest.bundle_digest,
            epoch=epoch,
            evaluation={},
            bytes=manifest.total_bytes,
        )
        self.repository.add(offer, manifest.to_bytes())
        if place is Place.ALL:
            pace = release.Pace(version=offer.version, reach=WHOLE_QUEUE)
            self.repository.add_target(pace.target, b"{}", custom=pace.to_custom())
        return manifest, self.repository.publish_version(now=self.now)

    def publish(self, publisher, place: Place, directory: Path, *, epoch: int = 1, number: int | None = None):
        """Sign and publish; the bytes of blocks that travelled."""
        manifest, published = self.sign(place, directory, epoch=epoch, number=number)
        travelled = publisher.publish_blocks(directory, manifest)
        publisher.publish_metadata(published)
        return travelled

    def as_owner_of_the_broker(self):
        """A connection that may read and write everything: what whoever owns the broker can do."""
        connection = CenterConnection(CenterAccess(**self.papers(CENTER)), client_id=secrets.token_hex(8))
        connection.start()
        self._closing.append(connection.stop)
        connection.wait_until_up(seconds=10)
        return connection

    def retained(self, owner, under: str = ""):
        """Everything retained below a topic."""
        return everything_at(owner, self.topics, under, self.kind)

    def close(self):
        for close in reversed(self._closing):
            close()
        if self.broker is not None:
            self.broker.stop()


@pytest.fixture(name="eventually")
def _eventually():
    return eventually


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture(params=["mosquitto", "embedded"])
def broker_kind(request):
    if request.param == "mosquitto" and mosquitto_path() is None:
        pytest.skip("Mosquitto is not installed")
    return request.param


@pytest.fixture
def make_road(tmp_path, broker_kind):
    """Founds federations; they end with the test."""
    made = []

    def make(**how):
        made.append(Road(tmp_path / f"road-{len(made)}", broker_kind, **how))
        return made[-1]

    yield make
    for road in made:
        road.close()


@pytest.fixture
def road(tmp_path, broker_kind):
    """A federation whose broker runs."""
    road = Road(tmp_path, broker_kind)
    try:
        road.start_broker()
        yield road
    finally:
        road.close()


@pytest.fixture
def quiet_road(tmp_path):
    """A federation without a broker: keys, repository and directories only."""
    return Road(tmp_path / "quiet", "embedded")


@pytest.fixture
def other_road(tmp_path, broker_kind):
    """Another federation; its broker runs as well."""
    road = Road(tmp_path / "other", broker_kind, "rhein")
    try:
        road.start_broker()
        yield road
    finally:
        road.close()
