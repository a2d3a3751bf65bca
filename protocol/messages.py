"""The messages of a round, one encoding each (SPEC 3)."""

import hashlib
import math
import struct
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray

from protocol import canonical
from protocol.errors import BadInputError, BadSignatureError, MalformedMessageError
from protocol.fixed_point import Layout, Segment, words_of
from protocol.identity import EdgeId, FederationId, Label, check, edge_id, open_document, sign, sign_document

_MAGIC = b"HMU1"
_DIGEST_BYTES = 32
_SIGNATURE_BYTES = 64
_MOST_WORDS = 1 << 28


class Purpose(StrEnum):
    """What a round is for. Each purpose has one meaning at the edge; there is no other code to run."""

    POPULARITY = "popularity"
    TRAIN = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """Everything a round depends on, told alike to every edge of its cohort (SPEC 3.1).

    Attributes:
        round: strictly increasing over the life of a federation; an edge answers each number at most once.
        cohort: the edges asked, sorted, each once.
        roster_version: the roster that their keys come from.
        submodel: whose weights these are, such as ``recommend``.
        weights_sha256: 32 bytes, of the weights that the edge must have loaded.
        layout: the segments of the vector that is summed.
        clip: L2 norm that a local update is clipped to.
        weight_cap: examples of one edge that count at most; weights are ``min(examples, cap) / cap``.
        deadline_ms: UTC; an answer after it is late.
        center_epoch: the fencing token of the center that leads; a center that returns from the dead has a lower one.
        training: how to train, numbers by name; the edge's own limits stand above them.
    """

    federation: FederationId
    campaign: str
    round: int
    roster_version: int
    center_epoch: int
    cohort: tuple[EdgeId, ...]
    purpose: Purpose
    submodel: str
    weights_sha256: bytes
    layout: Layout
    clip: float
    weight_cap: int
    deadline_ms: int
    training: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "federation": self.federation,
            "campaign": self.campaign,
            "round": self.round,
            "roster_version": self.roster_version,
            "center_epoch": self.center_epoch,
            "cohort": list(self.cohort),
            "purpose": self.purpose.value,
            "submodel": self.submodel,
            "weights_sha256": self.weights_sha256.hex(),
            "layout": [segment.to_json() for segment in self.layout],
            "clip": float(self.clip),
            "weight_cap": self.weight_cap,
            "deadline_ms": self.deadline_ms,
            "training": {name: float(number) for name, number in self.training.items()},
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Decode, refusing anything that is not exactly an announcement.

        Raises:
            MalformedMessageError: a field is missing, unknown or of another type.
        """
        if not isinstance(value, dict) or set(value) != set(_FIELDS):
            raise MalformedMessageError("an announcement has other fields")
        for name, kind in _FIELDS.items():
            if not isinstance(value[name], kind) or isinstance(value[name], bool):
                raise MalformedMessageError(f"an announcement's {name} is not of its type")
        try:
            announcement = cls(
                federation=FederationId(value["federation"]),
                campaign=value["campaign"],
                round=value["round"],
                roster_version=value["roster_version"],
                center_epoch=value["center_epoch"],
                cohort=tuple(edge_id(name) for name in value["cohort"]),
                purpose=Purpose(value["purpose"]),
                submodel=value["submodel"],
                weights_sha256=bytes.fromhex(value["weights_sha256"]),
                layout=tuple(Segment.from_json(segment) for segment in value["layout"]),
                clip=value["clip"],
                weight_cap=value["weight_cap"],
                deadline_ms=value["deadline_ms"],
                training=value["training"],
            )
        except (BadInputError, TypeError, ValueError) as error:
            raise MalformedMessageError(f"an announcement cannot be read: {error}") from error
        announcement._check_ranges()
        return announcement

    def _check_ranges(self) -> None:
        if list(self.cohort) != sorted(set(self.cohort)):
            raise MalformedMessageError("a cohort stands sorted, each edge once")
        # A number that could be written in two ways would give one announcement two digests.
        if not all(isinstance(number, float) for number in self.training.values()):
            raise MalformedMessageError("training parameters are written as floats")
        if len({segment.name for segment in self.layout}) != len(self.layout) or not self.layout:
            raise MalformedMessageError("the segments of a layout have different names")
        if not (math.isfinite(self.clip) and self.clip > 0 and self.weight_cap > 0 and self.round > 0):
            raise MalformedMessageError("clip, weight cap and round number are positive")
        if len(self.weights_sha256) != _DIGEST_BYTES:
            raise MalformedMessageError("the weights digest has 32 bytes")
        if words_of(self.layout) > _MOST_WORDS:
            raise MalformedMessageError(f"a vector has at most {_MOST_WORDS} words")

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        return sign_document(Label.ANNOUNCEMENT, self.to_json(), key=key)

    @classmethod
    def open(cls, data: bytes, *, key: Ed25519PublicKey) -> Self:
        """Check the center's signature and decode.

        Raises:
            MalformedMessageError: not an announcement.
            BadSignatureError: not signed by the center.
        """
        return cls.from_json(open_document(Label.ANNOUNCEMENT, data, key=key))

    def digest(self) -> bytes:
        """A: 32 bytes that masks and signatures of the round are bound to (SPEC 3.2)."""
        return hashlib.sha256(canonical.encode(self.to_json())).digest()


_FIELDS: dict[str, type] = {
    "federation": str,
    "campaign": str,
    "round": int,
    "roster_version": int,
    "center_epoch": int,
    "cohort": list,
    "purpose": str,
    "submodel": str,
    "weights_sha256": str,
    "layout": list,
    "clip": float,
    "weight_cap": int,
    "deadline_ms": int,
    "training": dict,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskedUpdate:
    """One edge's contribution to one round, hidden under its masks (SPEC 3.3).

    Attributes:
        announcement: 32 bytes, the digest of the announcement that it answers.
        edge: who says so.
        words: uint32[d], the encoded update plus masks, modulo 2**32.
        signature: 64 bytes by the edge's identity key over all of the above.
    """

    announcement: bytes
    edge: EdgeId
    words: NDArray[np.uint32]
    signature: bytes

    @classmethod
    def signed(cls, *, announcement: bytes, edge: EdgeId, words: NDArray[np.uint32], key: Ed25519PrivateKey) -> Self:
        signature = sign(Label.MASKED_UPDATE, _signed_part(announcement, edge, words), key=key)
        return cls(announcement=announcement, edge=edge, words=words, signature=signature)

    def to_bytes(self) -> bytes:
        head = _head(self.announcement, self.edge, len(self.words))
        return head + self.words.astype("<u4", copy=False).tobytes() + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode, refusing anything `to_bytes` would not have written.

        Raises:
            MalformedMessageError: another kind of message, cut short, or with something behind it.
        """
        shortest = len(_MAGIC) + _DIGEST_BYTES + 1
        if len(data) < shortest or data[: len(_MAGIC)] != _MAGIC:
            raise MalformedMessageError("not a masked update")
        announcement = data[len(_MAGIC) : len(_MAGIC) + _DIGEST_BYTES]
        name_end = shortest + data[shortest - 1]
        try:
            edge = edge_id(data[shortest:name_end].decode("ascii"))
            (count,) = struct.unpack_from("<I", data, name_end)
        except (UnicodeDecodeError, BadInputError, struct.error) as error:
            raise MalformedMessageError("not a masked update") from error
        start = name_end + 4
        if len(data) != start + 4 * count + _SIGNATURE_BYTES:
            raise MalformedMessageError(f"a masked update of {count} words has another length than {len(data)} bytes")
        words = np.frombuffer(data, dtype="<u4", count=count, offset=start)
        return cls(announcement=announcement, edge=edge, words=words, signature=data[-_SIGNATURE_BYTES:])

    def check(self, key: Ed25519PublicKey) -> None:
        """Is it really this edge's?

        Raises:
            BadSignatureError: the signature does not fit.
        """
        try:
            check(Label.MASKED_UPDATE, _signed_part(self.announcement, self.edge, self.words), self.signature, key=key)
        except BadSignatureError as error:
            raise BadSignatureError(f"the masked update in the name of {self.edge} is not signed by it") from error


def _head(announcement: bytes, edge: EdgeId, count: int) -> bytes:
    name = edge.encode("ascii")
    return _MAGIC + announcement + bytes([len(name)]) + name + struct.pack("<I", count)


def _signed_part(announcement: bytes, edge: EdgeId, words: NDArray[np.uint32]) -> bytes:
    """The head and the digest of the words: signing megabytes costs ten times the hash."""
    body = hashlib.sha256(np.ascontiguousarray(words, dtype="<u4").data).digest()
    return _head(announcement, edge, len(words)) + body
