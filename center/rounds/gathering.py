"""Who is there for a round, and who sits out: wakes edges, waits for them, benches those that failed."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from center.rounds.federation import Federation
from center.settings import RoundSettings
from protocol.errors import TooFewSurvivorsError, UnavailableError
from protocol.identity import EdgeId, Roster

_log = structlog.get_logger(__name__)
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """Whom a question is put to.

    Attributes:
        among: these edges and no others; None: everybody.
        fewest: smallest cohort, None: as section `rounds` says.
        patient: waits for enough of them as long as that takes; else too few of them end the question for now.
    """

    among: frozenset[EdgeId] | None = None
    fewest: int | None = None
    patient: bool = True


EVERYBODY = Company()


class Gathering:
    """The edges of one campaign."""

    def __init__(self, campaign: str, *, federation: Federation, settings: RoundSettings) -> None:
        self._campaign = campaign
        self._federation = federation
        self._settings = settings
        self._benched: frozenset[EdgeId] = frozenset()
        self._bench_until: dict[EdgeId, int] = {}
        self._failures: Counter[EdgeId] = Counter()
        self._summed = 0

    def bench(self, edges: Iterable[EdgeId], *, summed: bool) -> None:
        """Leave edges out: until one more sum, then two, then four, lest one edge cost every round.

        Args:
            summed: the round that they failed came to its sum, so that sum does not count.
        """
        for edge in edges:
            self._failures[edge] += 1
            self._bench_until[edge] = self._summed + summed + 2 ** (self._failures[edge] - 1)
            self._benched |= {edge}

    def note_sum(self) -> None:
        """One question more has its sum: some may come back."""
        self._summed += 1
        self._benched = frozenset(edge for edge, until in self._bench_until.items() if until > self._summed)

    def fewest(self, company: Company) -> int:
        """Smallest cohort that this question is announced to."""
        return self._settings.min_cohort if company.fewest is None else company.fewest

    def gather(self, company: Company = EVERYBODY) -> tuple[Roster, frozenset[EdgeId]]:
        """Wake the edges and wait until all are there, or long enough for those that are.

        Raises:
            TooFewSurvivorsError: too few are there, and this question does not wait for them.
        """
        federation, settings, fewest = self._federation, self._settings, self.fewest(company)
        patience_ms = int(1000 * settings.gather_seconds)
        began_ms = wake_ms = federation.now_ms()
        while True:
            self._federation.raise_if_stopped()
            if federation.now_ms() >= wake_ms:  # an edge goes back to sleep when the last wake is over
                wake_ms = federation.now_ms() + patience_ms
                self.wake()
            roster = federation.roster()
            admitted = frozenset(member.edge for member in roster.members)
            admitted = admitted if company.among is None else admitted & company.among
            here = self._online() & admitted
            late = federation.now_ms() > began_ms + patience_ms
            ready = here - self._benched
            if late:  # a group that would be too small takes its benched edges back
                ready |= {
                    edge for group in roster.groups if len(ready & set(group)) < fewest for edge in here & set(group)
                }
            if len(ready) >= fewest and (late or admitted - self._benched <= here):
                return roster, ready
            if late and not company.patient:
                raise TooFewSurvivorsError(
                    f"{len(ready)} of {len(admitted)} edges are online, {fewest} are needed", missing=admitted - ready
                )
            time.sleep(_LOOK_SECONDS)

    def wake(self) -> None:
        """Tell the edges that a round is coming; their learners stay up until it must be over."""
        settings = self._settings
        seconds = settings.gather_seconds + settings.deadline_seconds
        self._federation.wake(self._campaign, self._federation.now_ms() + int(1000 * seconds))

    def _online(self) -> frozenset[EdgeId]:
        try:
            return self._federation.transport.online()
        except UnavailableError as error:
            _log.warning("waiting for SuperLink", why=error.line())
            return frozenset()
