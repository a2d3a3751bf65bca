"""One aggregation round as the center sees it: a state machine that never waits (SPEC 6).

    ANNOUNCED ──every edge answered──▶ SUMMED
        └──closed with an edge missing──▶ TooFewSurvivorsError

Pairwise masks alone vanish only when the whole cohort has answered, so the threshold of this version is the cohort.
Every step returns a new value; a refused step changes nothing. The caller owns clock, sockets and deadline.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from hashlib import sha256
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from protocol.errors import OutOfTurnError, PeerMisbehavedError, TooFewSurvivorsError
from protocol.fixed_point import decode, words_of
from protocol.identity import EdgeId, Roster
from protocol.messages import Announcement, MaskedUpdate


class Phase(Enum):
    """Where a round stands."""

    ANNOUNCED = "announced"
    SUMMED = "summed"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Round:
    """One round at the center.

    Attributes:
        heard: SHA-256 of each answer taken so far, to tell an echo from a changed answer.
        total: uint32[d], the sum modulo 2**32 of the answers taken; masked until the last one is in.
    """

    announcement: Announcement
    roster: Roster
    total: NDArray[np.uint32]
    phase: Phase = Phase.ANNOUNCED
    heard: Mapping[EdgeId, bytes] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def announce(cls, announcement: Announcement, *, roster: Roster) -> Self:
        """Begin a round.

        Raises:
            NotAdmittedError: the cohort names an edge that the roster does not.
        """
        for edge in announcement.cohort:
            roster.member(edge)
        return cls(
            announcement=announcement,
            roster=roster,
            total=np.zeros(words_of(announcement.layout), dtype=np.uint32),
        )

    def receive(self, sender: EdgeId, answer: bytes) -> Self:
        """Take one answer. The transport may deliver twice: an echo is fine, a changed answer is not (SPEC 6.2).

        Raises:
            PeerMisbehavedError: not of this cohort, another edge's name, another round or length, or a changed answer.
            MalformedMessageError: not a masked update at all.
            BadSignatureError: not signed by the edge that it names.
        """
        if self.phase is not Phase.ANNOUNCED:
            return self  # late: this round is closed
        if sender not in self.announcement.cohort:
            raise PeerMisbehavedError(f"{sender} is not in round {self.announcement.round}")
        digest = sha256(answer).digest()
        if sender in self.heard:
            if self.heard[sender] != digest:
                raise PeerMisbehavedError(f"{sender} changed its masked update")
            return self
        update = MaskedUpdate.from_bytes(answer)
        if update.edge != sender:
            raise PeerMisbehavedError(f"{sender} answered in the name of {update.edge}")
        if update.announcement != self.announcement.digest():
            raise PeerMisbehavedError(f"{sender} answered another announcement")
        if len(update.words) != len(self.total):
            raise PeerMisbehavedError(f"{sender} sent {len(update.words)} words, not {len(self.total)}")
        update.check(self.roster.member(sender).identity_key())
        return replace(self, total=self.total + update.words, heard=MappingProxyType({**self.heard, sender: digest}))

    @property
    def missing(self) -> tuple[EdgeId, ...]:
        """Who has not answered yet."""
        return tuple(edge for edge in self.announcement.cohort if edge not in self.heard)

    def close(self) -> Self:
        """Stop taking answers; the masks have vanished from the total.

        Raises:
            OutOfTurnError: closed before.
            TooFewSurvivorsError: an edge is missing, so the total is still masked and worth nothing.
        """
        if self.phase is not Phase.ANNOUNCED:
            raise OutOfTurnError(f"round {self.announcement.round} is closed")
        if self.missing:
            raise TooFewSurvivorsError(
                f"round {self.announcement.round}: no masked update from {', '.join(self.missing)}",
                missing=self.missing,
                advice="the next round runs without it",
            )
        return replace(self, phase=Phase.SUMMED)

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """The sums over the cohort, one array a segment of the layout.

        Raises:
            OutOfTurnError: the round is not closed.
        """
        if self.phase is not Phase.SUMMED:
            raise OutOfTurnError(f"round {self.announcement.round} is not closed")
        return decode(self.total, layout=self.announcement.layout, edges=len(self.announcement.cohort))
