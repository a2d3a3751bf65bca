"""Asks one question until it has a sum: gathers a cohort, sees to its keys, runs rounds, gives lost ones up."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from center.rounds.drive import Called, Drive, Outcome
from center.rounds.epochs import Epochs, KeyEpoch
from center.rounds.exchange import Exchange
from center.rounds.federation import Federation
from center.rounds.gathering import EVERYBODY, Company, Gathering
from center.rounds.giving_up import GivingUp
from center.rounds.in_flight import Announced, Question, load_round, save_round
from center.settings import PrivacySettings, RoundSettings
from protocol import cohort
from protocol.announcement import Announcement, Purpose
from protocol.errors import TooFewSurvivorsError, UnavailableError
from protocol.fixed_point import Layout
from protocol.identity import Group, Roster
from protocol.privacy import plain
from protocol.secure_sum import Phase, Round

_log = structlog.get_logger(__name__)
_PATIENCE = 10
_LOOK_SECONDS = 0.5
_REPETITIONS = 4
"""So often the shares of a partly opened round are asked for before it is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question.

    Attributes:
        notes: the file that remembers how far the center has come with it.
        window: of a statistic, 0 where the question is the weights.
        training: numbers by name.
        company: whom it is put to.
        plainly: without noise, whatever section `privacy` says.
        attempts: how many may fail before the question has no answer for now.
    """

    purpose: Purpose
    layout: Layout
    notes: Path
    weights: bytes = b""
    window: int = 0
    training: Mapping[str, float] = field(default_factory=dict)
    company: Company = EVERYBODY
    plainly: bool = False
    attempts: int = _PATIENCE

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
    """Calls rounds until one closes; remembers who failed the last one, so that the next runs without them.

    One thread of a center asks at a time: an edge answers one round after the other, in the order of their numbers.
    """

    def __init__(
        self,
        *,
        campaign: str,
        submodel: str,
        federation: Federation,
        settings: RoundSettings,
        privacy: PrivacySettings,
    ) -> None:
        self._campaign = campaign
        self._submodel = submodel
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
            in_force=federation.in_force,
        )
        self._gathering = Gathering(campaign, federation=federation, settings=settings)
        self._giving_up = GivingUp(federation=federation, exchange=self._exchange)
        self._kept: dict[str, list[Outcome]] = {}
        self._stuck: Counter[str] = Counter()
        self._begun = time.monotonic()

    def until_summed(self, asked: Asked) -> Answer:
        """The sums of one question.

        Raises:
            StoppedError: told to stop.
            TooFewSurvivorsError: the last of many attempts failed, too.
        """
        attempt = 0
        while True:
            try:
                return self._attempt(asked)
            except TooFewSurvivorsError as error:
                attempt += 1
                _log.warning("question not answered", why=error.line(), attempt=attempt)
                if attempt == asked.attempts:
                    raise
            except UnavailableError as error:  # nobody's fault but the carrier's, however long it lasts
                _log.warning("question interrupted", why=error.line())
                self._federation.raise_if_stopped()
                time.sleep(_LOOK_SECONDS)

    def _attempt(self, asked: Asked) -> Answer:
        question = self._question(asked)
        open_ = [one for one in question.rounds if self._number(one) not in self._kept_numbers(asked.name)]
        called = self._take_up(open_, asked) if open_ else []
        taken = {one.announcement for one in called}
        left = [one for one in open_ if one.document not in taken]
        question = question.lost([one.document for one in left])
        question = replace(question, opened=question.opened or any(one.survivors is not None for one in left))
        if not called:
            question, called = self._announce(question, asked)
        return self._run(question, called, asked)

    def _number(self, one: Announced) -> int:
        return one.open(self._federation.center_key.public_key()).round

    def _kept_numbers(self, name: str) -> set[int]:
        return {outcome.round.announcement.round for outcome in self._kept.get(name, ())}

    def _question(self, asked: Asked) -> Question:
        """How far this question has come; one that was asked before it has its answer, or this were not asked."""
        question = Question.load(asked.notes)
        if question is None or question.name != asked.name:
            self.settle(asked.notes)
            # Who answered a lost round of the last window and not the one after it has told nobody: it may tell now.
            given_up = question.given_up if question is not None and asked.window else ()
            question = Question(name=asked.name, given_up=given_up)
        return question

    def settle(self, notes: Path) -> None:
        """Write down how the rounds of an answered question ended, where a kill came in between; drop their sums."""
        question = Question.load(notes)
        for one in question.rounds if question else ():
            self._federation.registry.settle_round(self._number(one))
        for checkpoint in notes.parent.glob(f"{notes.stem}-*.round"):
            checkpoint.unlink()

    @staticmethod
    def may_be_opened(notes: Path) -> bool:
        """May an edge have helped to open a lost round of the question there, so that it is answered for ever?"""
        question = Question.load(notes)
        return question is not None and question.opened

    def _run(self, question: Question, called: Sequence[Called], asked: Asked) -> Answer:
        federation, notes = self._federation, asked.notes
        self._begun = time.monotonic()

        def named(round_: Round) -> None:
            nonlocal question
            assert round_.survivors is not None
            save_round(round_, _checkpoint(notes, round_.announcement))
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
        self._federation.raise_if_stopped()
        self._judge(outcomes)
        try:
            return self._answer(asked, outcomes)
        except TooFewSurvivorsError:
            # A sum that is there stays in flight until its fruit is on disk: a center killed before asks for it again.
            # So does one that is partly opened: those edges cannot give it up, the rest may answer after all.
            self._stuck[question.name] += 1
            lost = [
                one.announcement
                for one, outcome in zip(called, outcomes, strict=True)
                if outcome.lost is not None and not self._may_be_opened_yet(question.name, outcome)
            ]
            opened = question.opened or any(outcome.round.phase is Phase.UNMASKING for outcome in outcomes)
            replace(question.lost(lost), opened=opened).save(notes)
            raise

    def _may_be_opened_yet(self, name: str, outcome: Outcome) -> bool:
        return outcome.round.phase is Phase.UNMASKING and self._stuck[name] % _REPETITIONS != 0

    def _answer(self, asked: Asked, outcomes: Sequence[Outcome]) -> Answer:
        """The sums so far, if they suffice.

        Raises:
            TooFewSurvivorsError: they do not; those that are there are kept, since their edges answer only once.
        """
        summed = [*self._kept.pop(asked.name, []), *(outcome for outcome in outcomes if outcome.lost is None)]
        robust = outcomes[0].round.roster.robust
        needed = cohort.FEWEST_GROUPS if robust and asked.company.among is None else 1
        if len(summed) < needed:
            self._kept = {asked.name: summed}
            lost = [outcome.lost for outcome in outcomes if outcome.lost is not None]
            if lost:
                raise lost[0]
            raise TooFewSurvivorsError(f"{len(summed)} groups have a sum, {needed} are needed")
        self._gathering.note_sum()
        return Answer(
            groups=tuple(_plain(outcome.round) for outcome in summed),
            numbers=tuple(outcome.round.announcement.round for outcome in summed),
            asked=tuple(outcome.round.announcement.edges for outcome in summed),
            robust=robust,
            upload_bytes=sum(outcome.upload_bytes for outcome in summed),
            edges=sum(len(outcome.round.dealings) for outcome in summed),
        )

    def _judge(self, outcomes: Sequence[Outcome]) -> None:
        """Bench who did not help, and write lost rounds down."""
        for outcome in outcomes:
            number = outcome.round.announcement.round
            if outcome.lost is not None:
                why = "; ".join(f"{edge}: {reason}" for edge, reason in sorted(outcome.silent.items()))
                self._end(number, outcome=f"{outcome.lost} ({why})", figures={})
            self._gathering.bench(outcome.silent, summed=outcome.lost is None)
            self._epochs.leave_out(outcome.silent)

    def note(self, answer: Answer, figures: Mapping[str, float]) -> None:
        """Write rounds down whose sum is safely on disk."""
        more = {"upload_bytes": float(answer.upload_bytes), "survivors": float(answer.edges)}
        for number in answer.numbers:
            self._end(number, outcome="summed", figures={**figures, **more})

    def _end(self, number: int, *, outcome: str, figures: Mapping[str, float]) -> None:
        seconds = time.monotonic() - self._begun
        self._federation.registry.end_round(number, seconds=seconds, outcome=outcome, figures=figures)
        _log.info("round over", round=number, seconds=round(seconds, 1), outcome=outcome, **figures)

    def _take_up(self, rounds: Sequence[Announced], asked: Asked) -> list[Called]:
        """Go on with the rounds that were in flight when this center was killed; edges have kept their answers."""
        called = []
        roster, now_ms = self._federation.roster(), self._federation.now_ms()
        for one in rounds:
            announcement = one.open(self._federation.center_key.public_key())
            same = (announcement.layout, announcement.training) == (asked.layout, dict(asked.training))
            in_force = same and announcement.roster_version == roster.version and announcement.deadline_ms > now_ms
            if one.survivors is None and not in_force:
                continue  # nothing of it can have been opened, so it can be given up
            if not set(announcement.cohort) <= {member.edge for member in roster.members}:
                continue  # who was removed can neither sign nor unmask
            round_ = self._resumed(one, announcement, roster, asked.notes)
            called.append(Called(round=round_, announcement=one.document, weights=asked.weights))
        self._gathering.wake()
        _log.info("rounds taken up again", rounds=[one.round.announcement.round for one in called])
        return called

    @staticmethod
    def _resumed(one: Announced, announcement: Announcement, roster: Roster, notes: Path) -> Round:
        """The round as far as it had come, or from its beginning."""
        saved = None
        if one.survivors is not None:
            saved = load_round(_checkpoint(notes, announcement), announcement, roster=roster, survivors=one.survivors)
        return saved or Round.announce(announcement, roster=roster, survivors=one.survivors)

    def _announce(self, question: Question, asked: Asked) -> tuple[Question, list[Called]]:
        """Announce one round to each cohort, with everything about them on disk first."""
        roster, here = self._gathering.gather(asked.company)
        epoch = self._epochs.covering(here, roster)
        self._federation.raise_if_stopped()
        members = here & epoch.members
        self._gathering.bench(here - members, summed=True)
        question = self._giving_up.settle(question, members, notes=asked.notes)
        self._federation.raise_if_stopped()
        done = {edge for outcome in self._kept.get(asked.name, ()) for edge in outcome.round.announcement.cohort}
        cohorts = [tuple(edge for edge in group if edge in members - done) for group in roster.groups]
        cohorts = [edges for edges in cohorts if len(edges) >= self._gathering.fewest(asked.company)]
        if not cohorts:
            raise TooFewSurvivorsError(
                f"of {len(here)} edges {len(members)} have opened key epoch {epoch.call.epoch}",
                missing=here - members,
            )
        called = [self._called(asked, edges, epoch, roster) for edges in cohorts]
        announced = tuple(Announced(document=one.announcement) for one in called)
        question = replace(question, rounds=question.rounds + announced)
        question.save(asked.notes)
        return question, called

    def _called(self, asked: Asked, edges: Group, epoch: KeyEpoch, roster: Roster) -> Called:
        federation, settings = self._federation, self._settings
        now_ms = federation.now_ms()
        number = federation.registry.begin_round(
            self._campaign, purpose=asked.purpose.value, cohort=edges, now_ms=now_ms
        )
        announcement = Announcement(
            federation=roster.federation,
            campaign=self._campaign,
            round=number,
            key_epoch=epoch.call.epoch,
            roster_version=roster.version,
            center_epoch=federation.center_epoch,
            cohort=edges,
            prekeys=tuple(epoch.prekeys[edge] for edge in edges),
            purpose=asked.purpose,
            submodel=self._submodel,
            weights_sha256=sha256(asked.weights).digest(),
            window=asked.window,
            layout=asked.layout,
            clip=settings.clip,
            coordinate_clip=settings.coordinate_clip,
            weight_cap=settings.weight_cap,
            deadline_ms=now_ms + int(1000 * settings.deadline_seconds),
            privacy=None if asked.plainly else self._privacy.announced(),
            training=dict(asked.training),
        )
        return Called(
            round=Round.announce(announcement, roster=roster),
            announcement=announcement.sign(federation.center_key),
            weights=asked.weights,
        )


def _checkpoint(notes: Path, announcement: Announcement) -> Path:
    """Where the masked sum of a cohort lies, by its first edge: cohorts that run side by side share no edge."""
    return notes.with_name(f"{notes.stem}-{announcement.cohort[0]}.round")


def _plain(round_: Round) -> Mapping[str, NDArray[np.float64]]:
    """Its sums; those of a private round in the units of any other."""
    announced = round_.announcement.privacy
    return plain(round_.sums(), privacy=announced) if announced else round_.sums()
