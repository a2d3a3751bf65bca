"""Metadata and blocks -> MQTT: everything retained, blocks first, the timestamp last (SPEC 9.5).

Everything is encrypted under the newest content key. What was published is written down in a ledger, so that nothing
travels twice, an emptied broker can be restocked, and what nobody needs any more can be cleared.
"""

import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from center.mqtt.connection import BrokerAccess, Connection
from center.mqtt.content_keys import ContentKeys
from center.mqtt.delivery import Delivery
from center.mqtt.ledger import BlockPlace, Ledger, Message
from center.mqtt.limits import UNLIMITED, Limits
from center.mqtt.release_blocks import BlockReader, places_of, sizes_of
from center.signing.repository import Published
from protocol import canonical
from protocol.bundle import Manifest
from protocol.errors import BadInputError, MalformedMessageError
from protocol.identity import EdgeId, FederationId, Label, edge_id, sign_document
from protocol.sealing import (
    KEY_ID_BYTES,
    NONCE_BYTES,
    OVERHEAD_BYTES,
    ContentKey,
    decrypt,
    digest,
    encrypt,
    seal_content_key,
)
from protocol.topics import CENTER, Topics, parse

_TIMESTAMP = "timestamp.json"
_STOP_SECONDS = 5.0


class Publisher:
    """The center's voice on MQTT, and its ear for statuses."""

    def __init__(
        self,
        access: BrokerAccess,
        *,
        federation: FederationId,
        signer: Ed25519PrivateKey,
        keys: Callable[[], ContentKeys],
        ledger: Path,
        limits: Limits = UNLIMITED,
        draw: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            signer: the center's online key, for wakes and content keys.
            keys: the content keys as they are now; another process may change them.
            ledger: SQLite file that remembers what is on the broker.
            draw: random bytes, for nonces.
        """
        self._federation, self._signer, self._keys, self._draw = federation, signer, keys, draw
        self._topics, self._limits = Topics(federation), limits
        self._connection = Connection(access, client_id=f"{CENTER}-{secrets.token_hex(8)}")
        self._ledger = Ledger(ledger)
        self._delivery = Delivery(
            self._connection, self._ledger, inventory=self._topics.inventory, everything=self._everything
        )
        self._blocks = BlockReader(keys)
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
        if self._publishing.acquire(timeout=_STOP_SECONDS):  # else another thread waits for a broker that is away
            try:
                self._delivery.settle()
            finally:
                self._publishing.release()
        self._connection.stop()
        self._ledger.close()

    @property
    def connected(self) -> bool:
        return self._connection.is_up

    @property
    def keys(self) -> ContentKeys:
        """The content keys as they are now."""
        return self._keys()

    @property
    def topics(self) -> Topics:
        """Where everything of this federation stands."""
        return self._topics

    @property
    def ledger(self) -> Ledger:
        """What is on the broker."""
        return self._ledger

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
            return self._delivery.tend()

    def describe(self, directory: Path, *, key: ContentKey) -> Manifest:
        """As `manifest_of`, for a directory that `publish_blocks` is given next: its blocks are encrypted once.

        Raises:
            BadInputError: the directory cannot be a release.
        """
        with self._publishing:
            return self._blocks.describe(directory, key=key)

    def check_room(self, *manifests: Manifest, without: Collection[str] = ()) -> None:
        """Would the broker take these releases: their blocks, their manifests, and the metadata that list them?

        Args:
            without: topics that will have been cleared by then.

        Raises:
            BadInputError: a message would be too large, or the broker too full; see `Limits`.
        """
        standing = {topic: size for topic, size in self._standing().items() if topic not in without}
        coming = {self._topics.block(name): size for one in manifests for name, size in sizes_of(one).items()}
        for manifest in manifests:
            content = manifest.to_bytes()
            coming[self._topics.tuf(f"manifest {digest(content)}")] = len(content) + OVERHEAD_BYTES
        # The metadata that will list them are about as large as those that stand there.
        coming |= {f"{topic} anew": size for topic, size in standing.items() if self._is_metadata(topic)}
        self._limits.check({**standing, **coming})

    def check_document(self, name: str, document: bytes) -> None:
        """Would the broker take a target? To be asked before it is signed, for then it must be published.

        Raises:
            BadInputError: it is too large.
        """
        self._limits.check({name: len(document) + OVERHEAD_BYTES})

    def publish_blocks(self, directory: Path, manifest: Manifest, *, key: ContentKey | None = None) -> int:
        """Publish the blocks of a release that are not on the broker yet.

        Args:
            directory: must stay as it is while the release lives: a wiped broker is restocked from it.
            key: that the manifest was made under; the newest by default.

        Returns:
            Bytes of blocks that travelled.

        Raises:
            BadInputError: a file has changed since the manifest was made, or the broker has no room.
            UnavailableError: the broker did not take them all; the next call goes on from there.
        """
        under = key or self.keys.newest
        with self._publishing:
            places = {self._topics.block(name): at for name, at in places_of(directory, manifest, key=under).items()}
            self._delivery.tend()
            if self._ledger.undelivered(places):
                self.check_room(manifest)
            self._ledger.remember(places)
            fresh = self._ledger.undelivered(places)
            self._delivery.deliver(lambda topics: self._read_blocks(topics, places), fresh)
            self._blocks.forget()
            return sum(places[topic].size for topic in fresh)

    def publish_metadata(self, published: Published) -> None:
        """Publish targets and metadata, the timestamp last; clear metadata that nobody reads any more.

        Raises:
            BadInputError: the broker has no room for them.
            UnavailableError: the broker did not take them all.
        """
        key = self.keys.newest
        roots = {name: data for name, data in published.metadata.items() if name.endswith("root.json")}
        hidden = {n: data for n, data in [*published.targets.items(), *published.metadata.items()] if n not in roots}
        with self._publishing:
            self._retain(
                _Draft(topic=self._topics.tuf(name), data=data, key=None if name in roots else key)
                for name, data in {**roots, **hidden}.items()
            )
            current = {self._topics.tuf(name) for name in published.metadata}
            old = [topic for topic in self._ledger.sizes() if self._is_metadata(topic) and topic not in current]
            self._delivery.clear(self._ledger.retire(old))

    def publish_keys(self, edges: Mapping[EdgeId, bytes]) -> None:
        """Seal the last content key to each of these edges, unless that was done before.

        Args:
            edges: public sealing keys of 1,216 bytes, from the roster.

        Raises:
            UnavailableError: the broker did not take them all.
        """
        key, signer = self.keys.last, self._signer.public_key().public_bytes_raw()
        with self._publishing:
            self._delivery.tend()
            known = self._ledger.sources(self._topics.key(edge) for edge in edges)
            sealed = []
            for edge, public_key in edges.items():
                # Sealing is randomized, so what it was made from tells whether it is new.
                source = digest(canonical.encode([key.key_id.hex(), key.number, public_key.hex(), signer.hex()]))
                if known.get(self._topics.key(edge)) != source:
                    payload = seal_content_key(
                        key, federation=self._federation, edge=edge, public_key=public_key, signer=self._signer
                    )
                    sealed.append(Message(topic=self._topics.key(edge), payload=payload, source=source))
            self._put(sealed)

    def remove_edge(self, edge: EdgeId) -> None:
        """Clear what stands on the broker for an edge that is no longer admitted."""
        with self._publishing:
            self._delivery.clear([self._topics.key(edge), self._topics.status(edge)])
            self._statuses.pop(edge, None)

    def wake(self, content: Mapping[str, Any]) -> None:
        """Announce a round to all edges, signed."""
        with self._publishing:
            document = sign_document(Label.WAKE, dict(content), key=self._signer)
            self._retain([_Draft(topic=self._topics.round, data=document)])

    def clear(self, topics: Iterable[str]) -> None:
        """Take messages off the broker, and forget them.

        Raises:
            UnavailableError: the broker did not take it; what is left is cleared by the next call.
        """
        with self._publishing:
            self._delivery.clear(topics)

    def read(self, topic: str) -> bytes | None:
        """The content of a TUF target that the center has published; None if its content key has been forgotten."""
        payload = self._ledger.payload(topic)
        key = self.keys.by_id(payload[:KEY_ID_BYTES].hex())
        return decrypt(payload, key=key, topic=topic) if key else None

    def _retain(self, drafts: Iterable["_Draft"]) -> None:
        wanted = list(drafts)
        self._delivery.tend()  # first: what an emptied broker has lost is not "already there"
        known = self._ledger.sources(draft.topic for draft in wanted)
        self._put([draft.seal(self._draw) for draft in wanted if known.get(draft.topic) != draft.source])

    def _put(self, messages: list[Message]) -> None:
        standing = self._standing()
        coming = {message.topic: len(message.payload) for message in messages}
        self._limits.check({**standing, **coming} if coming.keys() - standing.keys() else coming)
        self._ledger.stage(messages)
        payloads = {message.topic: message.payload for message in messages}
        self._delivery.deliver(lambda topics: ((topic, payloads[topic]) for topic in topics), payloads)

    def _standing(self) -> dict[str, int]:
        """Bytes of everything that is retained, as far as the center knows."""
        statuses = {self._topics.status(edge): len(canonical.encode(said)) for edge, said in self.statuses().items()}
        return {self._topics.inventory: len(self._ledger.note() or b""), **statuses, **self._ledger.sizes()}

    def _is_metadata(self, topic: str) -> bool:
        prefix = self._topics.tuf("")
        return topic.startswith(prefix) and "/" not in topic.removeprefix(prefix)

    def _read_blocks(self, topics: Iterable[str], places: Mapping[str, BlockPlace]) -> Iterator[tuple[str, bytes]]:
        for topic in topics:
            yield topic, self._blocks.read(parse(topic).name, places[topic])

    def _everything(self) -> Iterator[tuple[str, bytes]]:
        for topic, at in self._ledger.places(delivered=True):
            try:
                payload = self._blocks.read(parse(topic).name, at)
            except BadInputError:
                self._ledger.forget_block(topic)  # its release or its key was removed from the center's disk
            else:
                yield topic, payload
        yield from self._ledger.messages(last=self._topics.tuf(_TIMESTAMP))

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """What is to be retained, before it is encrypted; without a key it travels plain."""

    topic: str
    data: bytes
    key: ContentKey | None = None

    @property
    def source(self) -> str:
        return digest((self.key.key_id if self.key else b"") + self.data)

    def seal(self, draw: Callable[[int], bytes]) -> Message:
        payload = self.data
        if self.key is not None:
            payload = encrypt(self.data, key=self.key, topic=self.topic, nonce=draw(NONCE_BYTES))
        return Message(topic=self.topic, payload=payload, source=self.source)
