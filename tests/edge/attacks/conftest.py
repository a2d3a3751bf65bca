"""A town whose edge has release 1 installed, and whoever owns its broker: he reads and writes everything there."""

import os
import random
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager, suppress
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from center.mqtt.broker import mosquitto_path
from center.signing.metadata import public_half, signers
from protocol.blocks import BLOCK_BYTES
from protocol.release import Kind, Place
from protocol.sealing import encrypt
from simulation.lossy_broker import Faults, LossyBroker, Papers

MODEL = "recommend/model.onnx"


def noise(seed: int, blocks: int = 6) -> bytes:
    return random.Random(seed).randbytes(blocks * BLOCK_BYTES)


class Town:
    """A federation on a real broker with one edge, Lübeck, that serves release 1."""

    def __init__(self, road):
        self.road = road
        self.topics, self.repository = road.topics, road.repository
        self.clock = road.now  # the edge's
        self.owner = road.as_owner_of_the_broker()
        self._marks, self._mark = 0, self.topics.status("mark")
        self.voice = road.publisher()
        road.admit(self.voice, "luebeck")
        road.publish(self.voice, Place.CATALOGUE, road.catalogue())
        self.publish(1)
        self.luebeck = road.edge("luebeck")
        self.here = road.installer("luebeck")
        self.take_up()

    def publish(self, number: int, *, place=Place.ALL, files=None, **how):
        """Sign and publish a bundle whose model is noise; the bytes of blocks that travelled."""
        directory = self.road.bundle(f"b{number}", files or {MODEL: noise(number)}, version=number)
        travelled = self.road.publish(self.voice, place, directory, **how)
        self.settle()
        return travelled

    def renew(self, published=None):
        """Publish what the repository has signed."""
        self.voice.publish_metadata(published or self.repository.refresh(now=self.road.now))
        self.settle()

    def bundle(self, edge=None):
        """The newest bundle that an edge is offered."""
        return max((edge or self.luebeck).newest().bundles.values(), key=lambda offered: offered.offer.version)

    def take_up(self, edge=None, here=None, **how):
        """Bring an edge up to date, as far as it lets itself be brought."""
        edge, here = edge or self.luebeck, here or self.here
        if here.catalogue() is None:
            here.install_catalogue(edge.fetch(edge.newest().catalogue), now=self.clock)
        offered = self.bundle(edge)
        here.check(offered.offer, expires=offered.expires, now=self.clock)
        fetched = edge.fetch(offered, known=here.known(Kind.BUNDLE), **how)
        here.commit(here.install(fetched, now=self.clock))

    def serves(self, number: int, here=None) -> bool:
        """Is this what the edge serves, and is it whole?"""
        bundle = (here or self.here).bundle()
        bundle.check_bytes()
        return bundle.offer.version == number and (bundle.directory / MODEL).read_bytes() == noise(number)

    def on_broker(self, under: str = "tuf/"):
        return self.road.retained(self.owner, under)

    def put(self, messages):
        """Write what the owner of the broker likes."""
        self.owner.deliver(dict(messages).items(), window=8, seconds=5)
        self.settle()

    def settle(self):
        """amqtt acknowledges before it retains: what was sent after all that comes back after all that."""
        self._marks += 1
        mark, seen = b"%d" % self._marks, threading.Event()
        self.owner.listen(self._mark, lambda _topic, payload: payload == mark and seen.set())
        self.owner.deliver([(self._mark, mark)], window=1, seconds=5)
        assert seen.wait(10)
        self.owner.forget(self._mark)

    def put_published(self, published):
        """Write what was signed past all limits of the center."""
        files = {**published.targets, **published.metadata}
        self.put(self.hide(name, data) for name, data in files.items() if not name.endswith("root.json"))

    def hide(self, name: str, data: bytes) -> tuple[str, bytes]:
        """Topic and message of a metadata file, as whoever holds the content key can make it."""
        topic = self.topics.tuf(name)
        return topic, encrypt(data, key=self.road.key, topic=topic, nonce=random.Random(name).randbytes(12))

    def sign_as_thief(self, keys, *roles, change):
        """Metadata in force, changed and signed with stolen keys, as they would be published."""
        chain = self.repository.chain
        change(chain)
        for role in roles:
            chain.roles[role].signatures.clear()
            for signer in signers(keys).values():
                chain.roles[role].sign(signer, append=True)
        return [self.hide(name, data) for name, data in chain.files() if not name.endswith("root.json")]

    def replace_keys(self, *roles: str):
        """The operator replaces stolen online keys with the offline keys, and publishes."""
        root, targets = self.repository.chain.root, self.repository.chain.targets
        fresh = []
        for role in roles:
            key = Ed25519PrivateKey.generate()
            fresh.append(key)
            old = public_half(getattr(self.road.online, role)).keyid
            for trusting, name in [(targets, "releases"), (targets, "wide")] if role == "releases" else [(root, role)]:
                trusting.revoke_key(old, name)
                trusting.add_key(public_half(key), name)
        delegated = "releases" in roles
        self.renew(
            self.repository.trust(
                root=root if set(roles) - {"releases"} else None,
                targets=targets if delegated else None,
                keys=[self.road.root_key, self.road.targets_key],
                online=fresh,
                now=self.road.now,
            )
        )

    @contextmanager
    def behind(self, faults: Faults, *, name="luebeck", folder=None, heard=None, seed=0):
        """An edge whose way to the broker is bad, and that way."""
        road = self.road
        own = Papers(certificate=road.folder / "broker.crt", key=road.folder / "broker.key")

        def papers_of(edge):
            return Papers(certificate=road.papers(edge)["certificate"], key=road.papers(edge)["key"])

        way = LossyBroker(
            ("127.0.0.1", road.port),
            authority=road.folder / "ca.crt",
            own=own,
            papers_of=papers_of,
            faults=faults,
            seed=seed,
        )
        with way:
            edge = road.edge(name, port=way.port, folder=folder, heard=heard)
            edge.wait_until_connected(seconds=10)
            try:
                yield edge, way
            finally:
                edge.stop()


class Liar:
    """Somebody with the broker's papers who speaks MQTT as far as it suits him."""

    def __init__(self, road, says):
        """`says(line)` is what he does once an edge has asked for something."""
        self._says = says
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(road.folder / "broker.crt", road.folder / "broker.key")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.sent = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def send(self, line, data):
        line.sendall(data)
        self.sent += len(data)

    def _serve(self):
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            with suppress(OSError), plain, self._context.wrap_socket(plain, server_side=True) as line:
                line.recv(4096)  # CONNECT
                line.sendall(b"\x20\x02\x00\x00")
                while asked := line.recv(65536):
                    if asked[0] & 0xF0 == 0x80:
                        self._says(self, line)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 80 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    made = os.geteuid() == 0 and subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if not made or made.returncode != 0:
        pytest.skip("only root can mount a small disk, and not everywhere")
    yield place
    subprocess.run(["/bin/umount", "-l", str(place)], check=True)


@pytest.fixture
def liar(road):
    return partial(Liar, road)


@pytest.fixture
def town(road):
    return Town(road)


@pytest.fixture
def broker_kind():
    """One broker, for the attacks take minutes; tests/edge/releases runs the same road over both."""
    return "mosquitto" if mosquitto_path() else "embedded"
