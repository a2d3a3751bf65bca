"""The same round as an edge sees it: a state machine that never waits (SPEC 7).

    ANNOUNCED ──mask──▶ MASKED

What this site refuses beyond the protocol (cohort too small, clip too wide) is its own policy and stands in `edge`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from protocol.errors import OutOfTurnError, PeerMisbehavedError
from protocol.fixed_point import encode
from protocol.identity import EdgeId, Roster
from protocol.masking import Sign, apply_mask, pairwise_seed
from protocol.messages import Announcement, MaskedUpdate

SMALLEST_COHORT = 3
"""With two, each would learn the other's update by taking away its own (SPEC 7.2)."""


class Phase(Enum):
    """Where an edge stands in a round."""

    ANNOUNCED = "announced"
    MASKED = "masked"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EdgeRound:
    """One round at one edge. Every step returns a new value; a refused step changes nothing."""

    me: EdgeId
    announcement: Announcement
    roster: Roster
    phase: Phase = Phase.ANNOUNCED

    @classmethod
    def accept(
        cls,
        data: bytes,
        *,
        me: EdgeId,
        roster: Roster,
        center: Ed25519PublicKey,
        last_round: int,
        last_epoch: int,
        now_ms: int,
    ) -> Self:
        """Check an announcement before anything is computed for it (SPEC 7.1).

        Args:
            data: the signed announcement.
            me: this edge.
            roster: the newest roster this edge has accepted.
            center: the center's online key, pinned when the edge joined.
            last_round: the highest round number this edge has ever answered.
            last_epoch: the highest center epoch it has seen.
            now_ms: UTC.

        Raises:
            MalformedMessageError, BadSignatureError: not an announcement of this center.
            PeerMisbehavedError: replayed, expired, of another federation or roster, or without this edge.
            NotAdmittedError: the cohort names an edge that the roster does not.
        """
        announcement = Announcement.open(data, key=center)
        if announcement.federation != roster.federation:
            raise PeerMisbehavedError(f"round of federation {announcement.federation}, not {roster.federation}")
        if announcement.roster_version != roster.version:
            raise PeerMisbehavedError(f"round on roster {announcement.roster_version}, this edge has {roster.version}")
        if announcement.center_epoch < last_epoch:
            raise PeerMisbehavedError(f"center epoch {announcement.center_epoch} is over, {last_epoch} leads now")
        if announcement.round <= last_round:
            raise PeerMisbehavedError(f"round {announcement.round} is not newer than answered round {last_round}")
        if now_ms > announcement.deadline_ms:
            raise PeerMisbehavedError(f"the deadline of round {announcement.round} has passed")
        if me not in announcement.cohort:
            raise PeerMisbehavedError(f"{me} is not in round {announcement.round}")
        if len(announcement.cohort) < SMALLEST_COHORT:
            raise PeerMisbehavedError(f"a cohort of {len(announcement.cohort)} would show one site to another")
        for edge in announcement.cohort:
            roster.member(edge)
        return cls(me=me, announcement=announcement, roster=roster)

    def mask(
        self,
        values: Mapping[str, NDArray[np.float32] | float],
        *,
        mask_key: X25519PrivateKey,
        identity_key: Ed25519PrivateKey,
    ) -> tuple[Self, bytes]:
        """Encode, mask and sign this edge's contribution (SPEC 7.3).

        Args:
            values: float[length] for each segment of the announced layout, within its bound.
            mask_key: the X25519 key of this edge that the roster names.
            identity_key: the Ed25519 key of this edge that the roster names.

        Returns:
            The round in its next phase, and the bytes of the `MaskedUpdate`.

        Raises:
            OutOfTurnError: masked before: a second vector under the same masks would show their difference.
            ValueError: a value is missing, not finite or beyond its bound.
        """
        if self.phase is not Phase.ANNOUNCED:
            raise OutOfTurnError(f"round {self.announcement.round} has been answered")
        words = encode(values, layout=self.announcement.layout, edges=len(self.announcement.cohort))
        digest = self.announcement.digest()
        for peer in self.announcement.cohort:
            if peer != self.me:
                seed = pairwise_seed(mask_key, self.roster.member(peer).mask, announcement=digest)
                apply_mask(words, seed, Sign.ADD if self.me < peer else Sign.SUBTRACT)
        update = MaskedUpdate.signed(announcement=digest, edge=self.me, words=words, key=identity_key)
        return replace(self, phase=Phase.MASKED), update.to_bytes()
