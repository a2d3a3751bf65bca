"""The query service without HTTP: events in, answers out, one release swapped for the next between two requests.

Everything but the writing of events runs in the event loop's thread: a read of the store takes some 100 µs and the
model about a millisecond, which is less than handing either to another thread and back costs under load.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.events import Event
from edge.serving.degradation import Footing, Reason, Rung, find_footing
from edge.serving.fitting import LINES
from edge.serving.fusion import TOP, lay_out
from edge.serving.metrics import Metrics
from edge.serving.ranker import Ranked, best
from edge.serving.release import Loaded
from edge.serving.writing import EventWriter
from edge.store import AddOutcome, Past, Store
from protocol.errors import BadInputError

_RECENT = 64
LOOK_AGAIN_SECONDS = 30.0
_ENOUGH = 30  # of the model's best that a filter leaves: with fewer, it scores all that the filter allows


class UnknownItemError(BadInputError):
    """Neither this site nor the shared catalogue knows the item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a shop asks. Exactly one of user and history is given.

    Attributes:
        history: item ids, oldest first.
        categories: only items of these; None: of any.
        exclude: items that must not be in the answer.
    """

    user: str | None = None
    history: Sequence[str] | None = None
    limit: int = 10
    categories: Sequence[str] | None = None
    exclude: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommended:
    """One item of an answer; scores compare within one answer only."""

    item: str
    score: float
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Items, best first, and how good the answer is.

    Attributes:
        rec_id: events that follow from this answer echo it.
        release: version that answered; None before the first.
        reasons: why it is not the best rung; empty: it is.
    """

    rec_id: str
    release: int | None
    rung: Rung
    reasons: tuple[Reason, ...]
    items: list[Recommended]


class Service:
    """One site's query service."""

    def __init__(
        self,
        store: Store,
        loaded: Loaded,
        *,
        new_id: Callable[[], str],
        now_ms: Callable[[], int],
        metrics: Metrics | None = None,
    ) -> None:
        self.store = store
        self.metrics = metrics or Metrics()
        self.now_ms = now_ms
        self.new_id = new_id
        self.recent: deque[Query] = deque(maxlen=_RECENT)
        """Newest queries, for trying a release out before it serves; in memory only."""
        self._writer = EventWriter(store)
        self._foreign = store.foreign_commits()
        self._recount = False
        self.swap(loaded)

    @property
    def loaded(self) -> Loaded:
        return self._loaded

    def swap(self, loaded: Loaded) -> None:
        """Answer from this from the next request on; the old model is freed when the last answer from it is out."""
        self._loaded = loaded
        self.metrics.note_release(loaded.release.version if loaded.release else 0)

    def close(self) -> None:
        self._writer.close()

    async def add_events(self, events: Sequence[Event]) -> AddOutcome:
        """Write checked events; when this returns they are on disk, and the next answer knows them.

        Raises:
            UnknownItemError: an item is not listed here, though the site lists its items; nothing was written.
            NoSpaceError: the disk is full; nothing was written.
        """
        unknown = self.store.unlisted({event.item for event in events if event.item is not None})
        if unknown:
            raise UnknownItemError(f"item {min(unknown)} is not listed", advice="list it first")
        outcome = await self._writer.add(events)
        self.metrics.note_events(added=outcome.added, duplicates=outcome.duplicates)
        if outcome.duplicates:
            self._recount = True  # which of them were new is not known here
        else:
            for event in events:
                if event.type == "purchase" and event.item is not None:
                    self._loaded.shelf.note_purchase(event.item)
        return outcome

    async def watch(self) -> None:
        """Look again every now and then, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            await self.look_again()

    async def look_again(self) -> None:
        """Take in what another process has imported meanwhile. The reading is done in a thread of its own."""
        before, loaded = self._foreign, self._loaded
        self._foreign = self.store.foreign_commits()
        if self._foreign == before and not self._recount:
            return
        self._recount = False
        if self.store.items_mark() == loaded.shelf.items_mark:
            await asyncio.to_thread(loaded.shelf.count_again)
            return
        renewed = await asyncio.to_thread(Loaded.of, self.store, loaded.release, loaded.weights)
        if self._loaded is loaded:  # else a release came in between, with a newer look at the items
            self.swap(renewed)

    def recommend(self, query: Query) -> Answer:
        """The best items for a user or a history, from the highest rung that carries."""
        loaded, past = self._loaded, self._past(query)
        unknown = Reason.UNKNOWN_USER if query.user is not None else Reason.UNKNOWN_ITEMS
        footing = find_footing(loaded.release, past, unknown=unknown)
        allowed = loaded.shelf.allowed(query.categories, query.exclude)
        places, scores = self._rank(loaded, past, footing, allowed, query)
        self.recent.append(query)
        return self._answer(loaded, footing.rung, footing.reasons, places, scores)

    def similar(
        self, item: str, *, limit: int, categories: Sequence[str] | None = None, exclude: Sequence[str] = ()
    ) -> Answer:
        """Items like this one by the model's vectors; popular ones of its category when the model does not know it.

        Raises:
            UnknownItemError: nobody knows it.
        """
        loaded = self._loaded
        shelf, place = loaded.shelf, loaded.shelf.place(item)
        if place is None:
            raise UnknownItemError(f"item {item} is unknown")
        allowed = shelf.allowed(categories, [*exclude, item])
        if loaded.release is not None and place <= shelf.rows:
            rows, cosines = loaded.release.ranker.similar(place, allowed[: shelf.rows + 1], k=limit)
            return self._answer(loaded, Rung.SEQUENCE, (), rows, cosines)
        reason = Reason.NO_RELEASE if loaded.release is None else Reason.PRIVATE_ITEM
        kin = allowed & (shelf.category == shelf.category[place])
        places = best(np.where(kin, shelf.popularity(), -np.inf).astype(np.float32), limit)
        return self._answer(loaded, Rung.POPULARITY, (reason,), places, shelf.bought[places])

    def _past(self, query: Query) -> Past:
        """The user's past in places. A given history has no times: its items count as looked at, in their order."""
        if query.user is not None:
            return self._loaded.shelf.placed(self.store.past(query.user, limit=LINES))
        places = [place for name in query.history or () if (place := self._loaded.shelf.place(name)) is not None]
        item = np.array(places, np.int64)
        return Past(item=item, time_ms=np.arange(len(item)), purchased=np.zeros(len(item), np.bool_))

    def _rank(
        self, loaded: Loaded, past: Past, footing: Footing, allowed: NDArray[np.bool_], query: Query
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Places and scores, best first; filled up with popular items where the candidates are too few."""
        release, ranked, market = loaded.release, footing.ranked, loaded.market()
        if ranked is not None and release is not None:
            kept = np.count_nonzero(allowed[ranked.rows])
            if kept < min(max(query.limit, _ENOUGH), len(ranked.rows)):
                rows = np.flatnonzero(allowed[: loaded.shelf.rows + 1])
                rows = rows[best(release.ranker.score(ranked.state, rows), TOP)]
                ranked = Ranked(state=ranked.state, rows=rows)
        slate = lay_out(past, market, ranker=release.ranker if release else None, ranked=ranked, allowed=allowed)
        said = slate.scores(loaded.weights.vector()).astype(np.float32)
        order = best(said, query.limit)
        places, scores = slate.places[order], said[order]
        if len(places) < query.limit:
            allowed[slate.places] = False
            rest = best(
                np.where(allowed, loaded.shelf.popularity(), -np.inf).astype(np.float32), query.limit - len(places)
            )
            floor = float(said.min(initial=0)) - 1
            places = np.r_[places, rest]
            scores = np.r_[scores, floor - np.arange(len(rest), dtype=np.float32)]
        return places, scores

    def _answer(
        self,
        loaded: Loaded,
        rung: Rung,
        reasons: tuple[Reason, ...],
        places: NDArray[np.int64],
        scores: NDArray[np.float32],
    ) -> Answer:
        self.metrics.note_answer(rung, reasons)
        shelf = loaded.shelf
        items = [
            Recommended(item=shelf.name(place), score=round(score, 6), title=shelf.title(place))
            for place, score in zip(places.tolist(), scores.tolist(), strict=True)
        ]
        version = loaded.release.version if loaded.release else None
        return Answer(rec_id=self.new_id(), release=version, rung=rung, reasons=reasons, items=items)
