"""What a release says of itself, and when an edge may install it (SPEC 9.1)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from protocol.errors import ExpiredReleaseError, MalformedMessageError, RollbackError, UntrustedReleaseError

_NAME = re.compile(r"(bundle|catalogue)/([1-9][0-9]{0,9})\.json")
_VERSION = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})(?:[.+-]?[a-z0-9.]+)?")


class Kind(StrEnum):
    """What a TUF target holds the manifest of."""

    BUNDLE = "bundle"
    CATALOGUE = "catalogue"


class Ring(StrEnum):
    """Who is offered a release first."""

    CANARY = "canary"
    EARLY = "early"
    ALL = "all"


def target_name(kind: Kind, version: int) -> str:
    """The TUF target of a release: ``bundle/7.json``."""
    return f"{kind}/{version}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What signed metadata say of one release.

    Attributes:
        version: counts up by one a release of this kind; a rollback is a new version that names the older files.
        submodels: which submodels the bundle holds; empty for a catalogue.
        epoch: the center's fencing token; an edge refuses a lower one than it has seen.
        minimum_edge: oldest edge software that can serve it, "major.minor.patch".
        evaluation: figures measured before signing.
        bytes: size of all files together.
    """

    kind: Kind
    version: int
    submodels: tuple[str, ...] = ()
    epoch: int = 1
    ring: Ring = Ring.ALL
    minimum_edge: str = "0.0.0"
    evaluation: Mapping[str, Any]
    bytes: int

    @property
    def target(self) -> str:
        return target_name(self.kind, self.version)

    def to_custom(self) -> dict[str, Any]:
        """The custom fields of its TUF target."""
        return {
            "kind": self.kind.value,
            "version": self.version,
            "submodels": list(self.submodels),
            "epoch": self.epoch,
            "ring": self.ring.value,
            "minimum_edge": self.minimum_edge,
            "evaluation": dict(self.evaluation),
            "bytes": self.bytes,
        }

    @classmethod
    def from_custom(cls, name: str, custom: Any) -> Self:
        """Read the custom fields of a TUF target.

        Raises:
            MalformedMessageError: they are not a release's, or belong to another target than `name`.
        """
        match custom:
            case {
                "kind": str(kind),
                "version": int(version),
                "submodels": list(submodels),
                "epoch": int(epoch),
                "ring": str(ring),
                "minimum_edge": str(minimum_edge),
                "evaluation": dict(evaluation),
                "bytes": int(size),
            } if all(isinstance(s, str) for s in submodels):
                pass
            case _:
                raise MalformedMessageError(f"target {name} does not say what release it is")
        try:
            offer = cls(
                kind=Kind(kind),
                version=version,
                submodels=tuple(submodels),
                epoch=epoch,
                ring=Ring(ring),
                minimum_edge=minimum_edge,
                evaluation=evaluation,
                bytes=size,
            )
        except ValueError as error:
            raise MalformedMessageError(f"target {name}: {error}") from error
        if offer.target != name or not is_release(name) or epoch < 0 or size < 0:
            raise MalformedMessageError(f"target {name} calls itself {offer.target}")
        return offer


def is_release(name: str) -> bool:
    """Is this TUF target a release? Other targets may stand beside them."""
    return _NAME.fullmatch(name) is not None


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
