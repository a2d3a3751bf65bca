"""Metadata and blocks -> MQTT: everything retained, blocks first, the timestamp last (SPEC 9.5).

What was published is written down in a ledger, so that nothing travels twice; and a note of the ledger's state lies on
the broker itself, so that a broker that lost something (wiped, restored, killed before it stored) is noticed and
restocked.
"""

import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from center.connection import BrokerAccess, Connection
from center.ledger import BlockPlace, Ledger
from center.repository import Published
from protocol import blocks, canonical
from protocol.blocks import BlockCipher
from protocol.bundle import Manifest, describe
from protocol.errors import BadInputError, MalformedMessageError, UnavailableError
from protocol.identity import EdgeId, FederationId, Label, edge_id, sign_document
from protocol.sealing import NONCE_BYTES, ContentKey, digest, encrypt, seal_content_key
from protocol.topics import CENTER, Topics, parse

_WINDOW = 16
_BATCH = 64
_ATTEMPTS = 3
_ACKNOWLEDGE_SECONDS = 20.0
_INVENTORY_SECONDS = 2.0
_TIMESTAMP = "timestamp.json"


def read_directory(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a release directory, one at a time.

    Raises:
        BadInputError: there is something that is neither a file nor a folder.
    """
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BadInputError(f"{path} is neither a file nor a folder")
        if path.is_file():
            yield path.relative_to(directory).as_posix(), path.read_bytes()


def manifest_of(directory: Path, *, key: ContentKey) -> Manifest:
    """The manifest of a release directory; sign its bytes as a TUF target.

    Raises:
        BadInputError: the directory cannot be a release.
    """
    return describe(read_directory(directory), cipher=BlockCipher(key))


class Publisher:
    """The center's voice on MQTT, and its ear for statuses."""

    def __init__(
        self,
        access: BrokerAccess,
        *,
        federation: FederationId,
        signer: Ed25519PrivateKey,
        key: ContentKey,
        ledger: Path,
        draw: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            signer: the center's online key, for wakes and content keys.
            ledger: SQLite file that remembers what is on the broker.
            draw: random bytes, for nonces.
        """
        self._federation, self._signer, self._key, self._draw = federation, signer, key, draw
        self._topics = Topics(federation)
        self._cipher = BlockCipher(key)
        self._connection = Connection(access, client_id=f"{CENTER}-{secrets.token_hex(8)}")
        self._ledger = Ledger(ledger)
        self._checked = 0
        self._publishing = threading.RLock()
        self._statuses: dict[EdgeId, Mapping[str, Any]] = {}

    def start(self, *, seconds: float = 15.0) -> None:
        """Connect.

        Raises:
            UnavailableError: the broker does not answer in time.
            UntrustedError: it refuses the center, or is not this federation's.
        """
        self._connection.listen(self._topics.statuses(), self._take_status)
        self._connection.start()
        self._connection.wait_until_up(seconds=seconds)

    def stop(self) -> None:
        self._connection.stop()
        self._ledger.close()

    @property
    def connected(self) -> bool:
        return self._connection.is_up

    def statuses(self) -> dict[EdgeId, Mapping[str, Any]]:
        """What each edge said last, or its last will: ``{"edge": ..., "online": bool, ...}``. Hearsay, not signed."""
        return dict(self._statuses)

    def tend(self) -> bool:
        """After each connection: look whether the broker still has everything, and restock it if not.

        Call it every few seconds; every publication calls it too.

        Returns:
            Whether it had to be restocked.

        Raises:
            UnavailableError: there is no connection, or it breaks meanwhile.
        """
        with self._publishing:
            self._connection.wait_until_up(seconds=_ACKNOWLEDGE_SECONDS)
            connection = self._connection.times_connected
            if connection == self._checked:
                return False
            note = self._ledger.note()
            lost = note is not None and self._read_inventory() != note
            if lost:
                self._send(self._everything())
                self._leave_note()
            self._checked = connection
            return lost

    def publish_blocks(self, directory: Path, manifest: Manifest) -> int:
        """Publish the blocks of a release that are not on the broker yet.

        Args:
            directory: must stay as it is while the release lives: a wiped broker is restocked from it.

        Returns:
            Bytes of blocks that travelled.

        Raises:
            BadInputError: a file has changed since the manifest was made.
            UnavailableError: the broker did not take them all; the next call goes on from there.
        """
        with self._publishing:
            places = {
                self._topics.block(block): BlockPlace(directory=directory.resolve(), path=path, place=place)
                for path, entry in manifest.files.items()
                for place, block in enumerate(entry.blocks)
            }
            self._ledger.remember(places)
            sizes: list[int] = []
            fresh = self._ledger.undelivered(places)
            for start in range(0, len(fresh), _BATCH):
                topics = fresh[start : start + _BATCH]
                self._deliver(lambda topics=topics: self._blocks(topics, places, sizes), topics)  # type: ignore[misc]
            return sum(sizes)

    def publish_metadata(self, published: Published) -> None:
        """Publish targets and metadata, the timestamp last; clear metadata that nobody reads any more.

        Raises:
            UnavailableError: the broker did not take them all.
        """
        with self._publishing:
            roots = {name: data for name, data in published.metadata.items() if name.endswith("root.json")}
            hidden = {name: data for name, data in published.metadata.items() if name not in roots}
            for files, hide in ((roots, False), (published.targets, True), (hidden, True)):
                self._retain({self._topics.tuf(name): data for name, data in files.items()}, hide=hide)
            current = {self._topics.tuf(name) for name in (*published.metadata, *published.targets)}
            self._clear(self._ledger.retire(self._topics.tuf(""), current=current))

    def publish_roster(self, signed: bytes) -> None:
        """Publish a roster that was signed offline."""
        with self._publishing:
            self._retain({self._topics.roster: signed})

    def publish_key(self, edge: EdgeId, *, public_key: bytes) -> None:
        """Seal the content key to an admitted edge, unless that was done before.

        Args:
            public_key: 1,216 bytes, from the roster.
        """
        topic = self._topics.key(edge)
        signer = self._signer.public_key().public_bytes_raw()
        # Sealing is randomized, so what it was made from tells whether it is new.
        source = digest(canonical.encode([self._key.key_id.hex(), self._key.number, public_key.hex(), signer.hex()]))
        with self._publishing:
            if self._ledger.source(topic) != source:
                sealed = seal_content_key(
                    self._key, federation=self._federation, edge=edge, public_key=public_key, signer=self._signer
                )
                self._ledger.stage(topic, sealed, source=source)
                self._deliver(lambda: [(topic, sealed)], [topic])

    def remove_edge(self, edge: EdgeId) -> None:
        """Clear what stands on the broker for an edge that is no longer admitted."""
        with self._publishing:
            self._clear([self._topics.key(edge), self._topics.status(edge)])
            self._statuses.pop(edge, None)

    def wake(self, content: Mapping[str, Any]) -> None:
        """Announce a round to all edges, signed."""
        with self._publishing:
            self._retain({self._topics.round: sign_document(Label.WAKE, dict(content), key=self._signer)})

    def _retain(self, files: Mapping[str, bytes], *, hide: bool = False) -> None:
        self.tend()  # first: what an emptied broker has lost is not "already there"
        fresh: list[tuple[str, bytes]] = []
        for topic, data in files.items():
            if self._ledger.source(topic) != digest(data):
                payload = encrypt(data, key=self._key, topic=topic, nonce=self._draw(NONCE_BYTES)) if hide else data
                self._ledger.stage(topic, payload, source=digest(data))
                fresh.append((topic, payload))
        self._deliver(lambda: fresh, [topic for topic, _ in fresh])

    def _clear(self, topics: list[str]) -> None:
        for topic in topics:
            self._ledger.stage(topic, b"", source="")
        self._deliver(lambda: [(topic, b"") for topic in topics], topics)

    def _deliver(self, messages: Callable[[], Iterable[tuple[str, bytes]]], topics: list[str]) -> None:
        """Send until one attempt got through on one connection: what was acknowledged by a broker that died is lost."""
        if not topics:
            return
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self.tend()
                self._send(messages())
                break
            except UnavailableError:
                if attempt == _ATTEMPTS:
                    raise
        self._ledger.delivered(topics)
        self._leave_note()

    def _send(self, messages: Iterable[tuple[str, bytes]]) -> None:
        connection = self._connection.times_connected
        self._connection.deliver(messages, window=_WINDOW, seconds=_ACKNOWLEDGE_SECONDS)
        if self._connection.times_connected != connection:
            raise UnavailableError("the broker was away while it was being supplied")

    def _leave_note(self) -> None:
        self._send([(self._topics.inventory, self._ledger.note() or b"")])

    def _blocks(
        self, topics: Iterable[str], places: Mapping[str, BlockPlace], sizes: list[int]
    ) -> Iterator[tuple[str, bytes]]:
        for topic in topics:
            payload = self._read_block(topic, places[topic])
            sizes.append(len(payload))
            yield topic, payload

    def _everything(self) -> Iterator[tuple[str, bytes]]:
        for topic, place in self._ledger.blocks():
            try:
                yield topic, self._read_block(topic, place)
            except BadInputError:
                self._ledger.forget_block(topic)  # an old release that was removed from the center's disk
        yield from self._ledger.messages(last=self._topics.tuf(_TIMESTAMP))

    def _read_block(self, topic: str, at: BlockPlace) -> bytes:
        file = at.directory / at.path
        try:
            with file.open("rb") as source:
                source.seek(at.place * blocks.BLOCK_BYTES)
                plaintext = source.read(blocks.BLOCK_BYTES)
        except OSError as error:
            raise BadInputError(f"{file} cannot be read: {error.strerror}") from error
        payload = self._cipher.seal(plaintext) if plaintext else b""
        if digest(payload) != parse(topic).name:
            raise BadInputError(f"{file} has changed since its release was signed", advice="publish a new release")
        return payload

    def _read_inventory(self) -> bytes | None:
        arrived: list[bytes] = []
        there = threading.Event()

        def take(_topic: str, payload: bytes) -> None:
            arrived.append(payload)
            there.set()

        self._connection.listen(self._topics.inventory, take)
        there.wait(_INVENTORY_SECONDS)
        self._connection.forget(self._topics.inventory)
        return arrived[-1] if arrived else None

    def _take_status(self, topic: str, payload: bytes) -> None:
        try:
            edge = edge_id(parse(topic).name)
            status = canonical.decode(payload) if payload else None
        except (MalformedMessageError, BadInputError):
            return  # hearsay that cannot be read is as good as none
        if isinstance(status, dict):
            self._statuses[edge] = status
        else:
            self._statuses.pop(edge, None)
