"""One aggregation round as the center sees it: a state machine that never waits (SPEC 6).

    MASKING ──close──▶ SIGNING ──close──▶ UNMASKING ──close──▶ SUMMED
       └───────────────────┴───────────────────┴── fewer than t have answered ──▶ TooFewSurvivorsError

Masked updates are added up as they arrive. Whoever's has arrived when the first phase closes is a survivor; t survivors
must sign that set, and t of those must send their shares; whoever falls silent in between costs nothing. Every step
returns a new value; a refused step changes nothing. The caller owns clock, sockets and deadlines.

Source: Bonawitz et al., Practical Secure Aggregation for Privacy-Preserving Machine Learning, CCS 2017.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from hashlib import sha256
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from protocol import cohort, packing, privacy
from protocol.announcement import Announcement
from protocol.errors import OutOfTurnError, PeerMisbehavedError, TooFewSurvivorsError
from protocol.fixed_point import decode, words_of
from protocol.identity import EdgeId, Roster
from protocol.messages import (
    MaskedUpdate,
    Survivors,
    SurvivorSignature,
    Unmasking,
    UnmaskRequest,
    sealed_share,
)
from protocol.unmasking import Dealing, remove_masks


class Phase(Enum):
    """Where a round stands: what it is waiting for, or that it is over."""

    MASKING = "masking"
    SIGNING = "signing"
    UNMASKING = "unmasking"
    SUMMED = "summed"


_NEXT = {Phase.MASKING: Phase.SIGNING, Phase.SIGNING: Phase.UNMASKING, Phase.UNMASKING: Phase.SUMMED}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Round:
    """One round at the center.

    Attributes:
        total: uint32[d], the sum of the updates taken; masked until the round is summed.
        heard: by phase and edge, SHA-256 of the answer taken, to tell an echo from a changed answer.
        dealings: what each survivor committed to and dealt.
        disputes: edges whose update was not added, and with whom their commitments disagree.
        survivors: once the first phase is closed, or from the start if they were named before a crash.
        signatures: of the survivor set.
        unmaskings: shares by the edge that sent them.
        liars: edges whose shares did not fit. A dealer can deal one receiver nonsense, so a liar may have been framed.
    """

    announcement: Announcement
    roster: Roster
    total: NDArray[np.uint32]
    phase: Phase = Phase.MASKING
    heard: Mapping[tuple[Phase, EdgeId], bytes] = field(default_factory=lambda: MappingProxyType({}))
    dealings: Mapping[EdgeId, Dealing] = field(default_factory=lambda: MappingProxyType({}))
    disputes: Mapping[EdgeId, frozenset[EdgeId]] = field(default_factory=lambda: MappingProxyType({}))
    survivors: Survivors | None = None
    signatures: Mapping[EdgeId, bytes] = field(default_factory=lambda: MappingProxyType({}))
    unmaskings: Mapping[EdgeId, tuple[bytes, ...]] = field(default_factory=lambda: MappingProxyType({}))
    liars: frozenset[EdgeId] = frozenset()

    @classmethod
    def announce(cls, announcement: Announcement, *, roster: Roster, survivors: Survivors | None = None) -> Self:
        """Begin a round, or begin it again after a crash.

        Args:
            survivors: the set that was named before the crash; edges sign one, so it has to be the same.

        Raises:
            NotAdmittedError: the cohort names an edge that the roster does not.
        """
        for edge in announcement.cohort:
            roster.member(edge)
        total = np.zeros(words_of(announcement.layout), dtype=np.uint32)
        return cls(announcement=announcement, roster=roster, total=total, survivors=survivors)

    @property
    def threshold(self) -> int:
        """How many must answer in each phase."""
        return cohort.threshold(self.announcement.edges)

    @property
    def asked(self) -> tuple[EdgeId, ...]:
        """Who is asked in this phase."""
        if self.phase is Phase.UNMASKING:
            return tuple(sorted(self.signatures))
        return self.survivors.edges if self.survivors else self.announcement.cohort

    @property
    def answered(self) -> frozenset[EdgeId]:
        """Who has answered in this phase."""
        return frozenset(edge for phase, edge in self.heard if phase is self.phase)

    @property
    def missing(self) -> tuple[EdgeId, ...]:
        """Who has been asked in this phase and has not answered."""
        return tuple(edge for edge in self.asked if edge not in self.answered)

    def receive(self, sender: EdgeId, phase: Phase, answer: bytes) -> Self:
        """Take one answer. The transport may deliver twice: an echo is fine, a changed answer is not (SPEC 6.5-6.6).

        Raises:
            PeerMisbehavedError: not asked, in another edge's name, of another round or set, or a changed answer.
            MalformedMessageError: not the message of this phase.
            BadSignatureError: not signed by the edge that it names.
        """
        if phase is not self.phase:
            return self  # late: that phase is closed
        if sender not in self.asked:
            raise PeerMisbehavedError(f"{sender} is not asked in round {self.announcement.round}")
        digest = sha256(answer).digest()
        known = self.heard.get((phase, sender), digest)
        if known != digest:
            raise PeerMisbehavedError(f"{sender} changed its answer while {phase.value}")
        if (phase, sender) in self.heard:
            return self
        after = self._take(sender, answer)
        return replace(after, heard=MappingProxyType({**self.heard, (phase, sender): digest}))

    def _take(self, sender: EdgeId, answer: bytes) -> Self:
        if self.phase is Phase.MASKING:
            return self._take_update(sender, answer)
        if self.phase is Phase.SIGNING:
            return self._take_signature(sender, answer)
        return self._take_unmasking(sender, answer)

    def _take_update(self, sender: EdgeId, answer: bytes) -> Self:
        update = MaskedUpdate.from_bytes(answer)
        self._check_origin(sender, update.edge, update.announcement)
        if len(update.commitments) != self.announcement.edges:
            raise PeerMisbehavedError(f"{sender} committed to {len(update.commitments)} secrets")
        update.check(self.roster.member(sender).identity_key())
        words = packing.unpack(bytes(update.packed), layout=self.announcement.layout)
        dealing = Dealing(commitments=update.commitments, sealed=bytes(update.sealed))
        against = self._disagreements(sender, dealing)
        if against:  # their masks would not vanish, so they cannot be in one sum
            return replace(self, disputes=MappingProxyType({**self.disputes, sender: against}))
        return replace(self, total=self.total + words, dealings=MappingProxyType({**self.dealings, sender: dealing}))

    def _disagreements(self, sender: EdgeId, dealing: Dealing) -> frozenset[EdgeId]:
        """With whom this edge does not share the mask that both committed to (SPEC 6.7)."""
        places = {edge: place for place, edge in enumerate(self.announcement.cohort)}
        return frozenset(
            edge
            for edge, other in self.dealings.items()
            if other.commitments[places[sender]] != dealing.commitments[places[edge]]
        )

    @property
    def suspects(self) -> frozenset[EdgeId]:
        """A small set of edges that would explain all disputes: those that most others disagree with come first."""
        pairs = {frozenset((edge, other)) for edge, against in self.disputes.items() for other in against}
        suspects: set[EdgeId] = set()
        while pairs:
            count = Counter(edge for pair in pairs for edge in sorted(pair))
            most = max(sorted(count), key=lambda edge: count[edge])
            suspects.add(most)
            pairs = {pair for pair in pairs if most not in pair}
        return frozenset(suspects)

    def _take_signature(self, sender: EdgeId, answer: bytes) -> Self:
        signed = SurvivorSignature.from_bytes(answer)
        self._check_origin(sender, signed.edge, signed.announcement)
        if signed.survivors != self._named().digest():
            raise PeerMisbehavedError(f"{sender} signed another survivor set")
        signed.check(self.roster.member(sender).identity_key())
        return replace(self, signatures=MappingProxyType({**self.signatures, sender: signed.signature}))

    def _take_unmasking(self, sender: EdgeId, answer: bytes) -> Self:
        opened = Unmasking.from_bytes(answer)
        survivors = self._named()
        self._check_origin(sender, opened.edge, opened.announcement)
        expected = len(survivors.edges) * (1 + self.announcement.edges - len(survivors.edges))
        if opened.survivors != survivors.digest() or len(opened.shares) != expected:
            raise PeerMisbehavedError(f"{sender} opened another survivor set")
        opened.check(self.roster.member(sender).identity_key())
        return replace(self, unmaskings=MappingProxyType({**self.unmaskings, sender: opened.shares}))

    def _check_origin(self, sender: EdgeId, named: EdgeId, announcement: bytes) -> None:
        if named != sender:
            raise PeerMisbehavedError(f"{sender} answered in the name of {named}")
        if announcement != self.announcement.digest():
            raise PeerMisbehavedError(f"{sender} answered another announcement")

    def close_phase(self) -> Self:
        """Go on with whoever has answered.

        Raises:
            OutOfTurnError: the round is over.
            TooFewSurvivorsError: fewer than t have, or their shares do not open the sum; the round is lost.
        """
        if self.phase is Phase.MASKING:
            after = self._close_masking()
        elif self.phase is Phase.SIGNING:
            after = self._close_signing()
        elif self.phase is Phase.UNMASKING:
            after = self._close_unmasking()
        else:
            raise OutOfTurnError(f"round {self.announcement.round} is closed")
        return replace(after, phase=_NEXT[self.phase])

    def _close_masking(self) -> Self:
        survivors = Survivors(announcement=self.announcement.digest(), edges=tuple(sorted(self.dealings)))
        if self.survivors is not None and survivors != self.survivors:
            gone = set(self.survivors.edges) - set(survivors.edges)
            raise self._too_few(f"{', '.join(sorted(gone))} did not send the masked update again", gone)
        if len(survivors.edges) < self.threshold:
            missing = set(self.missing) | self.suspects
            raise self._too_few(self._count(len(survivors.edges), "masked updates"), missing)
        return replace(self, survivors=survivors)

    def _close_signing(self) -> Self:
        if len(self.signatures) < self.threshold:
            raise self._too_few(self._count(len(self.signatures), "survivor signatures"), set(self.missing))
        return self

    def _close_unmasking(self) -> Self:
        if len(self.unmaskings) < self.threshold:
            raise self._too_few(self._count(len(self.unmaskings), "unmaskings"), set(self.missing))
        total, liars = remove_masks(
            self.total,
            announcement=self.announcement,
            survivors=self._named(),
            dealings=self.dealings,
            unmaskings=self.unmaskings,
        )
        return replace(self, total=total, liars=liars)

    def _count(self, came: int, what: str) -> str:
        return f"{came} {what} came from {self.announcement.edges} edges, {self.threshold} are needed"

    def _too_few(self, what: str, missing: set[EdgeId]) -> TooFewSurvivorsError:
        return TooFewSurvivorsError(
            f"round {self.announcement.round}: {what}",
            missing=missing,
            advice="the next round runs without the missing",
        )

    def _named(self) -> Survivors:
        if self.survivors is None:
            raise OutOfTurnError(f"round {self.announcement.round} has no survivors yet")
        return self.survivors

    def unmask_request(self, edge: EdgeId) -> bytes:
        """What one signer must see and open: `UnmaskRequest` (SPEC 6.8).

        Raises:
            OutOfTurnError: the round is not unmasking.
        """
        if self.phase is not Phase.UNMASKING:
            raise OutOfTurnError(f"round {self.announcement.round} is {self.phase.value}")
        survivors = self._named()
        places = {name: place for place, name in enumerate(self.announcement.cohort)}
        dropped = [name for name in self.announcement.cohort if name not in survivors.edges]
        sealed = {
            dealer: tuple(
                sealed_share(
                    self.dealings[dealer].sealed,
                    edges=self.announcement.edges,
                    dealer=places[dealer],
                    receiver=places[edge],
                    secret=places[secret],
                )
                for secret in (dealer, *dropped)
            )
            for dealer in survivors.edges
            if dealer != edge
        }
        return UnmaskRequest(signatures=self.signatures, sealed=sealed).to_bytes()

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """The sums over the survivors, one array a segment of the layout.

        Raises:
            OutOfTurnError: the round is not summed.
        """
        if self.phase is not Phase.SUMMED:
            raise OutOfTurnError(f"round {self.announcement.round} is not summed")
        asked = self.announcement
        variance = 0.0
        if asked.privacy is not None:
            variance = privacy.variance_of_sum(asked.privacy, layout=asked.layout, edges=asked.edges)
        return decode(self.total, layout=asked.layout, edges=asked.edges, variance=variance)
