"""Drives secure sums, several cohorts at a time: asks, waits, goes on or gives up. The rules are those of `secure_sum`.

masked updates ── everyone, or t and nobody else for a while ──▶ survivors named, on disk
signatures     ── everyone, or t and a moment ──▶ unmaskings ── t that fit ──▶ the sum
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from center.settings import RoundSettings
from protocol.errors import MalformedMessageError, PeerMisbehavedError, TooFewSurvivorsError, UntrustedError
from protocol.identity import EdgeId
from protocol.secure_sum import Phase, Round
from protocol.transport import Action, Reply, Request, Transport

_log = structlog.get_logger(__name__)
_WAIT_SECONDS = 0.5
_ACTION = {
    Phase.MASKING: Action.MASKED_UPDATE,
    Phase.SIGNING: Action.SIGN_SURVIVORS,
    Phase.UNMASKING: Action.UNMASK,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """A round that is to be run.

    Attributes:
        announcement: signed.
        weights: what the edges train from, or nothing.
    """

    round: Round
    announcement: bytes
    weights: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one round ended.

    Attributes:
        round: summed, or as far as it came.
        lost: why there is no sum, or None.
        upload_bytes: what its edges sent, all together.
        silent: edges that did not help, and what they said or did instead.
    """

    round: Round
    lost: TooFewSurvivorsError | None
    upload_bytes: int
    silent: dict[EdgeId, str] = field(default_factory=dict)


Named = Callable[[Round], None]
"""Told of each survivor set before any edge is: the caller writes it down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """What a round needs around it.

    Attributes:
        center_key: signs survivor sets.
        stopped: asked between two waits; a center that is told to stop gives the rounds up.
    """

    transport: Transport
    center_key: Ed25519PrivateKey
    settings: RoundSettings
    now_ms: Callable[[], int]
    stopped: Callable[[], bool]

    def run(self, called: Sequence[Called], *, named: Named = lambda _round: None) -> list[Outcome]:
        """Run these rounds side by side; each ends by itself.

        Raises:
            UnavailableError: the transport is away.
        """
        courses = [_Course(one, drive=self, named=named) for one in called]
        course_of = {edge: course for course in courses for edge in course.round.announcement.cohort}
        try:
            for course in courses:
                course.ask()
            while any(course.runs for course in courses) and not self.stopped():
                for edge, reply in self.transport.receive(timeout=_WAIT_SECONDS):
                    if edge in course_of:
                        course_of[edge].take(edge, reply)
                for course in courses:
                    course.go_on()
        finally:
            self.transport.forget()
        return [course.outcome() for course in courses]


class _Course:
    """One round on its way."""

    def __init__(self, called: Called, *, drive: Drive, named: Named) -> None:
        self.round = called.round
        self._called = called
        self._drive = drive
        self._named = named
        self._asked: dict[EdgeId, Phase] = {}
        self._failures: dict[EdgeId, str] = {}
        self._silent: dict[EdgeId, str] = {}
        self._upload = 0
        self._lost: TooFewSurvivorsError | None = None
        self._began_ms = drive.now_ms()
        self._enough_ms: int | None = None

    @property
    def runs(self) -> bool:
        return self._lost is None and self.round.phase is not Phase.SUMMED

    def ask(self) -> None:
        """Ask everybody whose turn it is."""
        self._failures, self._enough_ms, self._began_ms = {}, None, self._drive.now_ms()
        requests = {edge: self._request(edge) for edge in self.round.asked}
        self._asked |= dict.fromkeys(requests, self.round.phase)
        self._drive.transport.send(requests)

    def _request(self, edge: EdgeId) -> Request:
        action = _ACTION[self.round.phase]
        if self.round.phase is Phase.MASKING:
            return Request(action=action, document=self._called.announcement, weights=self._called.weights)
        assert self.round.survivors is not None
        document = self.round.survivors.sign(self._drive.center_key)
        papers = self.round.unmask_request(edge) if self.round.phase is Phase.UNMASKING else b""
        return Request(action=action, document=document, papers=papers)

    def take(self, edge: EdgeId, reply: Reply) -> None:
        """Take one reply, or note why it is worth nothing."""
        phase = self._asked.get(edge)
        if phase is None:
            return  # it answers what the center asked before it was killed, and is no survivor
        if reply.body is None:
            self._fail(edge, phase, reply.error or "no answer")
            return
        try:
            self.round = self.round.receive(edge, phase, reply.body)
        except (PeerMisbehavedError, MalformedMessageError, UntrustedError) as error:
            self._fail(edge, phase, str(error))
        else:
            self._upload += len(reply.body) if phase is Phase.MASKING else 0

    def _fail(self, edge: EdgeId, phase: Phase, why: str) -> None:
        _log.warning("no answer", edge=edge, round=self.round.announcement.round, phase=phase.value, why=why)
        self._silent[edge] = why
        if phase is self.round.phase:
            self._failures[edge] = why

    def go_on(self) -> None:
        """Close the phase if it is time, and ask for the next one."""
        while self.runs and self._is_time():
            try:
                closed = self.round.close_phase()
            except TooFewSurvivorsError as error:
                if self.round.phase is Phase.UNMASKING and self._waiting() and not self._too_late():
                    return  # somebody lied; more shares may come
                self._lost = error
                return
            was, self.round = self.round.phase, closed
            if self.round.phase is Phase.SUMMED:
                return
            if was is Phase.MASKING:
                self._silent |= dict.fromkeys(self._left_out() - set(self._silent), "no masked update in time")
                self._named(self.round)
            self.ask()

    def _left_out(self) -> set[EdgeId]:
        """Who is not a survivor and has only itself to blame."""
        innocent = set(self.round.disputes) - self.round.suspects
        return set(self.round.announcement.cohort) - set(self.round.asked) - innocent

    def _waiting(self) -> set[EdgeId]:
        return set(self.round.missing) - set(self._failures)

    def _is_time(self) -> bool:
        waiting, came = self._waiting(), self._came()
        if not waiting or self._too_late() or came + len(waiting) < self.round.threshold:
            return True
        if came < self.round.threshold or (self.round.phase is Phase.MASKING and self.round.survivors is not None):
            return False  # of survivors that were named before a crash all have to come back
        now_ms = self._drive.now_ms()
        if self._enough_ms is None:
            self._enough_ms = now_ms
        return now_ms >= self._enough_ms + self._patience_ms()

    def _came(self) -> int:
        return len(self.round.dealings) if self.round.phase is Phase.MASKING else len(self.round.answered)

    def _patience_ms(self) -> float:
        """How long the rest is waited for once enough have answered."""
        settings = self._drive.settings
        if self.round.phase is Phase.UNMASKING:
            return 0.0
        if self.round.phase is Phase.SIGNING:
            return 1000 * settings.grace_seconds
        assert self._enough_ms is not None
        took_ms = self._enough_ms - self._began_ms
        return max(1000 * settings.grace_seconds, settings.straggler_share * took_ms)

    def _too_late(self) -> bool:
        now_ms = self._drive.now_ms()
        if self.round.phase is Phase.MASKING and self.round.survivors is None:
            return now_ms >= self.round.announcement.deadline_ms
        return now_ms >= self._began_ms + 1000 * self._drive.settings.step_seconds

    def outcome(self) -> Outcome:
        silent = dict(self._silent)
        for edge in self._lost.missing if self._lost else ():
            silent.setdefault(EdgeId(edge), "no answer")
        silent |= dict.fromkeys(self.round.liars, "sent a share that does not fit")
        return Outcome(round=self.round, lost=self._lost, upload_bytes=self._upload, silent=silent)
