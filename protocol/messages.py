"""What edges and center say to each other after an announcement, one binary encoding each (SPEC 3.3-3.8).

MaskedUpdate         edge: my vector under its masks, and shares of the masks, sealed to the others
Survivors            center: these are in the sum
SurvivorSignature    edge: I have been told this set and will know no other
UnmaskRequest        center: so many have signed the same set; here are the shares that were sealed to you
Unmasking            edge: the shares that open this sum and no other
Abandonment          edge: I will never help to open this round
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol import canonical
from protocol.binary import Reader, Writer
from protocol.errors import BadInputError, MalformedMessageError
from protocol.identity import EdgeId, Label, check, edge_id, open_document, sign, sign_document

DIGEST_BYTES = 32
SIGNATURE_BYTES = 64
SHARE_BYTES = 32
T = TypeVar("T")
SEALED_BYTES = SHARE_BYTES + 16
"""A share and the tag of AES-256-GCM."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskedUpdate:
    """One edge's contribution to one round, hidden under its masks (SPEC 3.3).

    The secrets of an edge are numbered like the cohort: at its own place the seed of its own mask, at each other place
    the seed that it shares with that edge.

    Attributes:
        announcement: 32 bytes, the digest of the announcement that it answers.
        edge: who says so.
        packed: the words of the masked vector, as `protocol.packing` writes them.
        commitments: 32 bytes for each secret.
        sealed: for each other edge in order, for each secret in order, 48 bytes: its share, sealed to that edge.
        signature: 64 bytes by the edge's identity key over all of the above.
    """

    announcement: bytes
    edge: EdgeId
    packed: bytes | memoryview
    commitments: tuple[bytes, ...]
    sealed: bytes | memoryview
    signature: bytes

    @classmethod
    def signed(
        cls,
        *,
        announcement: bytes,
        edge: EdgeId,
        packed: bytes,
        commitments: Sequence[bytes],
        sealed: bytes,
        key: Ed25519PrivateKey,
    ) -> Self:
        body = _signed_part(announcement, edge, packed, commitments, sealed)
        signature = sign(Label.MASKED_UPDATE, body, key=key)
        return cls(
            announcement=announcement,
            edge=edge,
            packed=packed,
            commitments=tuple(commitments),
            sealed=sealed,
            signature=signature,
        )

    def to_bytes(self) -> bytes:
        writer = Writer(_UPDATE).put(self.announcement).edge(self.edge)
        writer.number(len(self.packed)).put(self.packed)
        writer.number(len(self.commitments)).put(b"".join(self.commitments))
        return writer.put(self.sealed).put(self.signature).bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode, refusing anything `to_bytes` would not have written.

        Raises:
            MalformedMessageError: another kind of message, cut short, or with something behind it.
        """
        reader = Reader(data, magic=_UPDATE)
        announcement, edge = reader.take(DIGEST_BYTES), reader.edge()
        packed = reader.view(reader.number())
        edges = reader.number()
        commitments = tuple(reader.take(DIGEST_BYTES) for _ in range(edges))
        sealed = reader.view(max(edges - 1, 0) * edges * SEALED_BYTES)
        signature = reader.take(SIGNATURE_BYTES)
        reader.end()
        return cls(
            announcement=announcement,
            edge=edge,
            packed=packed,
            commitments=commitments,
            sealed=sealed,
            signature=signature,
        )

    def check(self, key: Ed25519PublicKey) -> None:
        """Is it really this edge's?

        Raises:
            BadSignatureError: the signature does not fit.
        """
        body = _signed_part(self.announcement, self.edge, self.packed, self.commitments, self.sealed)
        check(Label.MASKED_UPDATE, body, self.signature, key=key)


def _signed_part(
    announcement: bytes,
    edge: EdgeId,
    packed: bytes | memoryview,
    commitments: Sequence[bytes],
    sealed: bytes | memoryview,
) -> bytes:
    """Digests of the long parts: signing megabytes costs ten times the hash."""
    writer = Writer(_UPDATE).put(announcement).edge(edge)
    writer.put(sha256(packed).digest()).number(len(commitments)).put(b"".join(commitments))
    return writer.put(sha256(sealed).digest()).bytes()


def sealed_share(sealed: bytes | memoryview, *, edges: int, dealer: int, receiver: int, secret: int) -> bytes:
    """The share of one secret that a dealer sealed to a receiver; all three are places in the cohort."""
    row = receiver - (receiver > dealer)  # a dealer seals nothing to itself
    start = (row * edges + secret) * SEALED_BYTES
    return bytes(sealed[start : start + SEALED_BYTES])


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivors:
    """Whose updates are in the sum, signed by the center (SPEC 3.4).

    Attributes:
        edges: sorted, each once.
    """

    announcement: bytes
    edges: tuple[EdgeId, ...]

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        content = {"announcement": self.announcement.hex(), "survivors": list(self.edges)}
        return sign_document(Label.SURVIVORS, content, key=key)

    @classmethod
    def open(cls, data: bytes, *, key: Ed25519PublicKey) -> Self:
        """Check the center's signature and decode.

        Raises:
            MalformedMessageError, BadSignatureError: no survivor set, or not this center's.
        """
        match open_document(Label.SURVIVORS, data, key=key):
            case {"announcement": str(digest), "survivors": list(names), **rest} if not rest:
                pass
            case _:
                raise MalformedMessageError("not a survivor set")
        try:
            announcement, edges = bytes.fromhex(digest), tuple(edge_id(name) for name in names)
        except (TypeError, ValueError, BadInputError) as error:
            raise MalformedMessageError(f"a survivor set cannot be read: {error}") from error
        if list(edges) != sorted(set(edges)) or len(announcement) != DIGEST_BYTES or announcement.hex() != digest:
            raise MalformedMessageError("survivors stand sorted, each once, under the digest of an announcement")
        return cls(announcement=announcement, edges=edges)

    def digest(self) -> bytes:
        """32 bytes that signatures and unmaskings name the set by."""
        return sha256(canonical.encode(list(self.edges))).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivorSignature:
    """One edge's word that it was told this survivor set for this round (SPEC 3.5)."""

    announcement: bytes
    edge: EdgeId
    survivors: bytes
    signature: bytes

    @classmethod
    def signed(cls, survivors: Survivors, *, edge: EdgeId, key: Ed25519PrivateKey) -> Self:
        body = _survivor_part(survivors.announcement, edge, survivors.digest())
        signature = sign(Label.SURVIVOR_SIGNATURE, body, key=key)
        return cls(announcement=survivors.announcement, edge=edge, survivors=survivors.digest(), signature=signature)

    def to_bytes(self) -> bytes:
        return _survivor_part(self.announcement, self.edge, self.survivors) + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode.

        Raises:
            MalformedMessageError: not a survivor signature.
        """
        reader = Reader(data, magic=_SIGNATURE)
        announcement, edge, survivors = reader.take(DIGEST_BYTES), reader.edge(), reader.take(DIGEST_BYTES)
        signature = reader.take(SIGNATURE_BYTES)
        reader.end()
        return cls(announcement=announcement, edge=edge, survivors=survivors, signature=signature)

    def check(self, key: Ed25519PublicKey) -> None:
        """Is it really this edge's?

        Raises:
            BadSignatureError: the signature does not fit.
        """
        body = _survivor_part(self.announcement, self.edge, self.survivors)
        check(Label.SURVIVOR_SIGNATURE, body, self.signature, key=key)


def _survivor_part(announcement: bytes, edge: EdgeId, survivors: bytes) -> bytes:
    return Writer(_SIGNATURE).put(announcement).edge(edge).put(survivors).bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmaskRequest:
    """What an edge must see before it opens anything, and the shares that were sealed to it (SPEC 3.6).

    Attributes:
        signatures: of distinct survivors, over the same set.
        sealed: dealer -> its sealed shares for this edge, in order: of its own mask, then of its mask with each edge
            that is not in the set.
    """

    signatures: Mapping[EdgeId, bytes]
    sealed: Mapping[EdgeId, tuple[bytes, ...]]

    def to_bytes(self) -> bytes:
        writer = Writer(_REQUEST).number(len(self.signatures))
        for edge, signature in sorted(self.signatures.items()):
            writer.edge(edge).put(signature)
        writer.number(len(self.sealed))
        for edge, shares in sorted(self.sealed.items()):
            writer.edge(edge).number(len(shares)).put(b"".join(shares))
        return writer.bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode.

        Raises:
            MalformedMessageError: not a request to unmask.
        """
        reader = Reader(data, magic=_REQUEST)
        signatures = _by_edge(reader, lambda: reader.take(SIGNATURE_BYTES))
        sealed = _by_edge(reader, lambda: tuple(reader.take(SEALED_BYTES) for _ in range(reader.number())))
        reader.end()
        return cls(signatures=signatures, sealed=sealed)


def _by_edge(reader: Reader, read: Callable[[], T]) -> dict[EdgeId, T]:
    found: list[tuple[EdgeId, T]] = []
    for _ in range(reader.number()):
        edge = reader.edge()
        found.append((edge, read()))
    names = [edge for edge, _ in found]
    if names != sorted(set(names)):
        raise MalformedMessageError("the edges of a request to unmask stand sorted, each once")
    return dict(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmasking:
    """One edge's shares of what opens this sum (SPEC 3.7).

    Attributes:
        survivors: 32 bytes, the digest of the set it signed.
        shares: for each survivor in order, 32 bytes each: of its own mask, then of its mask with each edge that is
            not in the set.
    """

    announcement: bytes
    edge: EdgeId
    survivors: bytes
    shares: tuple[bytes, ...]
    signature: bytes

    @classmethod
    def signed(
        cls, *, announcement: bytes, edge: EdgeId, survivors: bytes, shares: Sequence[bytes], key: Ed25519PrivateKey
    ) -> Self:
        body = _unmasking_part(announcement, edge, survivors, shares)
        return cls(
            announcement=announcement,
            edge=edge,
            survivors=survivors,
            shares=tuple(shares),
            signature=sign(Label.UNMASKING, body, key=key),
        )

    def to_bytes(self) -> bytes:
        return _unmasking_part(self.announcement, self.edge, self.survivors, self.shares) + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode.

        Raises:
            MalformedMessageError: not an unmasking.
        """
        reader = Reader(data, magic=_UNMASKING)
        announcement, edge, survivors = reader.take(DIGEST_BYTES), reader.edge(), reader.take(DIGEST_BYTES)
        shares = tuple(reader.take(SHARE_BYTES) for _ in range(reader.number()))
        signature = reader.take(SIGNATURE_BYTES)
        reader.end()
        return cls(announcement=announcement, edge=edge, survivors=survivors, shares=shares, signature=signature)

    def check(self, key: Ed25519PublicKey) -> None:
        """Is it really this edge's?

        Raises:
            BadSignatureError: the signature does not fit.
        """
        body = _unmasking_part(self.announcement, self.edge, self.survivors, self.shares)
        check(Label.UNMASKING, body, self.signature, key=key)


def _unmasking_part(announcement: bytes, edge: EdgeId, survivors: bytes, shares: Sequence[bytes]) -> bytes:
    writer = Writer(_UNMASKING).put(announcement).edge(edge).put(survivors)
    return writer.number(len(shares)).put(b"".join(shares)).bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandonment:
    """One edge's word that it has opened nothing of this round and never will (SPEC 3.8)."""

    announcement: bytes
    edge: EdgeId
    signature: bytes

    @classmethod
    def signed(cls, announcement: bytes, *, edge: EdgeId, key: Ed25519PrivateKey) -> Self:
        body = Writer(_ABANDONMENT).put(announcement).edge(edge).bytes()
        return cls(announcement=announcement, edge=edge, signature=sign(Label.ABANDONMENT, body, key=key))

    def to_bytes(self) -> bytes:
        return Writer(_ABANDONMENT).put(self.announcement).edge(self.edge).put(self.signature).bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode.

        Raises:
            MalformedMessageError: not an abandonment.
        """
        reader = Reader(data, magic=_ABANDONMENT)
        announcement, edge, signature = reader.take(DIGEST_BYTES), reader.edge(), reader.take(SIGNATURE_BYTES)
        reader.end()
        return cls(announcement=announcement, edge=edge, signature=signature)

    def check(self, key: Ed25519PublicKey) -> None:
        """Is it really this edge's?

        Raises:
            BadSignatureError: the signature does not fit.
        """
        body = Writer(_ABANDONMENT).put(self.announcement).edge(self.edge).bytes()
        check(Label.ABANDONMENT, body, self.signature, key=key)


_UPDATE = b"HMU2"
_SIGNATURE = b"HSS1"
_REQUEST = b"HUQ1"
_UNMASKING = b"HUN1"
_ABANDONMENT = b"HAB1"
