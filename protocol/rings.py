"""Which sites are in which ring: a policy that the offline roster key signs (SPEC 9.8)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.errors import BadInputError, BadSignatureError, MalformedMessageError, RollbackError
from protocol.identity import EdgeId, FederationId, Label, edge_id, open_document, sign_document
from protocol.release import Ring


@dataclass(frozen=True, slots=True, kw_only=True)
class RingPolicy:
    """Who takes a release first. Sites that are not named are in ring `all`.

    Attributes:
        number: counts up by one; an edge never goes back to an older one.
        canary: sorted, each once.
        early: sorted, each once, none of them a canary.
    """

    federation: FederationId
    number: int
    canary: tuple[EdgeId, ...] = ()
    early: tuple[EdgeId, ...] = ()

    @classmethod
    def of(cls, federation: FederationId, number: int, *, canary: Iterable[EdgeId], early: Iterable[EdgeId]) -> Self:
        """A policy of these rings.

        Raises:
            BadInputError: a site is named twice.
        """
        first, second = list(canary), list(early)
        for site in [*first, *second]:
            if (first + second).count(site) > 1:
                raise BadInputError(f"site {site} is named twice", advice="a site is in one ring")
        return cls(federation=federation, number=number, canary=tuple(sorted(first)), early=tuple(sorted(second)))

    def ring_of(self, edge: EdgeId) -> Ring:
        if edge in self.canary:
            return Ring.CANARY
        return Ring.EARLY if edge in self.early else Ring.ALL

    def members(self, ring: Ring, sites: Iterable[EdgeId]) -> tuple[EdgeId, ...]:
        """Those of these sites that are in a ring, sorted."""
        return tuple(sorted(site for site in sites if self.ring_of(site) is ring))

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        content = {
            "federation": self.federation,
            "number": self.number,
            "canary": list(self.canary),
            "early": list(self.early),
        }
        return sign_document(Label.RINGS, content, key=key)

    @classmethod
    def open(cls, data: bytes, *, key: Ed25519PublicKey, federation: FederationId, known_number: int = 0) -> Self:
        """Check and decode a signed policy.

        Raises:
            MalformedMessageError: not such a document.
            BadSignatureError: not signed by the roster key, or made for another federation.
            RollbackError: older than the one this edge has accepted.
        """
        match open_document(Label.RINGS, data, key=key):
            case {
                "federation": str(name),
                "number": int(number),
                "canary": list(canary),
                "early": list(early),
                **rest,
            } if not rest and number > 0:
                pass
            case _:
                raise MalformedMessageError("not a policy of rings")
        if name != federation:
            raise BadSignatureError(f"this policy is for federation {name}, not for {federation}")
        if number < known_number:
            raise RollbackError(f"policy {number} is older than the known policy {known_number}")
        policy = cls(federation=federation, number=number, canary=_sites(canary), early=_sites(early))
        if len({*policy.canary, *policy.early}) != len(canary) + len(early):
            raise MalformedMessageError("a policy of rings names a site twice")
        return policy


def _sites(names: list[Any]) -> tuple[EdgeId, ...]:
    try:
        sites = tuple(edge_id(name) if isinstance(name, str) else edge_id("") for name in names)
    except BadInputError as error:
        raise MalformedMessageError(str(error)) from error
    if list(sites) != sorted(sites):
        raise MalformedMessageError("a ring lists its sites in order")
    return sites
