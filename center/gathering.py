"""Who is there for a round, and who sits out: wakes edges, waits for them, benches those that failed."""

import time
from collections import Counter
from collections.abc import Iterable

import structlog

from center.federation import Federation
from center.settings import RoundSettings
from protocol.errors import UnavailableError
from protocol.identity import EdgeId, Roster

_log = structlog.get_logger(__name__)
_LOOK_SECONDS = 0.5


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

    def gather(self) -> tuple[Roster, frozenset[EdgeId]]:
        """Wake the edges and wait until all are there, or long enough for those that are."""
        federation, settings = self._federation, self._settings
        patience_ms = int(1000 * settings.gather_seconds)
        began_ms = wake_ms = federation.now_ms()
        while True:
            self._federation.raise_if_stopped()
            if federation.now_ms() >= wake_ms:  # an edge goes back to sleep when the last wake is over
                wake_ms = federation.now_ms() + patience_ms
                self.wake()
            roster = federation.roster()
            admitted = frozenset(member.edge for member in roster.members)
            here = self._online() & admitted
            late = federation.now_ms() > began_ms + patience_ms
            ready = here - self._benched
            if late:  # a group that would be too small takes its benched edges back
                ready |= {
                    edge
                    for group in roster.groups
                    if len(ready & set(group)) < settings.min_cohort
                    for edge in here & set(group)
                }
            if len(ready) >= settings.min_cohort and (late or admitted - self._benched <= here):
                return roster, ready
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
