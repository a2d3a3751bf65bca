"""Events -> what they add to the derived books. Pure, and a sum over visits: what was added can be taken out again.

A *visit* is what one user did in one session (without sessions: what one user did), and two events of it belong
together when little time lies between them. Within that time an item counts once, so that nobody makes an item popular
by looking at it all day.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from edge.records.changes import Recorded
from edge.records.events import CONTEXT
from edge.records.schema import CODE, PURCHASE

BOUGHT: Final = 0
VIEWED: Final = 1
KINDS: Final = ("bought", "viewed")
BASKET_MS: Final = 3_600_000
"""What one user buys within an hour is one basket."""
VISIT_MS: Final = 1_800_000
"""What one user looks at within half an hour was looked at together."""
LONGEST_MS: Final = max(BASKET_MS, VISIT_MS)
_BASKET_ITEMS = 30
_VIEWED_ITEMS = 6
_LOOKED_BACK = 2  # times as many events are looked at, should some of them lie elsewhere in time
# At most 1: so the noise of these sums is at most that of counts, and what looks like a trend is one.
_WEIGHT = np.zeros(max(CODE.values()) + 1)
_WEIGHT[: PURCHASE + 1] = (0.0, 0.2, 0.3, 0.6, 1.0)  # view, click, add_to_cart, purchase
_HOURS, _DAYS = 3_600_000, 86_400_000
EVERYTHING: Final = 0
"""Stands for the sum over all items, in the list of a context."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lines:
    """Events that say that somebody wanted an item, as columns.

    Attributes:
        key: int64[n], the events' own.
        visit: int64[n], events of one visit have one number.
        item: int64[n], the store's keys.
        kind: int64[n], 1 to 4 as in the store: view, click, add_to_cart, purchase.
        time_ms: int64[n].
        contexts: where it happened, of each event; empty where nobody asks.
    """

    key: NDArray[np.int64]
    visit: NDArray[np.int64]
    item: NDArray[np.int64]
    kind: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    contexts: Sequence[Mapping[str, str]]

    @classmethod
    def of(cls, events: Sequence[Recorded], visits: dict[tuple[int, str | None], int]) -> Self:
        """Take what says that somebody wanted something.

        Args:
            visits: numbers given before; new ones are added.
        """
        wanted = [event for event in events if event.item is not None and CODE[event.type] <= PURCHASE]
        rows = [
            (
                *(event.key, visits.setdefault((event.user, event.session), len(visits)), event.item or 0),
                *(CODE[event.type], event.time_ms),
            )
            for event in wanted
        ]
        key, visit, item, kind, time_ms = np.array(rows, np.int64).reshape(-1, 5).T
        contexts = [event.context for event in wanted]
        return cls(key=key, visit=visit, item=item, kind=kind, time_ms=time_ms, contexts=contexts)

    @classmethod
    def older(cls, visits: Sequence[tuple[int, NDArray[np.int64]]]) -> Self:
        """Events whose contexts are not asked for: they have been counted.

        Args:
            visits: a visit's number, and int64[n, 4] of its events: key, item, kind and time.
        """
        rows = np.concatenate([np.empty((0, 4), np.int64), *(events for _, events in visits)])
        numbers, counts = [number for number, _ in visits], [len(events) for _, events in visits]
        key, item, kind, time_ms = rows.T
        visit = np.repeat(np.array(numbers, np.int64), counts)
        return cls(key=key, visit=visit, item=item, kind=kind, time_ms=time_ms, contexts=())

    def columns(self) -> tuple[NDArray[np.int64], ...]:
        return self.visit, self.key, self.item, self.kind, self.time_ms


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entries:
    """Weights to add to lists.

    Attributes:
        list_id: int64[n].
        other: int64[n], the item in that list.
        weight: float64[n].
        time_ms: int64[n].
    """

    list_id: NDArray[np.int64]
    other: NDArray[np.int64]
    weight: NDArray[np.float64]
    time_ms: NDArray[np.int64]

    def where(self, chosen: NDArray[np.bool_]) -> "Entries":
        """Some of them."""
        return Entries(
            list_id=self.list_id[chosen],
            other=self.other[chosen],
            weight=self.weight[chosen],
            time_ms=self.time_ms[chosen],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counted:
    """What some events add to the books.

    Attributes:
        entries: pairs under `list_of` their first item, and contexts under -1 - their number in `names`.
        names: the contexts, ``region=DE-HH``.
        item: int64[n], store keys.
        sums: float64[n, 3], baskets with the item, visits with it, and how much it was wanted.
        time_ms: int64[n].
    """

    entries: Entries
    names: Sequence[str]
    item: NDArray[np.int64]
    sums: NDArray[np.float64]
    time_ms: NDArray[np.int64]


def list_of(items: NDArray[np.int64], kind: int) -> NDArray[np.int64]:
    """int64[n], from 2 on; contexts have negative ones."""
    return items * len(KINDS) + kind


def count(before: Lines, fresh: Lines) -> Counted:
    """What the fresh events add, given those before them: pairs of two fresh ones, and of a fresh one and an older.

    Args:
        before: of the same visits and less than `LONGEST_MS` away; the newest few of them are enough.
        fresh: all with higher keys than those before.
    """
    old = len(before.key)
    visit, key, item, kind, time_ms = (
        np.concatenate(pair) for pair in zip(before.columns(), fresh.columns(), strict=True)
    )
    new = np.arange(len(key)) >= old
    sums = np.zeros((len(key), 3))
    parts: list[Entries] = []
    for book, chosen, gap in ((BOUGHT, kind == PURCHASE, BASKET_MS), (VIEWED, kind < PURCHASE, VISIT_MS)):
        at = np.flatnonzero(chosen)
        at = at[_first((visit[at], item[at]), key[at], time_ms[at], gap=gap)]
        sums[at, book] = 1
        parts += _pairs(visit[at], key[at], item[at], time_ms[at], new[at], book=book, gap=gap)
    sums[:, 2] = _WEIGHT[kind] * _first((visit, item, kind), key, time_ms, gap=VISIT_MS)
    names, context = _contexts(fresh, sums[old:, 2])
    return Counted(
        entries=_joined([*parts, context]), names=names, item=item[new], sums=sums[new], time_ms=time_ms[new]
    )


def hour_and_weekday(time_ms: int) -> tuple[str, str]:
    """The names of two contexts; UTC, so that no summer time moves them."""
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return f"hour={moment.hour}", f"weekday={moment.weekday()}"


def _first(
    same: tuple[NDArray[np.int64], ...], key: NDArray[np.int64], time_ms: NDArray[np.int64], *, gap: int
) -> NDArray[np.bool_]:
    """bool[n], events that do not follow closely on one that is the same in all these columns."""
    order = np.lexsort((key, *reversed(same)))
    again = np.abs(np.diff(time_ms[order])) <= gap
    for column in same:
        again &= np.diff(column[order]) == 0
    first = np.ones(len(key), np.bool_)
    first[order[1:][again]] = False
    return first


def _pairs(
    visit: NDArray[np.int64],
    key: NDArray[np.int64],
    item: NDArray[np.int64],
    time_ms: NDArray[np.int64],
    new: NDArray[np.bool_],
    *,
    book: int,
    gap: int,
) -> list[Entries]:
    """Each new event with the few before it in its visit, both ways round; of views, one farther back counts less."""
    order = np.lexsort((key, visit))
    visit, item, time_ms, new = visit[order], item[order], time_ms[order], new[order]
    reach = _BASKET_ITEMS if book == BOUGHT else _VIEWED_ITEMS
    between = np.zeros(len(order), np.int64)
    found = []
    for lag in range(1, min(_LOOKED_BACK * reach, len(order) - 1) + 1):
        together = visit[lag:] == visit[:-lag]
        if not together.any():
            break
        together &= new[lag:] & (np.abs(time_ms[lag:] - time_ms[:-lag]) <= gap) & (between[lag:] < reach)
        later = np.flatnonzero(together) + lag
        between[later] += 1
        weight = np.ones(len(later)) if book == BOUGHT else 1.0 / between[later]
        when = np.maximum(time_ms[later], time_ms[later - lag])
        for here, there in ((item[later], item[later - lag]), (item[later - lag], item[later])):
            pairs = Entries(list_id=list_of(here, book), other=there, weight=weight, time_ms=when)
            found.append(pairs.where(here != there))
    return found


def _contexts(fresh: Lines, weight: NDArray[np.float64]) -> tuple[list[str], Entries]:
    """What was wanted in which hour, on which weekday, and where; each also as part of `EVERYTHING`."""
    numbers: dict[str, int] = {}
    events, lists = [], []
    clock = _clock_names(fresh.time_ms)
    for at in np.flatnonzero(weight).tolist():
        context = fresh.contexts[at]
        names = clock[at]
        if context:
            names += tuple(f"{kind}={context[kind]}" for kind in CONTEXT if context.get(kind))
        for name in names:
            events.append(at)
            lists.append(-1 - numbers.setdefault(name, len(numbers)))
    of, ids = np.array(events, np.int64), np.array(lists, np.int64)
    return list(numbers), Entries(
        list_id=np.tile(ids, 2),
        other=np.concatenate([fresh.item[of], np.full(len(of), EVERYTHING)]),
        weight=np.tile(weight[of], 2),
        time_ms=np.tile(fresh.time_ms[of], 2),
    )


def _clock_names(time_ms: NDArray[np.int64]) -> list[tuple[str, ...]]:
    """Hour and weekday of every event, as `hour_and_weekday` has them; 1970 began on a Thursday."""
    hours, days = time_ms // _HOURS % 24, (time_ms // _DAYS + 3) % 7
    return [(f"hour={hour}", f"weekday={day}") for hour, day in zip(hours.tolist(), days.tolist(), strict=True)]


def _joined(parts: Sequence[Entries]) -> Entries:
    return Entries(
        list_id=np.concatenate([part.list_id for part in parts]),
        other=np.concatenate([part.other for part in parts]),
        weight=np.concatenate([part.weight for part in parts]),
        time_ms=np.concatenate([part.time_ms for part in parts]),
    )
