"""The announcement: everything a round depends on, in one signed document (SPEC 3.1-3.2)."""

import hashlib
import math
from dataclasses import dataclass, field
from enum import StrEnum
from types import NoneType
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol import canonical, cohort
from protocol.errors import BadInputError, MalformedMessageError
from protocol.fixed_point import Layout, Segment, words_of
from protocol.identity import EdgeId, FederationId, Label, edge_id, open_document, sign_document
from protocol.privacy import Privacy

_DIGEST_BYTES = 32
_MOST_WORDS = 1 << 28


class Purpose(StrEnum):
    """What a round is for. Each purpose has one meaning at the edge; there is no other code to run."""

    POPULARITY = "popularity"
    TRAIN = "train"
    EVALUATE = "evaluate"
    HEALTH = "health"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """Everything a round depends on, told alike to every edge of its cohort (SPEC 3.1).

    Attributes:
        round: strictly increasing over the life of a federation; an edge answers each number at most once.
        key_epoch: whose pair keys mask it.
        cohort: the edges asked, sorted, each once, at most 200.
        prekeys: SHA-256 of the signed prekey of each edge of the cohort, in its order: all hold the same keys or none.
        roster_version: the roster that their keys come from.
        submodel: whose weights these are, such as ``recommend``.
        weights_sha256: 32 bytes, of the weights that the edge must have loaded.
        layout: the segments of the vector that is summed.
        window: of a statistic: an event enters one window. Of an evaluation the number of the candidate, of health a
            number that is used once. 0 where the question is the weights.
        clip: L2 norm that a local update is clipped to.
        coordinate_clip: largest absolute value of one coordinate of it.
        weight_cap: examples of one edge that count at most; weights are ``min(examples, cap) / cap``.
        deadline_ms: UTC; an answer after it is late.
        center_epoch: the fencing token of the center that leads; a center that returns from the dead has a lower one.
        privacy: the noise that every edge adds, or None.
        training: how to train, numbers by name; the edge's own limits stand above them.
    """

    federation: FederationId
    campaign: str
    round: int
    key_epoch: int
    roster_version: int
    center_epoch: int
    cohort: tuple[EdgeId, ...]
    prekeys: tuple[bytes, ...]
    purpose: Purpose
    submodel: str
    weights_sha256: bytes
    window: int
    layout: Layout
    clip: float
    coordinate_clip: float
    weight_cap: int
    deadline_ms: int
    privacy: Privacy | None = None
    training: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "federation": self.federation,
            "campaign": self.campaign,
            "round": self.round,
            "key_epoch": self.key_epoch,
            "roster_version": self.roster_version,
            "center_epoch": self.center_epoch,
            "cohort": list(self.cohort),
            "prekeys": [digest.hex() for digest in self.prekeys],
            "purpose": self.purpose.value,
            "submodel": self.submodel,
            "weights_sha256": self.weights_sha256.hex(),
            "window": self.window,
            "layout": [segment.to_json() for segment in self.layout],
            "clip": float(self.clip),
            "coordinate_clip": float(self.coordinate_clip),
            "weight_cap": self.weight_cap,
            "deadline_ms": self.deadline_ms,
            "privacy": self.privacy.to_json() if self.privacy else None,
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
                key_epoch=value["key_epoch"],
                roster_version=value["roster_version"],
                center_epoch=value["center_epoch"],
                cohort=tuple(edge_id(name) for name in value["cohort"]),
                prekeys=tuple(bytes.fromhex(digest) for digest in value["prekeys"]),
                purpose=Purpose(value["purpose"]),
                submodel=value["submodel"],
                weights_sha256=bytes.fromhex(value["weights_sha256"]),
                window=value["window"],
                layout=tuple(Segment.from_json(segment) for segment in value["layout"]),
                clip=value["clip"],
                coordinate_clip=value["coordinate_clip"],
                weight_cap=value["weight_cap"],
                deadline_ms=value["deadline_ms"],
                privacy=Privacy.from_json(value["privacy"]) if value["privacy"] is not None else None,
                training=value["training"],
            )
        except (BadInputError, TypeError, ValueError) as error:
            raise MalformedMessageError(f"an announcement cannot be read: {error}") from error
        announcement._check_ranges()
        # What could be written in two ways would give one announcement two digests.
        if canonical.encode(announcement.to_json()) != canonical.encode(value):
            raise MalformedMessageError("an announcement is not written as we write it")
        return announcement

    def _check_ranges(self) -> None:
        if list(self.cohort) != sorted(set(self.cohort)) or len(self.cohort) > cohort.LARGEST:
            raise MalformedMessageError(f"a cohort stands sorted, each edge once, at most {cohort.LARGEST}")
        if len(self.prekeys) != len(self.cohort) or any(len(digest) != _DIGEST_BYTES for digest in self.prekeys):
            raise MalformedMessageError("an announcement holds the digest of one prekey for each edge")
        if not all(isinstance(number, float) for number in self.training.values()):
            raise MalformedMessageError("training parameters are written as floats")
        if len({segment.name for segment in self.layout}) != len(self.layout) or not self.layout:
            raise MalformedMessageError("the segments of a layout have different names")
        positive = (self.clip, self.coordinate_clip, self.weight_cap, self.round, self.key_epoch)
        if not all(math.isfinite(number) and number > 0 for number in positive) or self.window < 0:
            raise MalformedMessageError("clips, weight cap, round and epoch are positive, a window is not negative")
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

    @property
    def edges(self) -> int:
        """Size n of the cohort."""
        return len(self.cohort)

    def digest(self) -> bytes:
        """A: 32 bytes that masks and signatures of the round are bound to (SPEC 3.2)."""
        return hashlib.sha256(canonical.encode(self.to_json())).digest()


_FIELDS: dict[str, type | tuple[type, ...]] = {
    "federation": str,
    "campaign": str,
    "round": int,
    "key_epoch": int,
    "roster_version": int,
    "center_epoch": int,
    "cohort": list,
    "prekeys": list,
    "purpose": str,
    "submodel": str,
    "weights_sha256": str,
    "window": int,
    "layout": list,
    "clip": float,
    "coordinate_clip": float,
    "weight_cap": int,
    "deadline_ms": int,
    "privacy": (dict, NoneType),
    "training": dict,
}
