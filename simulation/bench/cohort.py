"""An honest cohort by arithmetic: no sockets, no disks, and pair secrets out of a hash instead of an epoch."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from protocol import lessons, round_keys
from protocol.announcement import Announcement, Purpose
from protocol.cohort import threshold
from protocol.fixed_point import words_of
from protocol.identity import EdgeId, FederationId, Member, Roster
from protocol.masked_update import EdgeRound, Values
from protocol.masking import Sign, apply_masks
from protocol.messages import Survivors
from protocol.secret_sharing import SHARE_BYTES, split
from protocol.secure_sum import Phase, Round
from protocol.unmasking import Dealing

_FEDERATION = FederationId("bench")
_NO_SEALS = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """So many edges that are asked to sum so many parameters."""

    roster: Roster
    announcement: Announcement
    identity_keys: Mapping[EdgeId, Ed25519PrivateKey]

    @classmethod
    def of(cls, edges: int, *, parameters: int, bits: int = 32) -> Self:
        names = [EdgeId(f"edge-{number:03}") for number in range(edges)]
        keys = {name: Ed25519PrivateKey.generate() for name in names}
        members = [
            Member(edge=name, identity=key.public_key().public_bytes_raw(), seal=b"", node=b"")
            for name, key in keys.items()
        ]
        announcement = Announcement(
            federation=_FEDERATION,
            campaign="bench",
            round=1,
            key_epoch=1,
            roster_version=1,
            center_epoch=1,
            cohort=tuple(names),
            prekeys=tuple(sha256(name.encode()).digest() for name in names),
            purpose=Purpose.TRAIN,
            submodel="recommend",
            weights_sha256=bytes(32),
            window=0,
            layout=lessons.training_layout(parameters, coordinate_clip=1.0, word_bits=bits),
            clip=100.0,
            coordinate_clip=1.0,
            weight_cap=1,
            deadline_ms=1 << 50,
        )
        roster = Roster.of(_FEDERATION, 1, members)
        return cls(roster=roster, announcement=announcement, identity_keys=MappingProxyType(keys))

    @property
    def first(self) -> EdgeId:
        return self.announcement.cohort[0]

    def values(self) -> Values:
        """What one edge has to say."""
        parameters = self.announcement.layout[0].length
        update = np.random.default_rng(0).uniform(-0.5, 0.5, parameters).astype(np.float32)
        return {"update": update, "weight": 1.0, "loss": 1.0, "ndcg": 0.1, "recall": 0.1}

    def masked_update(self, edge: EdgeId, values: Values) -> bytes:
        """What an edge sends."""
        turn = EdgeRound(me=edge, announcement=self.announcement)
        _, answer = turn.mask(
            values,
            secrets={other: self._pair_secret(edge, other) for other in self.announcement.cohort if other != edge},
            identity_key=self.identity_keys[edge],
            entropy=os.urandom(32),
        )
        return answer

    def about_to_open(self, *, dropped: int) -> Round:
        """A round at the center that has everything it needs to take the masks off; the first edges have dropped out.

        Every encoded value is zero, so what is left once the masks are off must be zero, too.
        """
        asked = self.announcement
        survivors = Survivors(announcement=asked.digest(), edges=asked.cohort[dropped:])
        shares: dict[EdgeId, list[bytes]] = {edge: [] for edge in survivors.edges[: threshold(asked.edges)]}
        places = {edge: place for place, edge in enumerate(asked.cohort)}
        masks = []
        for dealer, of in _to_rebuild(survivors, asked):
            seed = self._seed(dealer, of)
            masks.append((seed, Sign.ADD if dealer <= of else Sign.SUBTRACT))
            dealt = self._shares(seed)
            for edge, mine in shares.items():
                mine.append(dealt[places[edge]])
        return Round(
            announcement=asked,
            roster=self.roster,
            total=self._masked_zeros(masks),
            phase=Phase.UNMASKING,
            dealings={edge: self._dealing(edge) for edge in survivors.edges},
            survivors=survivors,
            unmaskings={edge: tuple(mine) for edge, mine in shares.items()},
        )

    def _pair_secret(self, edge: EdgeId, other: EdgeId) -> bytes:
        return sha256("|".join(sorted((edge, other))).encode()).digest()

    def _seed(self, dealer: EdgeId, of: EdgeId) -> bytes:
        secret = self._pair_secret(dealer, of)
        return round_keys.mask_seed(secret, announcement=self.announcement.digest())

    def _shares(self, seed: bytes) -> list[bytes]:
        """Shares on a straight line: it is one of the polynomials, cheap to evaluate, and costs the same to open."""
        n = self.announcement.edges
        t = threshold(n)
        line = os.urandom(SHARE_BYTES).ljust(SHARE_BYTES * (t - 1), b"\0")
        return split(seed, threshold=t, shares=n, coefficients=line)

    def _masked_zeros(self, masks: list[tuple[bytes, Sign]]) -> NDArray[np.uint32]:
        total = np.zeros(words_of(self.announcement.layout), dtype=np.uint32)
        apply_masks(total, masks)
        return total

    def _dealing(self, dealer: EdgeId) -> Dealing:
        digest = self.announcement.digest()
        commitments = tuple(
            round_keys.commitment(self._seed(dealer, of), announcement=digest, edges=tuple(sorted({dealer, of})))
            for of in self.announcement.cohort
        )
        return Dealing(commitments=commitments, sealed=_NO_SEALS)


def _to_rebuild(survivors: Survivors, asked: Announcement) -> Iterator[tuple[EdgeId, EdgeId]]:
    """Whose masks, and with whom: in the order of `Unmasking`."""
    gone = [edge for edge in asked.cohort if edge not in survivors.edges]
    return ((dealer, of) for dealer in survivors.edges for of in (dealer, *gone))
