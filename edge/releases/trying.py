"""Tries a release out while it serves: both stay loaded, so going back is a swap between two requests (SPEC 9.11).

Runs in the event loop, where the service lives. What it asks the two releases by itself costs no more than a shop's
request each, and it lets the shops' requests pass in between; disks are written in a thread.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

from edge.releases.installed import Installed
from edge.releases.installer import Installer
from edge.releases.rehearsal import Rehearsed
from edge.releases.trial import Figures, slow_seconds, why_not
from edge.releases.trial_record import Outcome, TrialRecord
from edge.serving.query import Query
from edge.serving.release import Loaded
from edge.serving.service import Service
from edge.settings import TrialSettings
from protocol.errors import FederationError, UntrustedReleaseError
from protocol.release import Offer

_log = structlog.get_logger(__name__)
LOOK_SECONDS = 1.0
_RECORD_SECONDS = 30.0
_WARM_UP_QUERIES = 16
_BREATH_SECONDS = 0.01


class Note(Protocol):
    """Writes one entry of the audit log."""

    def __call__(self, kind: str, **facts: Any) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """The trial that is going on.

    Attributes:
        began: by the monotonic clock, when it began to serve.
        figures: of the rehearsal and the warm-up; those of answers are the service's.
    """

    installed: Installed
    began: float
    figures: Figures
    recorded: float = float("-inf")


class Trying:
    """At most one trial. Every method but `refuse` runs in the event loop."""

    def __init__(
        self,
        *,
        service: Service,
        installer: Installer,
        limits: TrialSettings,
        keep: Callable[[TrialRecord], None],
        note: Note,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            keep: writes the record that the center's questions are answered from.
            changed: what serves has changed; say so in the next status.
        """
        self._service = service
        self._installer = installer
        self._limits = limits
        self._keep = keep
        self._note = note
        self._changed = changed
        self._clock = clock
        self._course: _Course | None = None
        self._turn = asyncio.Lock()

    async def begin(self, installed: Installed, loaded: Loaded, rehearsed: Rehearsed) -> None:
        """Warm up, compare, and serve from it; its trial has been noted on disk already.

        Raises:
            UntrustedReleaseError: what is known of it already speaks against it; the old release goes on serving.
        """
        async with self._turn:
            queries, overlap = await self._compare(loaded)
            figures = Figures(
                queries=queries,
                overlap=overlap,
                baskets=rehearsed.baskets,
                ndcg_new=rehearsed.ndcg_new,
                ndcg_old=rehearsed.ndcg_old,
                ndcg_spread=rehearsed.ndcg_spread,
            )
            if why := why_not(figures, self._limits):
                await asyncio.to_thread(self.refuse, installed, why, figures)
                raise UntrustedReleaseError(f"{installed.offer.target} does not stay: {why}")
            self._service.try_out(loaded)
            before = self._service.tally_before
            self._service.tally.slow_from = slow_seconds(before.p99() if before else 0.0, self._limits)
            self._course = _Course(installed=installed, began=self._clock(), figures=figures)
            await self._record(Outcome.ON_TRIAL)
        self._changed()

    async def take_up(self, installed: Installed, loaded: Loaded) -> None:
        """Serve from a bundle that has been committed here before: it needs no second trial."""
        async with self._turn:
            await self._warm_up(loaded)
            await asyncio.to_thread(self._installer.commit, installed)
            self._service.swap(loaded)
            await asyncio.to_thread(self._settle, installed, Figures(), Outcome.KEPT, "taken up")
        self._changed()

    async def renumber(self, installed: Installed) -> None:
        """What serves has got the number of a newer release; its files are the same."""
        async with self._turn:
            self._service.swap(self._service.loaded.with_version(installed.offer.version))
            await asyncio.to_thread(self._settle, installed, Figures(), Outcome.KEPT, "renumbered")
        self._changed()

    async def supersede(self, newer: Offer) -> None:
        """A newer release is there: the trial ends at once, and what is committed serves until that is installed."""
        async with self._turn:
            if self._course is None:
                await asyncio.to_thread(self._installer.end_trial)
                return
            figures, installed = self._figures(), self._course.installed
            self._course = None
            self._service.take_back()
            await asyncio.to_thread(self._installer.end_trial)
            why = f"{newer.target} is there"
            await asyncio.to_thread(self._settle, installed, figures, Outcome.SUPERSEDED, "superseded", why=why)
        self._changed()

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except (FederationError, OSError) as error:  # a full disk is over one day; the trial goes on
                _log.warning("the trial cannot be decided", why=str(error))

    async def look(self) -> None:
        """Go back, commit, or wait."""
        async with self._turn:
            if self._course is None:
                return
            figures, course = self._figures(), self._course
            if why := why_not(figures, self._limits):
                self._course = None
                self._service.take_back()
                await asyncio.to_thread(self.refuse, course.installed, why, figures)
            elif self._clock() - course.began >= self._limits.seconds:
                await asyncio.to_thread(self._installer.commit, course.installed)
                self._course = None
                self._service.settle()
                await asyncio.to_thread(self._settle, course.installed, figures, Outcome.KEPT, "committed")
            else:
                if self._clock() - course.recorded >= _RECORD_SECONDS:
                    await self._record(Outcome.ON_TRIAL)
                return
        self._changed()

    def refuse(self, installed: Installed, why: str, figures: Figures | None = None) -> None:
        """Note on disk that a release did not stay; it is not tried again. On any thread."""
        self._installer.refuse(installed, why=why)
        _log.warning("went back", release=installed.offer.version, why=why)
        self._settle(installed, figures or Figures(), Outcome.WENT_BACK, "went back", why=why)

    async def _compare(self, loaded: Loaded) -> tuple[int, float]:
        """Recent queries asked of both: how many, and the mean share of the old answers in the new ones."""
        if self._service.loaded.release is None:
            await self._warm_up(loaded)
            return 0, 0.0
        shares = []
        for query in list(self._service.recent):
            old = await self._ask(self._service.loaded, query)
            new = await self._ask(loaded, query)
            if old:
                shares.append(len(old & new) / len(old))
        return len(shares), sum(shares) / len(shares) if shares else 0.0

    async def _warm_up(self, loaded: Loaded) -> None:
        for query in list(self._service.recent)[-_WARM_UP_QUERIES:]:
            await self._ask(loaded, query)

    async def _ask(self, loaded: Loaded, query: Query) -> set[str]:
        answer = self._service.ask(loaded, query)
        await asyncio.sleep(_BREATH_SECONDS)  # the shops' requests come first
        return {one.item for one in answer.items}

    def _figures(self) -> Figures:
        assert self._course is not None
        tally, before = self._service.tally, self._service.tally_before
        return replace(
            self._course.figures,
            answers=tally.answers,
            errors=tally.errors,
            slow=tally.slow,
            p99=tally.p99(),
            answers_before=before.answers if before else 0,
            p99_before=before.p99() if before else 0.0,
        )

    async def _record(self, outcome: Outcome) -> None:
        assert self._course is not None
        self._course = replace(self._course, recorded=self._clock())
        record = self._record_of(self._course.installed, self._figures(), outcome)
        await asyncio.to_thread(self._keep, record)

    def _record_of(self, installed: Installed, figures: Figures, outcome: Outcome) -> TrialRecord:
        return TrialRecord(
            version=installed.offer.version,
            sha256=installed.sha256,
            outcome=outcome,
            answers=figures.answers,
            errors=figures.errors,
            slow=figures.slow,
            overlap=figures.overlap,
            queries=figures.queries,
            ndcg_new=figures.ndcg_new,
            ndcg_old=figures.ndcg_old,
            events=figures.baskets,
        )

    def _settle(self, installed: Installed, figures: Figures, outcome: Outcome, kind: str, **facts: Any) -> None:
        self._keep(self._record_of(installed, figures, outcome))
        self._service.metrics.note_trial_ended(outcome.value)
        measured: Mapping[str, Any] = {"answers": figures.answers, "errors": figures.errors} if figures.answers else {}
        self._note(kind, release=installed.offer.version, sha256=installed.sha256, **measured, **facts)
