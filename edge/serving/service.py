"""The query service without HTTP: events in, answers out, one release swapped for the next between two requests.

Everything but the writing of events runs in the event loop's thread: a read of the store takes some 100 µs and the
model about a millisecond, which is less than handing either to another thread and back costs under load.
"""

import asyncio
from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from edge.records.events import Event
from edge.records.store import AddOutcome, Past, Store
from edge.serving.degradation import Footing, Reason, Rung, find_footing
from edge.serving.filters import ANYTHING, Filter, allowed
from edge.serving.fitting import LINES
from edge.serving.fusion import TOP, lay_out
from edge.serving.metrics import Metrics
from edge.serving.query import Answer, Query, Recommended
from edge.serving.ranker import Ranked, best
from edge.serving.release import Loaded, Release
from edge.serving.shelf import Shelf
from edge.serving.tally import Tally
from edge.serving.writing import EventWriter
from protocol import rec_id
from protocol.errors import BadInputError, FederationError

_RECENT = 64
_EVENT_ID_BYTES = 12
LOOK_AGAIN_SECONDS = 30.0
_ENOUGH = 30  # of the model's best that a filter leaves: with fewer, it scores all that the filter allows


class UnknownItemError(BadInputError):
    """Neither this site nor the shared catalogue knows the item."""


class Service:
    """One site's query service."""

    def __init__(
        self,
        store: Store,
        loaded: Loaded,
        *,
        draw: Callable[[int], bytes],
        now_ms: Callable[[], int],
        metrics: Metrics | None = None,
    ) -> None:
        """Serve from this until it is swapped.

        Args:
            draw: so many random bytes, for the names of answers.
        """
        self.store = store
        self.metrics = metrics or Metrics()
        self.now_ms = now_ms
        self._draw = draw
        self.recent: deque[Query] = deque(maxlen=_RECENT)
        """Newest queries, for trying a release out before it serves; in memory only."""
        self.tally = Tally()
        """Of the release that is served."""
        self._writer = EventWriter(store)
        self._foreign = store.foreign_commits()
        self._recount = False
        self._standby: tuple[Loaded, Tally] | None = None
        self._loaded = loaded
        self.swap(loaded)

    @property
    def loaded(self) -> Loaded:
        return self._loaded

    @property
    def standby(self) -> Loaded | None:
        """What served before the release on trial, ready to serve again."""
        return self._standby[0] if self._standby else None

    @property
    def tally_before(self) -> Tally | None:
        """Of what served before the release on trial."""
        return self._standby[1] if self._standby else None

    def swap(self, loaded: Loaded) -> None:
        """Answer from this from the next request on; the old model is freed when the last answer from it is out."""
        if _named(self._loaded.release) != _named(loaded.release):
            self.tally = Tally()
        self._loaded = loaded
        self.metrics.note_release(loaded.release.version if loaded.release else 0)

    def try_out(self, loaded: Loaded) -> None:
        """Answer from this from the next request on, and keep what served before for `settle` or `take_back`."""
        before = self._standby or (self._loaded, self.tally)
        self.swap(loaded)
        self._standby = before
        self.metrics.note_trial(loaded.release.version if loaded.release else 0)

    def settle(self) -> None:
        """Free what served before the trial."""
        self._standby = None
        self.metrics.note_trial(0)

    def take_back(self) -> None:
        """Answer from what served before the trial, from the next request on."""
        if self._standby is not None:
            loaded, tally = self._standby
            self._standby = None
            self.swap(loaded)
            self.tally = tally
        self.metrics.note_trial(0)

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
                    for shelf in self._shelves():
                        shelf.note_purchase(event.item)
        return outcome

    def new_event_id(self) -> str:
        """For an event to which the shop has given none."""
        return urlsafe_b64encode(self._draw(_EVENT_ID_BYTES)).decode("ascii")

    def _shelves(self) -> list[Shelf]:
        """Those in use, each numbering once."""
        shelves = [self._loaded.shelf]
        if self._standby and self._standby[0].shelf.numbering is not shelves[0].numbering:
            shelves.append(self._standby[0].shelf)
        return shelves

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
            for shelf in self._shelves():
                await asyncio.to_thread(shelf.count_again)
            return
        standby = self.standby
        renewed, spare = await asyncio.to_thread(self._renewed, loaded, standby)
        if self._loaded is loaded and self.standby is standby:  # else a release came in between, with a newer look
            self._loaded = renewed
            if spare is not None and self._standby is not None:
                self._standby = spare, self._standby[1]

    def _renewed(self, loaded: Loaded, standby: Loaded | None) -> tuple[Loaded, Loaded | None]:
        """Both with a newer look at the items."""
        renewed = Loaded.of(self.store, loaded.release, loaded.weights)
        if standby is None:
            return renewed, None
        shared = renewed.with_release(standby.release, standby.weights) if standby.release else None
        return renewed, shared or Loaded.of(self.store, standby.release, standby.weights)

    def recommend(self, query: Query) -> Answer:
        """The best items for a user or a history, from the highest rung that carries."""
        self.recent.append(query)
        return self._timed(lambda: self.ask(self._loaded, query))

    def ask(self, loaded: Loaded, query: Query) -> Answer:
        """What would be answered from this; nothing is counted."""
        past = self._past(loaded, query)
        unknown = Reason.UNKNOWN_USER if query.user is not None else Reason.UNKNOWN_ITEMS
        footing = find_footing(loaded.release, past, unknown=unknown)
        mask = allowed(loaded.shelf, query.filter, query.exclude)
        places, scores = self._rank(loaded, past, footing, mask, query)
        return self._answer(loaded, footing.rung, footing.reasons, places, scores)

    def similar(
        self,
        item: str,
        *,
        limit: int,
        wanted: Filter = ANYTHING,
        exclude: Sequence[str] = (),
    ) -> Answer:
        """Items like this one by the model's vectors; popular ones of its category when the model does not know it.

        Raises:
            UnknownItemError: nobody knows it.
        """
        place = self._loaded.shelf.place(item)
        if place is None:
            raise UnknownItemError(f"item {item} is unknown")
        mask = allowed(self._loaded.shelf, wanted, [*exclude, item])
        return self._timed(lambda: self._similar(self._loaded, place, mask, limit=limit))

    def _similar(self, loaded: Loaded, place: int, mask: NDArray[np.bool_], *, limit: int) -> Answer:
        shelf = loaded.shelf
        if loaded.release is not None and place <= shelf.rows:
            rows, cosines = loaded.release.ranker.similar(place, mask[: shelf.rows + 1], k=limit)
            return self._answer(loaded, Rung.SEQUENCE, (), rows, cosines)
        reason = Reason.NO_RELEASE if loaded.release is None else Reason.PRIVATE_ITEM
        kin = mask & (shelf.category == shelf.category[place])
        places = best(np.where(kin, shelf.popularity(), -np.inf).astype(np.float32), limit)
        return self._answer(loaded, Rung.POPULARITY, (reason,), places, shelf.bought[places])

    def _timed(self, ask: Callable[[], Answer]) -> Answer:
        """Answer, and count it for the release that is served; a store that cannot be read is no fault of it."""
        began, tally = perf_counter(), self.tally
        try:
            answer = ask()
        except FederationError:
            raise
        except Exception:
            tally.note(perf_counter() - began, failed=True)
            self.metrics.note_failed_answer()
            raise
        failed = Reason.MODEL_ERROR in answer.reasons
        tally.note(perf_counter() - began, failed=failed)
        if failed:
            self.metrics.note_failed_answer()
        self.metrics.note_answer(answer.rung, answer.reasons)
        return answer

    def _past(self, loaded: Loaded, query: Query) -> Past:
        """The user's past in places. A given history has no times: its items count as looked at, in their order."""
        if query.user is not None:
            return loaded.shelf.placed(self.store.past(query.user, limit=LINES))
        places = [place for name in query.history or () if (place := loaded.shelf.place(name)) is not None]
        item = np.array(places, np.int64)
        return Past(item=item, time_ms=np.arange(len(item)), purchased=np.zeros(len(item), np.bool_))

    def _rank(
        self, loaded: Loaded, past: Past, footing: Footing, mask: NDArray[np.bool_], query: Query
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Places and scores, best first; filled up with popular items where the candidates are too few."""
        release, ranked, market = loaded.release, footing.ranked, loaded.market()
        if ranked is not None and release is not None:
            kept = np.count_nonzero(mask[ranked.rows])
            if kept < min(max(query.limit, _ENOUGH), len(ranked.rows)):
                rows = np.flatnonzero(mask[: loaded.shelf.rows + 1])
                rows = rows[best(release.ranker.score(ranked.state, rows), TOP)]
                ranked = Ranked(state=ranked.state, rows=rows)
        slate = lay_out(past, market, ranker=release.ranker if release else None, ranked=ranked, allowed=mask)
        said = slate.scores(loaded.weights.vector()).astype(np.float32)
        order = best(said, query.limit)
        places, scores = slate.places[order], said[order]
        if len(places) < query.limit:
            mask[slate.places] = False
            rest = best(
                np.where(mask, loaded.shelf.popularity(), -np.inf).astype(np.float32), query.limit - len(places)
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
        shelf = loaded.shelf
        items = [
            Recommended(item=shelf.name(place), score=round(score, 6), title=shelf.title(place))
            for place, score in zip(places.tolist(), scores.tolist(), strict=True)
        ]
        version, sha256 = _named(loaded.release)
        return Answer(
            rec_id=rec_id.make(version=version, sha256=sha256, drawn=self._draw(rec_id.RANDOM_BYTES)),
            release=version or None,
            rung=rung,
            reasons=reasons,
            items=items,
        )


def _named(release: Release | None) -> tuple[int, str]:
    """Version and digest; before the first release 0 and nothing."""
    return (release.version, release.sha256) if release else (0, "")
