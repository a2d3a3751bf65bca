"""Takes part in epochs and rounds: checks, learns, masks, opens. What leaves this site leaves here (SPEC 5, 7, 8).

Every answer is on disk before it leaves: the number and the question in the ledger, the secrets in the ratchet.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.keys import Keys
from edge.rounds import policy
from edge.rounds.ledger import Ledger
from edge.rounds.ratchet import Ratchet, Secrets
from edge.rounds.spending import Spending
from edge.settings import PolicySettings
from protocol import binary, canonical, cohort, privacy
from protocol.announcement import Announcement
from protocol.epoch import EpochCall
from protocol.epoch_keys import EpochKeys
from protocol.errors import FederationError, OutOfTurnError, PeerMisbehavedError
from protocol.fixed_point import Layout
from protocol.identity import EdgeId, Roster
from protocol.masked_update import EdgeRound, Values
from protocol.messages import Abandonment, Survivors
from protocol.sealing import SealingKey
from protocol.transport import Action, Reply, Request

_log = structlog.get_logger(__name__)
_ENTROPY_BYTES = 32
DONE = b"done"
"""What an edge answers where there is nothing to say."""


class Lesson(Protocol):
    """What this site can say to one kind of announcement, from its own books."""

    def layout(self, announcement: Announcement, weights: bytes) -> Layout:
        """The layout that such an announcement must have; refuses what this site cannot or will not learn from."""

    def until(self) -> int:
        """The newest event in the books."""

    def values(self, announcement: Announcement, weights: bytes, *, after: int) -> Values:
        """This site's contribution, within its bounds; a statistic counts only events newer than ``after``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Participation:
    """One edge's part in all rounds.

    Attributes:
        roster: reads the newest roster this edge has accepted.
        lessons: by purpose; a purpose that is missing cannot be asked for.
        note: writes an answer down in the audit log, before it leaves.
    """

    me: EdgeId
    keys: Keys
    center: Ed25519PublicKey
    roster: Callable[[], Roster]
    policy: PolicySettings
    ledger: Ledger
    ratchet: Ratchet
    spending: Spending
    lessons: Mapping[str, Lesson]
    now_ms: Callable[[], int]
    note: Callable[[Announcement], None] = lambda _: None

    def answer(self, request: Request) -> Reply:
        """Answer one request; a refusal is an answer too, and says why in one line without private data."""
        try:
            return Reply(body=self._body(request))
        except FederationError as error:
            _log.warning("refused", action=request.action, why=error.line())
            return Reply(error=str(error))

    def _body(self, request: Request) -> bytes:
        steps: dict[str, Callable[[Request], bytes]] = {
            Action.PREKEY: self._prekey,
            Action.DEAL_ROOTS: self._deal_roots,
            Action.KEEP_ROOTS: self._keep_roots,
            Action.MASKED_UPDATE: self._masked_update,
            Action.SIGN_SURVIVORS: self._sign_survivors,
            Action.UNMASK: self._unmask,
            Action.ABANDON: self._abandon,
            Action.REOPEN: self._reopen,
        }
        if request.action not in steps:
            raise PeerMisbehavedError(f"nothing here answers {request.action!r}")
        return steps[request.action](request)

    def _secrets(self) -> Secrets:
        """What this edge holds of epoch and round; of a restored disk nothing is used (SPEC 5.7)."""
        secrets, last_round = self.ratchet.load(), self.ledger.standing().last_round
        if secrets is not None and secrets.last_round <= last_round:
            return secrets
        fresh = Secrets(last_round=last_round)
        if last_round or (secrets is not None and secrets.last_round):
            _log.warning("the secrets of this epoch are gone or were restored; this edge waits for the next epoch")
            self.spending.charge_for_restore(now_ms=self.now_ms())
        if last_round or secrets is not None or self.ledger.last_key_epoch():
            self.ratchet.save(fresh)  # or every request until the next epoch would be charged as one restore more
        return fresh

    def _epoch(self, request: Request) -> tuple[Secrets, EpochKeys]:
        """The keys of the epoch that a request is about.

        Raises:
            PeerMisbehavedError: this edge holds none of it.
        """
        call, secrets = EpochCall.open(request.document, key=self.center), self._secrets()
        if secrets.epoch is None or secrets.epoch.call != call:
            raise PeerMisbehavedError(f"this edge is not in epoch {call.epoch}")
        return secrets, secrets.epoch

    def _prekey(self, request: Request) -> bytes:
        call = EpochCall.open(request.document, key=self.center)
        secrets, roster = self._secrets(), self.roster()
        if secrets.epoch is not None and secrets.epoch.call == call:
            return secrets.epoch.published
        standing = self.ledger.standing()
        if (call.federation, call.roster_version) != (roster.federation, roster.version):
            raise PeerMisbehavedError(f"an epoch on roster {call.roster_version}, this edge holds {roster.version}")
        if call.center_epoch < standing.last_epoch:
            raise PeerMisbehavedError(f"center epoch {call.center_epoch} is over, {standing.last_epoch} leads now")
        if call.epoch <= self.ledger.last_key_epoch() or call.first_round <= standing.last_round:
            raise PeerMisbehavedError(f"epoch {call.epoch} is not newer than what this edge has followed")
        roster.member(self.me)
        self.ledger.follow(call.epoch)
        # The keys of the last epoch end here.
        keys = EpochKeys.begin(call, me=self.me, prekey=SealingKey.generate(), identity_key=self.keys.identity)
        self.ratchet.save(Secrets(last_round=standing.last_round, epoch=keys))
        return keys.published

    def _deal_roots(self, request: Request) -> bytes:
        secrets, keys = self._epoch(request)
        after, roots = keys.deal(
            request.papers,
            roster=self.roster(),
            identity_key=self.keys.identity,
            randomness=os.urandom(_ENTROPY_BYTES),
        )
        if after is not keys:
            self.ratchet.save(replace(secrets, epoch=after))
        return roots

    def _keep_roots(self, request: Request) -> bytes:
        secrets, keys = self._epoch(request)
        after = keys.keep(request.papers, roster=self.roster())
        if after is not keys:
            self.ratchet.save(replace(secrets, epoch=after))
        return canonical.encode(sorted(after.states))

    def _masked_update(self, request: Request) -> bytes:
        asked = Announcement.open(request.document, key=self.center)
        stored = self.ledger.answer_to(asked.digest())
        if stored is not None:
            return stored
        secrets, roster = self._secrets(), self.roster()
        if secrets.epoch is None:
            raise PeerMisbehavedError("this edge is in no epoch, it takes part from the next")
        turn = EdgeRound.accept(
            request.document,
            me=self.me,
            roster=roster,
            center=self.center,
            keys=secrets.epoch,
            standing=self.ledger.standing(),
            now_ms=self.now_ms(),
        )
        policy.check(
            asked,
            policy=self.policy,
            robust=roster.robust,
            answered_today=self.ledger.begun_since(self.now_ms()),
        )
        lesson = self._lesson(asked, request.weights)
        after = self.ledger.mark(asked)
        keys, pair_secrets = secrets.epoch.at_round(asked.round)
        self.ledger.begin(asked, until=lesson.until(), now_ms=self.now_ms())
        # From here on the secrets of this round are in memory only: a crash costs the round, not the secrets.
        self.ratchet.save(Secrets(last_round=asked.round, epoch=keys, round=turn))
        self._debit(asked)
        turn, answer = turn.mask(
            lesson.values(asked, request.weights, after=after),
            secrets=pair_secrets,
            identity_key=self.keys.identity,
            entropy=os.urandom(_ENTROPY_BYTES),
        )
        self.ratchet.save(Secrets(last_round=asked.round, epoch=keys, round=turn))
        self.note(asked)
        self.ledger.keep_answer(asked.round, answer)
        return answer

    def _lesson(self, asked: Announcement, weights: bytes) -> Lesson:
        if sha256(weights).digest() != asked.weights_sha256:
            raise PeerMisbehavedError("the weights are not the announced ones")
        lesson = self.lessons.get(asked.purpose)
        if lesson is None:
            raise PeerMisbehavedError(f"nothing here answers a round for {asked.purpose}")
        if lesson.layout(asked, weights) != asked.layout:
            raise PeerMisbehavedError("the announced layout is not that of the weights")
        return lesson

    def _debit(self, asked: Announcement) -> None:
        if asked.privacy is None:
            return
        spent = privacy.rdp(asked.privacy, layout=asked.layout, edges=asked.edges, orders=privacy.ORDERS)
        self.spending.debit(asked.purpose, spent, round=asked.round, now_ms=self.now_ms())

    def _turn(self, announcement: bytes) -> tuple[Secrets, EdgeRound]:
        """The round in flight, if it is this one.

        Raises:
            OutOfTurnError: it is another one, or none.
        """
        secrets = self._secrets()
        if secrets.round is None or secrets.round.announcement.digest() != announcement:
            raise OutOfTurnError("this edge is not in that round, or no longer")
        return secrets, secrets.round

    def _sign_survivors(self, request: Request) -> bytes:
        survivors = Survivors.open(request.document, key=self.center)
        secrets, turn = self._turn(survivors.announcement)
        after, reply = turn.sign_survivors(request.document, center=self.center, identity_key=self.keys.identity)
        self._keep_turn(secrets, turn, after)
        return reply

    def _unmask(self, request: Request) -> bytes:
        survivors = Survivors.open(request.document, key=self.center)
        secrets, turn = self._turn(survivors.announcement)
        after, reply = turn.unmask(
            request.document,
            request.papers,
            center=self.center,
            roster=self.roster(),
            identity_key=self.keys.identity,
        )
        self.ledger.note_opened(turn.announcement.round)
        self._keep_turn(secrets, turn, after)
        return reply

    def _keep_turn(self, secrets: Secrets, before: EdgeRound, after: EdgeRound) -> None:
        if after is not before:
            self.ratchet.save(replace(secrets, round=after))

    def _abandon(self, request: Request) -> bytes:
        """Give a round up: the one in flight, one whose keys are gone, or one that this edge will now never begin.

        Raises:
            PeerMisbehavedError: this edge has helped to open it, or has no part in it.
        """
        asked, secrets = Announcement.open(request.document, key=self.center), self._secrets()
        digest = asked.digest()
        if self.me not in asked.cohort:
            raise PeerMisbehavedError(f"this edge has no part in round {asked.round}")
        if self.ledger.has_opened(digest):
            raise PeerMisbehavedError(f"round {asked.round} has been opened, it cannot be given up")
        if secrets.round is not None and secrets.round.announcement.digest() == digest:
            after, reply = secrets.round.abandon(identity_key=self.keys.identity)
            self._keep_turn(secrets, secrets.round, after)
            return reply
        if asked.round > self.ledger.standing().last_round:
            self.ledger.give_up(asked, now_ms=self.now_ms())
        # Its number is used up and nothing is kept of it: nobody can open it with this edge's help.
        return EdgeRound(me=self.me, announcement=asked).abandon(identity_key=self.keys.identity)[1]

    def _reopen(self, request: Request) -> bytes:
        """Free a question whose sum nobody can open any more (SPEC 8.3).

        Raises:
            PeerMisbehavedError: too few have given the round up.
        """
        asked = Announcement.open(request.document, key=self.center)
        digest, roster = asked.digest(), self.roster()
        given_up: set[EdgeId] = set()
        members = {member.edge for member in roster.members}
        for paper in binary.split(request.papers):
            abandonment = Abandonment.from_bytes(paper)
            if abandonment.announcement != digest or abandonment.edge not in asked.cohort:
                raise PeerMisbehavedError(f"{abandonment.edge} has given up another round")
            if abandonment.edge not in members:
                continue  # removed since: its word neither counts nor spoils those of the others
            abandonment.check(roster.member(abandonment.edge).identity_key())
            given_up.add(abandonment.edge)
        needed = cohort.abandonments_needed(asked.edges, max_colluders=self.policy.max_colluders)
        if len(given_up) < needed:
            raise PeerMisbehavedError(f"{len(given_up)} edges have given round {asked.round} up, {needed} are needed")
        if self.ledger.round_of(digest) is not None:
            self.ledger.reopen(asked.round)
        return DONE
