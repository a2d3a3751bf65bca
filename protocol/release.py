"""What a release says of itself, whom it is offered to, and when an edge may install it (SPEC 9.1, 9.7-9.9).

A target's name is its place and its number: ``canary/8.json``. The place says which keys must have signed it and who
takes it, so that a stolen online key reaches no further than its places.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256 as _sha256
from types import MappingProxyType
from typing import Any, Self

from protocol.errors import ExpiredReleaseError, MalformedMessageError, RollbackError, UntrustedReleaseError
from protocol.identity import EdgeId

WHOLE_QUEUE = 10_000
"""The reach of a pace that lets everybody in."""

_NAME = re.compile(r"([a-z]+)/([1-9][0-9]{0,9})\.json")
_VERSION = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})(?:[.+-]?[a-z0-9.]+)?")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Kind(StrEnum):
    """What an edge can hold installed."""

    BUNDLE = "bundle"
    CATALOGUE = "catalogue"


class Ring(StrEnum):
    """Who is offered a release first; each ring also takes what is offered to the later ones."""

    CANARY = "canary"
    EARLY = "early"
    ALL = "all"


class Place(StrEnum):
    """Where a target stands, the first part of its name."""

    CANDIDATE = "candidate"
    """A bundle that is to be measured, never served."""
    CANARY = "canary"
    EARLY = "early"
    ALL = "all"
    CATALOGUE = "catalogue"
    ROSTER = "roster"
    POLICY = "policy"
    PACE = "pace"
    """How far a release at place `all` has come in the queue of that ring."""


ROLES: Mapping[str, tuple[Place, ...]] = MappingProxyType(
    {
        "releases": (Place.CANDIDATE, Place.CANARY, Place.CATALOGUE, Place.PACE),
        "wide": (Place.EARLY, Place.ALL),
        "membership": (Place.ROSTER, Place.POLICY),
    }
)
"""Delegated TUF roles and the places they may sign for."""

RELEASED: Mapping[Ring, frozenset[Place]] = MappingProxyType(
    {
        Ring.CANARY: frozenset({Place.CANARY, Place.EARLY, Place.ALL}),
        Ring.EARLY: frozenset({Place.EARLY, Place.ALL}),
        Ring.ALL: frozenset({Place.ALL}),
    }
)
"""From which places each ring takes its releases."""

_HOLDING_FILES = frozenset({Place.CANDIDATE, Place.CANARY, Place.EARLY, Place.ALL, Place.CATALOGUE})


def target_name(place: Place, number: int) -> str:
    """The name of a TUF target: ``canary/8.json``."""
    return f"{place}/{number}.json"


def parse_target(name: str) -> tuple[Place, int]:
    """Place and number of a TUF target.

    Raises:
        MalformedMessageError: not a name that `target_name` makes.
    """
    found = _NAME.fullmatch(name)
    if found is None or found[1] not in set(Place):
        raise MalformedMessageError(f"{name!r} is not the name of a target")
    return Place(found[1]), int(found[2])


def is_target(name: str) -> bool:
    """Is this one of our targets? Others may stand beside them."""
    found = _NAME.fullmatch(name)
    return found is not None and found[1] in set(Place)


def role_of(place: Place) -> str:
    """The delegated TUF role that signs for a place."""
    return next(role for role, places in ROLES.items() if place in places)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What signed metadata say of one release, or of a candidate for one.

    Attributes:
        version: the number in its target's name. It counts up by one over all places of bundles; a rollback is a new
            version that names the older files.
        sha256: the bundle's digest (`Manifest.bundle_digest`), hexadecimal: who holds these files need not fetch them.
        bytes: size of all files together.
        submodels: which submodels the bundle holds; empty for a catalogue.
        epoch: the center's fencing token; an edge refuses a lower one than it has seen.
        minimum_edge: oldest edge software that can serve it, "major.minor.patch".
        evaluation: figures measured before signing, as text: TUF's JSON has no fractions.
        audit: head of the center's audit chain when it was signed, hexadecimal; empty: not told.
    """

    place: Place
    version: int
    sha256: str
    bytes: int
    submodels: tuple[str, ...] = ()
    epoch: int = 1
    minimum_edge: str = "0.0.0"
    evaluation: Mapping[str, Any]
    audit: str = ""

    @property
    def kind(self) -> Kind:
        return Kind.CATALOGUE if self.place is Place.CATALOGUE else Kind.BUNDLE

    @property
    def target(self) -> str:
        return target_name(self.place, self.version)

    def to_custom(self) -> dict[str, Any]:
        """The custom fields of its TUF target."""
        return {
            "sha256": self.sha256,
            "bytes": self.bytes,
            "submodels": list(self.submodels),
            "epoch": self.epoch,
            "minimum_edge": self.minimum_edge,
            "evaluation": dict(self.evaluation),
            "audit": self.audit,
        }

    @classmethod
    def from_custom(cls, name: str, custom: Any) -> Self:
        """Read the custom fields of a TUF target.

        Raises:
            MalformedMessageError: they are not a release's, or `name` is no place for one.
        """
        place, version = parse_target(name)
        match custom:
            case {
                "sha256": str(sha256),
                "bytes": int(size),
                "submodels": list(submodels),
                "epoch": int(epoch),
                "minimum_edge": str(minimum_edge),
                "evaluation": dict(evaluation),
                "audit": str(audit),
            } if all(isinstance(submodel, str) for submodel in submodels):
                pass
            case _:
                raise MalformedMessageError(f"target {name} does not say what release it is")
        if place not in _HOLDING_FILES:
            raise MalformedMessageError(f"target {name} is no place for a release")
        if not _DIGEST.fullmatch(sha256) or not (audit == "" or _DIGEST.fullmatch(audit)):
            raise MalformedMessageError(f"target {name} holds a digest that is none")
        if isinstance(size, bool) or isinstance(epoch, bool) or epoch < 0 or size < 0:
            raise MalformedMessageError(f"target {name} counts below zero")
        _ordered(minimum_edge)
        return cls(
            place=place,
            version=version,
            sha256=sha256,
            bytes=size,
            submodels=tuple(submodels),
            epoch=epoch,
            minimum_edge=minimum_edge,
            evaluation=evaluation,
            audit=audit,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How far a release has come in the queue of ring `all` (SPEC 9.9).

    Attributes:
        reach: places of the queue that may install it, 0 to 10,000.
    """

    version: int
    reach: int

    @property
    def target(self) -> str:
        return target_name(Place.PACE, self.version)

    def to_custom(self) -> dict[str, int]:
        """The custom fields of its TUF target."""
        return {"reach": self.reach}

    @classmethod
    def from_custom(cls, name: str, custom: Any) -> Self:
        """Read the custom fields of a TUF target.

        Raises:
            MalformedMessageError: they are not a pace's.
        """
        place, version = parse_target(name)
        match custom:
            case {"reach": int(reach)} if place is Place.PACE and type(reach) is int and 0 <= reach <= WHOLE_QUEUE:
                return cls(version=version, reach=reach)
            case _:
                raise MalformedMessageError(f"target {name} is not the pace of a release")


def queue_place(edge: EdgeId, sha256: str) -> int:
    """An edge's place in the queue for one bundle, 0 to 9,999; drawn anew for each, so that nobody is always first."""
    drawn = _sha256(f"hanse/1 queue\0{sha256}\0{edge}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") * WHOLE_QUEUE >> 64


def offered_to(offers: Iterable[Offer], *, ring: Ring, edge: EdgeId, reach: Mapping[int, int]) -> Offer | None:
    """The newest bundle that an edge may take now.

    Args:
        offers: all that verified metadata list; other places than those of bundles are passed over.
        reach: of each version at place `all`; one that is missing reaches nobody.
    """

    def is_open(offer: Offer) -> bool:
        if offer.place not in RELEASED[ring]:
            return False
        waits = ring is Ring.ALL and offer.place is Place.ALL
        return not waits or queue_place(edge, offer.sha256) < reach.get(offer.version, 0)

    return max((offer for offer in offers if is_open(offer)), key=lambda offer: offer.version, default=None)


def check_installable(
    offered: Offer,
    *,
    installed_version: int,
    center_epoch_seen: int,
    edge_version: str,
    expires: datetime,
    now: datetime,
) -> None:
    """May this release be installed now? The signatures have been checked already.

    Args:
        installed_version: version of the committed release of this kind, 0 before the first.
        center_epoch_seen: highest epoch of any release this edge has committed.
        edge_version: version of the edge's own software.
        expires: UTC, when the metadata that offered it stop being believed.
        now: UTC.

    Raises:
        RollbackError: not newer than what is installed, or signed by a center that has been replaced.
        ExpiredReleaseError: the metadata are too old.
        UntrustedReleaseError: it needs newer edge software.
    """
    if offered.epoch < center_epoch_seen:
        raise RollbackError(
            f"{offered.target} comes from center epoch {offered.epoch}, epoch {center_epoch_seen} rules"
        )
    if offered.version <= installed_version:
        raise RollbackError(f"{offered.kind} {offered.version} is not newer than installed {installed_version}")
    if now >= expires:
        raise ExpiredReleaseError(f"the metadata that offer {offered.target} expired on {expires:%Y-%m-%d %H:%M} UTC")
    if _ordered(edge_version) < _ordered(offered.minimum_edge):
        raise UntrustedReleaseError(
            f"{offered.target} needs edge software {offered.minimum_edge}, this is {edge_version}",
            advice="update hanse on this machine",
        )


def _ordered(version: str) -> tuple[int, ...]:
    found = _VERSION.fullmatch(version)
    if found is None:
        raise MalformedMessageError(f"{version!r} is not a version")
    return tuple(int(part) for part in found.groups())
