"""Who is who: edge ids, signed documents, the roster (SPEC 2).

Every signature is Ed25519 over ``label || 0x00 || body``: a signature given for one purpose means nothing for another.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NewType, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol import canonical
from protocol.errors import BadInputError, BadSignatureError, MalformedMessageError, NotAdmittedError, RollbackError

EdgeId = NewType("EdgeId", str)
FederationId = NewType("FederationId", str)

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SIGNATURE_BYTES = 64


class Label(StrEnum):
    """What a signature is given for. One place, so that no two purposes share a label (SPEC 2.1)."""

    ROSTER = "hanse/1 roster"
    ANNOUNCEMENT = "hanse/1 round announcement"
    MASKED_UPDATE = "hanse/1 masked update"
    CONTENT_KEY = "hanse/1 content key"
    WAKE = "hanse/1 wake"


def edge_id(text: str) -> EdgeId:
    """Check a site name: lower-case letters, digits and hyphens, at most 63, not beginning with a hyphen.

    Raises:
        BadInputError: anything else.
    """
    if not _SLUG.fullmatch(text):
        raise BadInputError(f"{text!r} is not a site name", advice="use a-z, 0-9 and '-', at most 63 characters")
    return EdgeId(text)


def federation_id(text: str) -> FederationId:
    """Check a federation's name; the same form as a site's.

    Raises:
        BadInputError: anything else.
    """
    return FederationId(edge_id(text))


def sign(label: Label, body: bytes, *, key: Ed25519PrivateKey) -> bytes:
    """64 bytes over ``label || 0x00 || body``."""
    return key.sign(label.encode() + b"\0" + body)


def check(label: Label, body: bytes, signature: bytes, *, key: Ed25519PublicKey) -> None:
    """Check one signature.

    Raises:
        BadSignatureError: it is not this key's, or was given for something else.
    """
    try:
        key.verify(signature, label.encode() + b"\0" + body)
    except InvalidSignature as error:
        raise BadSignatureError(f"the signature on this {label.value.removeprefix('hanse/1 ')} is wrong") from error


def sign_document(label: Label, content: Any, *, key: Ed25519PrivateKey) -> bytes:
    """A signed document: canonical JSON ``{"content": ..., "signature": hex}`` (SPEC 2.2)."""
    signature = sign(label, canonical.encode(content), key=key)
    return canonical.encode({"content": content, "signature": signature.hex()})


def open_document(label: Label, data: bytes, *, key: Ed25519PublicKey) -> Any:
    """The content of a signed document.

    Raises:
        MalformedMessageError: these bytes are no signed document.
        BadSignatureError: the signature is wrong.
    """
    document = canonical.decode(data)
    match document:
        case {"content": content, "signature": str(signature), **rest} if not rest:
            pass
        case _:
            raise MalformedMessageError("not a signed document")
    try:
        raw = bytes.fromhex(signature)
    except ValueError as error:
        raise MalformedMessageError("a signature is written in hexadecimal") from error
    if len(raw) != _SIGNATURE_BYTES:
        raise MalformedMessageError(f"a signature has {_SIGNATURE_BYTES} bytes, not {len(raw)}")
    check(label, canonical.encode(content), raw, key=key)
    return content


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One admitted site and its public keys.

    Attributes:
        edge: the site's name.
        identity: 32 bytes, Ed25519: signs what the edge says.
        mask: 32 bytes, X25519: agrees on masks with the other edges.
        seal: HPKE public key (MLKEM768X25519) that content keys are sealed to.
        node: DER of the EC P-384 key that the Flower node authenticates with.
    """

    edge: EdgeId
    identity: bytes
    mask: bytes
    seal: bytes
    node: bytes

    def to_json(self) -> dict[str, str]:
        return {
            "edge": self.edge,
            "identity": self.identity.hex(),
            "mask": self.mask.hex(),
            "seal": self.seal.hex(),
            "node": self.node.hex(),
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Decode one member.

        Raises:
            MalformedMessageError: a field is missing, unknown, or no hexadecimal.
        """
        if not isinstance(value, dict) or set(value) != {"edge", "identity", "mask", "seal", "node"}:
            raise MalformedMessageError("a member has exactly the fields edge, identity, mask, seal and node")
        try:
            keys = {name: bytes.fromhex(value[name]) for name in ("identity", "mask", "seal", "node")}
            return cls(edge=edge_id(value["edge"]), **keys)
        except (TypeError, ValueError, BadInputError) as error:
            raise MalformedMessageError(f"a member of the roster cannot be read: {error}") from error

    def identity_key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.identity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """The list of admitted sites, signed offline (SPEC 2.3).

    Attributes:
        version: counts up by one; an edge never goes back to an older one.
        members: sorted by edge id, each once.
    """

    federation: FederationId
    version: int
    members: tuple[Member, ...]

    @classmethod
    def of(cls, federation: FederationId, version: int, members: Iterable[Member]) -> Self:
        return cls(federation=federation, version=version, members=tuple(sorted(members, key=lambda m: m.edge)))

    def member(self, edge: EdgeId) -> Member:
        """Look one site up.

        Raises:
            NotAdmittedError: it is not in the roster.
        """
        for member in self.members:
            if member.edge == edge:
                return member
        raise NotAdmittedError(f"{edge} is not in roster {self.version}")

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        content = {
            "federation": self.federation,
            "version": self.version,
            "members": [member.to_json() for member in self.members],
        }
        return sign_document(Label.ROSTER, content, key=key)

    @classmethod
    def open(cls, data: bytes, *, key: Ed25519PublicKey, federation: FederationId, known_version: int = 0) -> Self:
        """Check and decode a signed roster.

        Raises:
            MalformedMessageError: not a roster.
            BadSignatureError: not signed by the offline roster key.
            RollbackError: older than one this edge has already accepted.
        """
        content = open_document(Label.ROSTER, data, key=key)
        match content:
            case {"federation": str(name), "version": int(version), "members": list(rows), **rest} if not rest:
                members = tuple(Member.from_json(row) for row in rows)
            case _:
                raise MalformedMessageError("not a roster")
        if name != federation:
            raise BadSignatureError(f"this roster is of federation {name}, not {federation}")
        if [m.edge for m in members] != sorted({m.edge for m in members}):
            raise MalformedMessageError("the members of a roster stand sorted, each once")
        if version < known_version:
            raise RollbackError(f"roster {version} is older than the accepted roster {known_version}")
        return cls(federation=federation, version=version, members=members)
