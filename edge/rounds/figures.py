"""What this site says of releases in a round: how good a candidate is here, and how its own trial went (SPEC 4.10)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import structlog

from edge.records.store import Store
from edge.releases.evaluating import evaluate
from edge.releases.trial_record import Outcome, TrialRecord
from edge.rounds.lessons import private_bound
from edge.serving.release import Release
from protocol import lessons
from protocol.announcement import Announcement
from protocol.errors import MalformedMessageError, PeerMisbehavedError, UnavailableError, UntrustedReleaseError
from protocol.fixed_point import Layout
from protocol.masked_update import Values

_log = structlog.get_logger(__name__)
_OWN_TO_USERS = frozenset({"all", "new_users", "tail"})

Load = Callable[[], Release]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationLesson:
    """How good a candidate is at this site, beside what it serves now.

    Attributes:
        candidate: by its number, how to load it; None where its files are not here yet.
        serving: how to load what is committed; None before the first release.
        store: opens this site's books.
    """

    candidate: Callable[[int], Load | None]
    serving: Callable[[], Load | None]
    store: Callable[[], Store]

    def layout(self, announcement: Announcement, weights: bytes) -> Layout:
        _check_bare(announcement, weights)
        self._load(announcement.window)
        return lessons.evaluation_layout(private_bound=private_bound(announcement))

    def until(self) -> int:
        return 0

    def values(self, announcement: Announcement, weights: bytes, *, after: int) -> Values:
        del weights, after  # an event may be evaluated on many times
        candidate = self._candidate(announcement.window)
        with self.store() as store:
            sums = evaluate(store, candidate, self._serving(), draw=announcement.window)
        _log.info("evaluated", candidate=announcement.window, events=int(sums["all"][0]))
        unit = lessons.evaluation_unit(announcement.privacy)
        if announcement.privacy is not None:  # one user's event can make another's item an old one
            sums = {name: part if name in _OWN_TO_USERS else np.zeros_like(part) for name, part in sums.items()}
        bounds = {segment.name: segment.bound for segment in announcement.layout}
        return {name: np.minimum(unit * part, bounds[name]) for name, part in sums.items()}

    def _load(self, number: int) -> Load:
        load = self.candidate(number)
        if load is None:
            raise UnavailableError(f"candidate {number} has not arrived here yet", advice="the next round may find it")
        return load

    def _candidate(self, number: int) -> Release:
        try:
            return self._load(number)()
        except (UntrustedReleaseError, MalformedMessageError) as error:
            _log.warning("a candidate does not load", candidate=number, why=error.line())  # with paths of this machine
            raise UnavailableError(f"candidate {number} does not load here") from error

    def _serving(self) -> Release | None:
        """What answers now: popularity, if the committed release does not load."""
        load = self.serving()
        if load is None:
            return None
        try:
            return load()
        except (UntrustedReleaseError, MalformedMessageError) as error:
            _log.warning("the committed release does not load, popularity stands in", why=error.line())
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthLesson:
    """How this site's trial of one release went. No noise: its policy may refuse rounds without.

    What happened in a trial is told once, when the trial is over, or the sum over a ring and the sum over all but one
    of it would tell that one's. How it ended is told whenever it is asked.

    Attributes:
        record: of the newest release it has tried.
    """

    record: Callable[[], TrialRecord | None]

    def layout(self, announcement: Announcement, weights: bytes) -> Layout:
        _check_bare(announcement, weights)
        _release(announcement)
        if announcement.privacy is not None:
            raise PeerMisbehavedError("counts of answers and sites are asked without noise")
        return lessons.health_layout()

    def until(self) -> int:
        record = self.record()
        return record.version - (record.outcome is Outcome.ON_TRIAL) if record else 0

    def values(self, announcement: Announcement, weights: bytes, *, after: int) -> Values:
        del weights
        record = self.record()
        if record is None or record.version != _release(announcement):
            return dict.fromkeys(lessons.HEALTH, 0.0)
        standing = {
            "reached": 1.0,
            "kept": float(record.outcome is Outcome.KEPT),
            "went_back": float(record.outcome is Outcome.WENT_BACK),
        }
        if record.outcome is Outcome.ON_TRIAL or after >= record.version:
            return dict.fromkeys(lessons.HEALTH, 0.0) | standing
        answers, queries, events = (
            min(count, lessons.HEALTH[name])
            for name, count in (("answers", record.answers), ("queries", record.queries), ("events", record.events))
        )
        share = answers / max(record.answers, 1)
        return standing | {
            "answers": float(answers),
            "errors": min(record.errors, record.answers) * share,
            "slow": min(record.slow, record.answers) * share,
            "overlap": _share(record.overlap) * queries,
            "queries": float(queries),
            "ndcg_new": _share(record.ndcg_new) * events,
            "ndcg_old": _share(record.ndcg_old) * events,
            "events": float(events),
        }


def _release(announcement: Announcement) -> int:
    try:
        return int(announcement.training["release"])
    except KeyError as error:
        raise MalformedMessageError("the announcement does not say which release it is about") from error


def _check_bare(announcement: Announcement, weights: bytes) -> None:
    if weights:
        raise PeerMisbehavedError(f"a round for {announcement.purpose.value} has no weights")


def _share(value: float) -> float:
    return min(max(value, 0.0), 1.0)
