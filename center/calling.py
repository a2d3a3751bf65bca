"""Asks one question until it has a sum: gathers a cohort, sees to its keys, runs rounds, gives lost ones up."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from center.epochs import Epochs, KeyEpoch
from center.exchange import Exchange
from center.in_flight import Announced, GivenUp, Question
from center.registry import CampaignRow, Registry
from center.rounds import Called, Drive, Outcome
from center.settings import PrivacySettings, RoundSettings
from protocol import binary, cohort
from protocol.announcement import Announcement, Purpose
from protocol.errors import FederationError, TooFewSurvivorsError, UnavailableError
from protocol.fixed_point import Layout
from protocol.identity import EdgeId, Group, Roster
from protocol.messages import Abandonment
from protocol.privacy import plain
from protocol.secure_sum import Round
from protocol.transport import Action, Request, Transport

_log = structlog.get_logger(__name__)
_PATIENCE = 10
_LOOK_SECONDS = 0.5


class StoppedError(Exception):
    """The center was told to stop; the campaign goes on when it serves again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """What is needed to ask edges anything.

    Attributes:
        roster: reads the signed roster in force; sites are admitted and removed while a campaign runs.
        wake: tells edges over MQTT that a round is coming, and until when (ms UTC).
        stopped: the center is shutting down.
    """

    roster: Callable[[], Roster]
    center_epoch: int
    center_key: Ed25519PrivateKey
    transport: Transport
    registry: Registry
    wake: Callable[[str, int], None]
    stopped: Callable[[], bool]
    now_ms: Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question.

    Attributes:
        notes: the file that remembers how far the center has come with it.
        window: of a statistic, 0 where the question is the weights.
        training: numbers by name.
    """

    purpose: Purpose
    layout: Layout
    notes: Path
    weights: bytes = b""
    window: int = 0
    training: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        subject = sha256(self.weights).hexdigest() if self.weights else f"window {self.window}"
        return f"{self.purpose.value} {subject}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Sums of one question, one for each cohort that came to one.

    Attributes:
        groups: the sums of each cohort.
        numbers: round numbers of these.
        asked: how many edges each cohort had.
        robust: the cohorts are groups of a robust aggregation.
    """

    groups: tuple[Mapping[str, NDArray[np.float64]], ...]
    numbers: tuple[int, ...]
    asked: tuple[int, ...]
    robust: bool
    upload_bytes: int
    edges: int

    @property
    def sums(self) -> dict[str, NDArray[np.float64]]:
        """Over all cohorts."""
        return {name: np.sum([group[name] for group in self.groups], axis=0) for name in self.groups[0]}


class Caller:
    """Calls rounds until one closes; remembers who failed the last one, so that the next runs without them."""

    def __init__(
        self,
        *,
        row: CampaignRow,
        federation: Federation,
        settings: RoundSettings,
        privacy: PrivacySettings,
    ) -> None:
        self._row = row
        self._federation = federation
        self._settings = settings
        self._privacy = privacy
        self._exchange = Exchange(
            transport=federation.transport,
            seconds=settings.step_seconds,
            now_ms=federation.now_ms,
            stopped=federation.stopped,
        )
        self._epochs = Epochs(
            registry=federation.registry,
            center_epoch=federation.center_epoch,
            center_key=federation.center_key,
            exchange=self._exchange,
            hours=settings.epoch_hours,
            now_ms=federation.now_ms,
        )
        self._benched: frozenset[EdgeId] = frozenset()
        self._bench_until: dict[EdgeId, int] = {}
        self._failures: Counter[EdgeId] = Counter()
        self._summed = 0
        self._kept: dict[str, list[Outcome]] = {}
        self._begun = time.monotonic()

    def until_summed(self, asked: Asked) -> Answer:
        """The sums of one question.

        Raises:
            StoppedError: told to stop.
            TooFewSurvivorsError: the last of many attempts failed, too.
        """
        for attempt in range(1, _PATIENCE + 1):
            try:
                return self._attempt(asked)
            except TooFewSurvivorsError as error:
                _log.warning("question not answered", why=error.line(), attempt=attempt)
                if attempt == _PATIENCE:
                    raise
            except UnavailableError as error:
                _log.warning("question interrupted", why=error.line(), attempt=attempt)
        raise TooFewSurvivorsError(f"{_PATIENCE} rounds in a row failed", advice="hanse-center doctor")

    def _attempt(self, asked: Asked) -> Answer:
        question = self._question(asked)
        called = self._take_up(question, asked) if question.rounds else []
        if not called:
            question, called = self._announce(question.lost([one.document for one in question.rounds]), asked)
        return self._run(question, called, notes=asked.notes)

    def _question(self, asked: Asked) -> Question:
        """How far this question has come; one that was asked before it has its answer, or this were not asked."""
        question = Question.load(asked.notes)
        if question is None or question.name != asked.name:
            self.settle(asked.notes)
            question = Question(name=asked.name)
        return question

    def settle(self, notes: Path) -> None:
        """Write down how the rounds of an answered question ended, where a kill came in between."""
        question = Question.load(notes)
        for one in question.rounds if question else ():
            self._federation.registry.settle_round(one.open(self._federation.center_key.public_key()).round)

    def _run(self, question: Question, called: Sequence[Called], *, notes: Path) -> Answer:
        federation = self._federation
        self._begun = time.monotonic()

        def named(round_: Round) -> None:
            nonlocal question
            assert round_.survivors is not None
            question = question.named(round_.survivors)
            question.save(notes)

        drive = Drive(
            transport=federation.transport,
            center_key=federation.center_key,
            settings=self._settings,
            now_ms=federation.now_ms,
            stopped=federation.stopped,
        )
        outcomes = drive.run(called, named=named)
        self.raise_if_stopped()
        self._judge(outcomes)
        try:
            return self._answer(question.name, outcomes)
        except TooFewSurvivorsError:
            # A sum that is there stays in flight until its fruit is on disk: a center killed before asks for it again.
            lost = {outcome.round.announcement.round for outcome in outcomes if outcome.lost is not None}
            question.lost([one.announcement for one in called if one.round.announcement.round in lost]).save(notes)
            raise

    def _answer(self, name: str, outcomes: Sequence[Outcome]) -> Answer:
        """The sums so far, if they suffice.

        Raises:
            TooFewSurvivorsError: they do not; those that are there are kept, since their edges answer only once.
        """
        summed = [*self._kept.pop(name, []), *(outcome for outcome in outcomes if outcome.lost is None)]
        robust = outcomes[0].round.roster.robust
        if not summed or (robust and len(summed) < cohort.FEWEST_GROUPS):
            self._kept = {name: summed}
            raise next(outcome.lost for outcome in outcomes if outcome.lost is not None)
        self._summed += 1
        self._benched = frozenset(edge for edge, until in self._bench_until.items() if until > self._summed)
        return Answer(
            groups=tuple(self._plain(outcome.round.sums()) for outcome in summed),
            numbers=tuple(outcome.round.announcement.round for outcome in summed),
            asked=tuple(outcome.round.announcement.edges for outcome in summed),
            robust=robust,
            upload_bytes=sum(outcome.upload_bytes for outcome in summed),
            edges=sum(len(outcome.round.dealings) for outcome in summed),
        )

    def _plain(self, sums: Mapping[str, NDArray[np.float64]]) -> Mapping[str, NDArray[np.float64]]:
        """Sums of a private round in the units of any other."""
        announced = self._privacy.announced()
        return plain(sums, privacy=announced) if announced else sums

    def _judge(self, outcomes: Sequence[Outcome]) -> None:
        """Bench who did not help: back after one sum, then after two, then four, lest one edge cost every round."""
        for outcome in outcomes:
            number = outcome.round.announcement.round
            if outcome.lost is not None:
                why = "; ".join(f"{edge}: {reason}" for edge, reason in sorted(outcome.silent.items()))
                self._end(number, outcome=f"{outcome.lost} ({why})", figures={})
            self._bench(outcome.silent, summed=self._summed + (outcome.lost is None))
            self._epochs.leave_out(outcome.silent)

    def _bench(self, edges: Iterable[EdgeId], *, summed: int) -> None:
        for edge in edges:
            self._failures[edge] += 1
            self._bench_until[edge] = summed + 2 ** (self._failures[edge] - 1)
            self._benched |= {edge}

    def note(self, answer: Answer, figures: Mapping[str, float]) -> None:
        """Write rounds down whose sum is safely on disk."""
        more = {"upload_bytes": float(answer.upload_bytes), "survivors": float(answer.edges)}
        for number in answer.numbers:
            self._end(number, outcome="summed", figures={**figures, **more})

    def _end(self, number: int, *, outcome: str, figures: Mapping[str, float]) -> None:
        seconds = time.monotonic() - self._begun
        self._federation.registry.end_round(number, seconds=seconds, outcome=outcome, figures=figures)
        _log.info("round over", round=number, seconds=round(seconds, 1), outcome=outcome, **figures)

    def _take_up(self, question: Question, asked: Asked) -> list[Called]:
        """Go on with the rounds that were in flight when this center was killed; edges have kept their answers."""
        called = []
        roster, now_ms = self._federation.roster(), self._federation.now_ms()
        for one in question.rounds:
            announcement = one.open(self._federation.center_key.public_key())
            same = (announcement.layout, announcement.training) == (asked.layout, dict(asked.training))
            if announcement.roster_version != roster.version or not same:
                return []
            if announcement.deadline_ms <= now_ms and one.survivors is None:
                return []
            round_ = Round.announce(announcement, roster=roster, survivors=one.survivors)
            called.append(Called(round=round_, announcement=one.document, weights=asked.weights))
        self._wake()
        _log.info("rounds taken up again", rounds=[one.round.announcement.round for one in called])
        return called

    def _announce(self, question: Question, asked: Asked) -> tuple[Question, list[Called]]:
        """Announce one round to each cohort, with everything about them on disk first."""
        roster, here = self._gather()
        epoch = self._epochs.covering(here, roster)
        self.raise_if_stopped()
        members = here & epoch.members
        self._bench(here - members, summed=self._summed + 1)
        question = self._settle(question, members, notes=asked.notes)
        self.raise_if_stopped()
        done = {edge for outcome in self._kept.get(asked.name, ()) for edge in outcome.round.announcement.cohort}
        cohorts = [tuple(edge for edge in group if edge in members - done) for group in roster.groups]
        cohorts = [edges for edges in cohorts if len(edges) >= self._settings.min_cohort]
        if not cohorts:
            raise TooFewSurvivorsError(
                f"of {len(here)} edges {len(members)} have opened key epoch {epoch.call.epoch}",
                missing=here - members,
            )
        called = [self._called(asked, edges, epoch, roster) for edges in cohorts]
        question = replace(question, rounds=tuple(Announced(document=one.announcement) for one in called))
        question.save(asked.notes)
        return question, called

    def _called(self, asked: Asked, edges: Group, epoch: KeyEpoch, roster: Roster) -> Called:
        federation, settings = self._federation, self._settings
        now_ms = federation.now_ms()
        number = federation.registry.begin_round(self._row.id, purpose=asked.purpose.value, cohort=edges, now_ms=now_ms)
        announcement = Announcement(
            federation=roster.federation,
            campaign=self._row.id,
            round=number,
            key_epoch=epoch.call.epoch,
            roster_version=roster.version,
            center_epoch=federation.center_epoch,
            cohort=edges,
            prekeys=tuple(epoch.prekeys[edge] for edge in edges),
            purpose=asked.purpose,
            submodel=self._row.submodel,
            weights_sha256=sha256(asked.weights).digest(),
            window=asked.window,
            layout=asked.layout,
            clip=settings.clip,
            coordinate_clip=settings.coordinate_clip,
            weight_cap=settings.weight_cap,
            deadline_ms=now_ms + int(1000 * settings.deadline_seconds),
            privacy=self._privacy.announced(),
            training=dict(asked.training),
        )
        return Called(
            round=Round.announce(announcement, roster=roster),
            announcement=announcement.sign(federation.center_key),
            weights=asked.weights,
        )

    def _settle(self, question: Question, edges: frozenset[EdgeId], *, notes: Path) -> Question:
        """Have lost rounds of this question given up, so that their edges may be asked it again (SPEC 8)."""
        settled = []
        for lost in question.given_up:
            announcement = Announced(document=lost.document).open(self._federation.center_key.public_key())
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
        answers = self._exchange.ask(dict.fromkeys(waiting - set(lost.abandonments), request))
        signed = {edge: paper for edge, paper in answers.items() if self._is_abandonment(edge, paper, announcement)}
        lost = lost.with_answers(signed, ())
        papers = binary.join([lost.abandonments[edge] for edge in sorted(lost.abandonments)])
        request = Request(action=Action.REOPEN, document=lost.document, papers=papers)
        return lost.with_answers({}, self._exchange.ask(dict.fromkeys(waiting, request)))

    def _is_abandonment(self, edge: EdgeId, paper: bytes, announcement: Announcement) -> bool:
        try:
            abandonment = Abandonment.from_bytes(paper)
            abandonment.check(self._federation.roster().member(edge).identity_key())
        except FederationError as error:
            _log.warning("abandonment refused", edge=edge, why=str(error))
            return False
        return (abandonment.edge, abandonment.announcement) == (edge, announcement.digest())

    def _gather(self) -> tuple[Roster, frozenset[EdgeId]]:
        """Wake the edges and wait until all are there, or long enough for those that are."""
        federation, settings = self._federation, self._settings
        patience_ms = int(1000 * settings.gather_seconds)
        began_ms = wake_ms = federation.now_ms()
        while True:
            self.raise_if_stopped()
            if federation.now_ms() >= wake_ms:  # an edge goes back to sleep when the last wake is over
                wake_ms = federation.now_ms() + patience_ms
                self._wake()
            roster = federation.roster()
            admitted = frozenset(member.edge for member in roster.members)
            here = self._online() & admitted
            late = federation.now_ms() > began_ms + patience_ms
            ready = here - self._benched
            if late and len(ready) < settings.min_cohort:
                ready = here
            if len(ready) >= settings.min_cohort and (late or admitted - self._benched <= here):
                return roster, ready
            time.sleep(_LOOK_SECONDS)

    def _wake(self) -> None:
        settings = self._settings
        seconds = settings.gather_seconds + settings.deadline_seconds
        self._federation.wake(self._row.id, self._federation.now_ms() + int(1000 * seconds))

    def _online(self) -> frozenset[EdgeId]:
        try:
            return self._federation.transport.online()
        except UnavailableError as error:
            _log.warning("waiting for SuperLink", why=error.line())
            return frozenset()

    def raise_if_stopped(self) -> None:
        """Raise StoppedError if the center has been told to stop."""
        if self._federation.stopped():
            raise StoppedError
