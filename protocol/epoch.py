"""What opens a key epoch: the call of the center, the prekeys of the edges, the roots of their pairs (SPEC 5.1-5.3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol import canonical
from protocol.errors import BadInputError, MalformedMessageError, PeerMisbehavedError
from protocol.identity import EdgeId, FederationId, Label, Roster, edge_id, open_document, sign_document
from protocol.sealing import PUBLIC_KEY_BYTES

DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochCall:
    """The center opens an epoch (SPEC 5.1).

    Attributes:
        epoch: strictly increasing over the life of a federation; an edge follows each number at most once.
        first_round: the round number that the ratchets begin at.
    """

    federation: FederationId
    epoch: int
    center_epoch: int
    roster_version: int
    first_round: int

    def to_json(self) -> dict[str, Any]:
        return _fields(self, _CALL)

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        return sign_document(Label.EPOCH, self.to_json(), key=key)

    @classmethod
    def open(cls, data: bytes, *, key: Ed25519PublicKey) -> Self:
        """Check the center's signature and decode.

        Raises:
            MalformedMessageError, BadSignatureError: no call, or not this center's.
        """
        value = _checked(open_document(Label.EPOCH, data, key=key), _CALL, "a call to an epoch")
        if min(value["epoch"], value["center_epoch"], value["roster_version"], value["first_round"]) < 1:
            raise MalformedMessageError("the numbers of a call to an epoch are positive")
        return cls(**value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prekey:
    """One edge's key for one epoch, signed by its identity (SPEC 5.2).

    Attributes:
        key: 1,216 bytes, HPKE public key (MLKEM768X25519).
    """

    federation: FederationId
    epoch: int
    roster_version: int
    edge: EdgeId
    key: bytes

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        return sign_document(Label.PREKEY, {**_fields(self, _PREKEY), "key": self.key.hex()}, key=key)

    @classmethod
    def open(cls, data: bytes, *, call: EpochCall, roster: Roster) -> Self:
        """Check and decode the prekey of a roster's member for this epoch and no other.

        Raises:
            MalformedMessageError, BadSignatureError: no prekey, or not signed by the edge that it names.
            NotAdmittedError: of an edge that the roster does not name.
            PeerMisbehavedError: of another epoch, federation or roster.
        """
        value = _checked(canonical.decode(data), {"content": dict, "signature": str}, "a prekey")["content"]
        edge = _edge(value.get("edge"))
        value = _checked(open_document(Label.PREKEY, data, key=roster.member(edge).identity_key()), _PREKEY, "a prekey")
        prekey = cls(**{**value, "edge": edge, "key": _hex(value["key"], PUBLIC_KEY_BYTES)})
        told = (prekey.federation, prekey.epoch, prekey.roster_version)
        if told != (call.federation, call.epoch, call.roster_version):
            raise PeerMisbehavedError(
                f"this prekey of {edge} is not of epoch {call.epoch} and roster {call.roster_version}"
            )
        return prekey


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRoot:
    """The root of a pair's ratchet, sealed by one edge to the other's prekey (SPEC 5.3).

    Attributes:
        prekey_sha256: 32 bytes, of the receiver's signed prekey.
        sealed: HPKE ciphertext of 32 bytes.
    """

    federation: FederationId
    epoch: int
    dealer: EdgeId
    receiver: EdgeId
    prekey_sha256: bytes
    sealed: bytes

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        content = {**_fields(self, _ROOT), "prekey_sha256": self.prekey_sha256.hex(), "sealed": self.sealed.hex()}
        return sign_document(Label.PAIR_ROOT, content, key=key)

    @classmethod
    def open(cls, data: bytes, *, roster: Roster) -> Self:
        """Check and decode.

        Raises:
            MalformedMessageError, BadSignatureError: no pair root, or not signed by its dealer.
            NotAdmittedError: the dealer is not in the roster.
        """
        value = _checked(canonical.decode(data), {"content": dict, "signature": str}, "a pair root")["content"]
        dealer = _edge(value.get("dealer"))
        value = _checked(
            open_document(Label.PAIR_ROOT, data, key=roster.member(dealer).identity_key()), _ROOT, "a pair root"
        )
        names = {"dealer": dealer, "receiver": _edge(value["receiver"])}
        raw = {"prekey_sha256": _hex(value["prekey_sha256"], DIGEST_BYTES), "sealed": _hex(value["sealed"])}
        return cls(**{**value, **names, **raw})

    @staticmethod
    def info(epoch: int, *, federation: FederationId, dealer: EdgeId, receiver: EdgeId) -> bytes:
        """What the seal is bound to."""
        return b"hanse/1 pair root\0" + canonical.encode([federation, epoch, dealer, receiver])


_CALL: dict[str, type] = {
    "federation": str,
    "epoch": int,
    "center_epoch": int,
    "roster_version": int,
    "first_round": int,
}
_PREKEY: dict[str, type] = {"federation": str, "epoch": int, "roster_version": int, "edge": str, "key": str}
_ROOT: dict[str, type] = {
    "federation": str,
    "epoch": int,
    "dealer": str,
    "receiver": str,
    "prekey_sha256": str,
    "sealed": str,
}


def _fields(document: object, names: Mapping[str, type]) -> dict[str, Any]:
    return {name: getattr(document, name) for name in names}


def _checked(value: Any, fields: Mapping[str, type], what: str) -> dict[str, Any]:
    """A JSON object with exactly these fields of these types.

    Raises:
        MalformedMessageError: anything else.
    """
    if not isinstance(value, dict) or set(value) != set(fields):
        raise MalformedMessageError(f"{what} has other fields")
    for name, kind in fields.items():
        if not isinstance(value[name], kind) or isinstance(value[name], bool):
            raise MalformedMessageError(f"{what} has a {name} of another type")
    return value


def _edge(name: Any) -> EdgeId:
    try:
        return edge_id(str(name))
    except BadInputError as error:
        raise MalformedMessageError(f"{name!r} names no edge") from error


def _hex(text: str, length: int | None = None) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError as error:
        raise MalformedMessageError("a key is written in hexadecimal") from error
    if text != data.hex() or (length is not None and len(data) != length):
        raise MalformedMessageError("a key is not written as we write it")
    return data
