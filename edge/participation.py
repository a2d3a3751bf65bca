"""Takes part in rounds: checks, learns, masks, answers. What leaves this site leaves here (SPEC 7)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import numpy as np
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray

from edge import policy
from edge.keys import Keys
from edge.ledger import Ledger
from edge.settings import PolicySettings
from protocol.errors import FederationError, PeerMisbehavedError
from protocol.fixed_point import Layout
from protocol.identity import EdgeId, Roster
from protocol.masked_update import EdgeRound
from protocol.messages import Announcement
from protocol.transport import Reply, Request

_log = structlog.get_logger(__name__)

Values = Mapping[str, NDArray[np.float32] | float]


class Lesson(Protocol):
    """What this site can say to one kind of announcement, from its own books."""

    def layout(self, announcement: Announcement, weights: bytes) -> Layout:
        """The layout that such an announcement must have."""

    def values(self, announcement: Announcement, weights: bytes) -> Values:
        """This site's contribution, within its bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Participation:
    """One edge's part in all rounds.

    Attributes:
        roster: reads the newest roster this edge has accepted.
        lessons: by purpose; a purpose that is missing cannot be asked for.
    """

    me: EdgeId
    keys: Keys
    center: Ed25519PublicKey
    roster: Callable[[], Roster]
    policy: PolicySettings
    ledger: Ledger
    lessons: Mapping[str, Lesson]
    now_ms: Callable[[], int]

    def answer(self, request: Request) -> Reply:
        """Answer one request; a refusal is an answer too, and says why in one line without private data."""
        try:
            return Reply(body=self._masked_update(request), error=None)
        except FederationError as error:
            _log.warning("round refused", why=error.line())
            return Reply(body=None, error=str(error))

    def _masked_update(self, request: Request) -> bytes:
        announcement = Announcement.open(request.announcement, key=self.center)
        stored = self.ledger.answer_to(announcement.digest())
        if stored is not None:
            return stored
        standing = self.ledger.standing()
        turn = EdgeRound.accept(
            request.announcement,
            me=self.me,
            roster=self.roster(),
            center=self.center,
            last_round=standing.last_round,
            last_epoch=standing.last_epoch,
            now_ms=self.now_ms(),
        )
        policy.check(announcement, policy=self.policy, answered_today=self.ledger.begun_since(self.now_ms()))
        lesson = self._lesson(announcement, request.weights)
        self.ledger.begin(
            announcement.round,
            announcement=announcement.digest(),
            epoch=announcement.center_epoch,
            now_ms=self.now_ms(),
        )
        values = lesson.values(announcement, request.weights)
        _, answer = turn.mask(values, mask_key=self.keys.mask, identity_key=self.keys.identity)
        self.ledger.keep_answer(announcement.round, answer)
        return answer

    def _lesson(self, announcement: Announcement, weights: bytes) -> Lesson:
        if sha256(weights).digest() != announcement.weights_sha256:
            raise PeerMisbehavedError("the weights are not the announced ones")
        lesson = self.lessons.get(announcement.purpose)
        if lesson is None:
            raise PeerMisbehavedError(f"nothing here answers a round for {announcement.purpose}")
        if lesson.layout(announcement, weights) != announcement.layout:
            raise PeerMisbehavedError("the announced layout is not that of the weights")
        return lesson
