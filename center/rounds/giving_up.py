"""Has lost rounds given up, so that their question may be asked again: by abandonments that the edges see (SPEC 8)."""

from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from center.rounds.exchange import Exchange
from center.rounds.federation import Federation
from center.rounds.in_flight import Announced, GivenUp, Question
from protocol import binary
from protocol.announcement import Announcement
from protocol.errors import FederationError
from protocol.identity import EdgeId
from protocol.messages import Abandonment
from protocol.transport import Action, Request

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivingUp:
    """Carries abandonments from edge to edge."""

    federation: Federation
    exchange: Exchange

    def settle(self, question: Question, edges: frozenset[EdgeId], *, notes: Path) -> Question:
        """Have lost rounds of this question given up, so that their edges may be asked it again (SPEC 8)."""
        settled = []
        for lost in question.given_up:
            announcement = Announced(document=lost.document).open(self.federation.center_key.public_key())
            concerned = edges & set(announcement.cohort)
            settled.append(self._given_up(lost, announcement, concerned))
        question = replace(question, given_up=tuple(settled))
        if question.given_up:
            question.save(notes)
        return question

    def _given_up(self, lost: GivenUp, announcement: Announcement, concerned: frozenset[EdgeId]) -> GivenUp:
        waiting = concerned - lost.reopened
        if not waiting:
            return lost
        request = Request(action=Action.ABANDON, document=lost.document)
        answers = self.exchange.ask(dict.fromkeys(waiting - set(lost.abandonments), request))
        signed = {edge: paper for edge, paper in answers.items() if self._is_abandonment(edge, paper, announcement)}
        lost = lost.with_answers(signed, ())
        papers = binary.join([lost.abandonments[edge] for edge in sorted(lost.abandonments)])
        request = Request(action=Action.REOPEN, document=lost.document, papers=papers)
        return lost.with_answers({}, self.exchange.ask(dict.fromkeys(waiting, request)))

    def _is_abandonment(self, edge: EdgeId, paper: bytes, announcement: Announcement) -> bool:
        try:
            abandonment = Abandonment.from_bytes(paper)
            abandonment.check(self.federation.roster().member(edge).identity_key())
        except FederationError as error:
            _log.warning("abandonment refused", edge=edge, why=str(error))
            return False
        return (abandonment.edge, abandonment.announcement) == (edge, announcement.digest())
