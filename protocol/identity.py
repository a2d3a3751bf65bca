"""Who is who: edge ids, signed documents, the roster (SPEC 2).

Every signature is Ed25519 over ``label || 0x00 || body``: a signature given for one purpose means nothing for another.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NewType, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol import canonical, cohort
from protocol.errors import BadInputError, BadSignatureError, MalformedMessageError, NotAdmittedError, RollbackError

EdgeId = NewType("EdgeId", str)
FederationId = NewType("FederationId", str)

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SIGNATURE_BYTES = 64
_IDENTITY_BYTES = 32


class Label(StrEnum):
    """What a signature is given for. One place, so that no two purposes share a label (SPEC 2.1)."""

    ROSTER = "hanse/1 roster"
    EPOCH = "hanse/1 key epoch"
    PREKEY = "hanse/1 prekey"
    PAIR_ROOT = "hanse/1 pair root"
    ANNOUNCEMENT = "hanse/1 round announcement"
    MASKED_UPDATE = "hanse/1 masked update"
    SURVIVORS = "hanse/1 survivors"
    SURVIVOR_SIGNATURE = "hanse/1 survivor signature"
    UNMASKING = "hanse/1 unmasking"
    ABANDONMENT = "hanse/1 abandonment"
    CONTENT_KEY = "hanse/1 content key"
    WAKE = "hanse/1 wake"
    RENEWAL = "hanse/1 renewal"
    RINGS = "hanse/1 rings"


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
    if raw.hex() != signature or len(raw) != _SIGNATURE_BYTES:
        raise MalformedMessageError(f"a signature is {_SIGNATURE_BYTES} bytes in lower-case hexadecimal")
    check(label, canonical.encode(content), raw, key=key)
    return content


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One admitted site and its public keys.

    Attributes:
        edge: the site's name.
        identity: 32 bytes, Ed25519: signs what the edge says.
        seal: HPKE public key (MLKEM768X25519) that content keys are sealed to.
        node: DER of the EC P-384 key that the Flower node authenticates with.
    """

    edge: EdgeId
    identity: bytes
    seal: bytes
    node: bytes

    def to_json(self) -> dict[str, str]:
        return {
            "edge": self.edge,
            "identity": self.identity.hex(),
            "seal": self.seal.hex(),
            "node": self.node.hex(),
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Decode one member.

        Raises:
            MalformedMessageError: a field is missing, unknown, or no hexadecimal.
        """
        if not isinstance(value, dict) or set(value) != {"edge", "identity", "seal", "node"}:
            raise MalformedMessageError("a member has exactly the fields edge, identity, seal and node")
        try:
            keys = {name: bytes.fromhex(value[name]) for name in ("identity", "seal", "node")}
            member = cls(edge=edge_id(value["edge"]), **keys)
        except (TypeError, ValueError, BadInputError) as error:
            raise MalformedMessageError(f"a member of the roster cannot be read: {error}") from error
        if member.to_json() != value or len(member.identity) != _IDENTITY_BYTES:
            raise MalformedMessageError(f"the keys of {member.edge} are not written as we write them")
        return member

    def identity_key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.identity)


Group = tuple[EdgeId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """The list of admitted sites and who is summed with whom, signed offline (SPEC 2.3).

    Attributes:
        version: counts up by one; an edge never goes back to an older one.
        members: sorted by edge id, each once.
        groups: every member in one of them, each sorted; a cohort never reaches beyond its group.
        robust: whether the center sees the sum of each group, to trim outliers; sites opt in.
    """

    federation: FederationId
    version: int
    members: tuple[Member, ...]
    groups: tuple[Group, ...]
    robust: bool = False

    @classmethod
    def of(
        cls,
        federation: FederationId,
        version: int,
        members: Iterable[Member],
        *,
        groups: Iterable[Iterable[EdgeId]] | None = None,
    ) -> Self:
        """A roster; without ``groups`` its members are cut into as few equal cohorts as their number demands.

        Raises:
            BadInputError: the groups do not hold every member once, or are too few or too small to be robust.
        """
        listed = tuple(sorted(members, key=lambda member: member.edge))
        names = [member.edge for member in listed]
        cut = _cut(names) if groups is None else tuple(sorted(tuple(sorted(group)) for group in groups))
        try:
            _check_groups(cut, names=names, robust=groups is not None)
        except MalformedMessageError as error:
            raise BadInputError(str(error)) from error
        return cls(federation=federation, version=version, members=listed, groups=cut, robust=groups is not None)

    def member(self, edge: EdgeId) -> Member:
        """Look one site up.

        Raises:
            NotAdmittedError: it is not in the roster.
        """
        place = bisect_left(self.members, edge, key=lambda member: member.edge)
        if place < len(self.members) and self.members[place].edge == edge:
            return self.members[place]
        raise NotAdmittedError(f"{edge} is not in roster {self.version}")

    def group_of(self, edge: EdgeId) -> Group:
        """All that this site may be summed with, itself among them.

        Raises:
            NotAdmittedError: it is not in the roster.
        """
        for group in self.groups:
            if edge in group:
                return group
        raise NotAdmittedError(f"{edge} is not in roster {self.version}")

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        content = {
            "federation": self.federation,
            "version": self.version,
            "members": [member.to_json() for member in self.members],
            "groups": [list(group) for group in self.groups],
            "robust": self.robust,
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
        match open_document(Label.ROSTER, data, key=key):
            case {
                "federation": str(name),
                "version": int(version),
                "members": list(rows),
                "groups": list(cut),
                "robust": bool(robust),
                **rest,
            } if not rest and not isinstance(version, bool):
                members = tuple(Member.from_json(row) for row in rows)
                groups = tuple(_group(names) for names in cut)
            case _:
                raise MalformedMessageError("not a roster")
        if name != federation:
            raise BadSignatureError(f"this roster is of federation {name}, not {federation}")
        names = [member.edge for member in members]
        if names != sorted(set(names)):
            raise MalformedMessageError("the members of a roster stand sorted, each once")
        _check_groups(groups, names=names, robust=robust)
        if version < known_version:
            raise RollbackError(f"roster {version} is older than the accepted roster {known_version}")
        return cls(federation=federation, version=version, members=members, groups=groups, robust=robust)


def _cut(names: list[EdgeId]) -> tuple[Group, ...]:
    parts = -(-len(names) // cohort.LARGEST)
    return tuple(tuple(names[part::parts]) for part in range(parts))


def _group(names: Any) -> Group:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise MalformedMessageError("a group of a roster is a list of sites")
    return tuple(EdgeId(name) for name in names)


def _check_groups(groups: tuple[Group, ...], *, names: list[EdgeId], robust: bool) -> None:
    if list(groups) != sorted(groups) or any(list(group) != sorted(group) for group in groups):
        raise MalformedMessageError("the groups of a roster stand sorted")
    if sorted(name for group in groups for name in group) != names:
        raise MalformedMessageError("the groups of a roster hold every member once")
    if any(len(group) > cohort.LARGEST for group in groups):
        raise MalformedMessageError(f"a group has at most {cohort.LARGEST} sites")
    if robust and len(groups) < cohort.FEWEST_GROUPS:
        raise MalformedMessageError(f"robust aggregation needs at least {cohort.FEWEST_GROUPS} groups")
    if robust and any(len(group) < cohort.SMALLEST_GROUP for group in groups):
        raise MalformedMessageError(f"a group of a robust aggregation has at least {cohort.SMALLEST_GROUP} sites")
