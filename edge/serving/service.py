"""The query service without HTTP: events in, answers out, one release swapped for the next between two requests.

Everything but the writing of events runs in the event loop's thread: a read of the store takes some 50 µs and the
model about a millisecond, which is less than handing either to another thread and back costs under load. How an answer
comes about is told in `edge.serving.recommender`.
"""

import asyncio
from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Callable, Collection, Sequence
from time import monotonic, perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge.arranging.arranging import Arranging
from edge.records.adding import AddOutcome
from edge.records.batch import Batch
from edge.records.events import Event
from edge.records.items import UnknownItemError as UnknownItemError  # noqa: PLC0414 - what similar raises
from edge.records.store import Past, Store
from edge.serving.degradation import Reason, Rung
from edge.serving.filters import ANYTHING, Filter, allowed, forget_masks
from edge.serving.listening import Neighbours
from edge.serving.metrics import Metrics
from edge.serving.query import Answer, Query
from edge.serving.ranker import Ranker, best
from edge.serving.recommender import Recommender, named
from edge.serving.release import Loaded
from edge.serving.remembered import MOST_BYTES
from edge.serving.shelf import MOST_FOLLOWED, Shelf
from edge.serving.tally import Tally
from edge.serving.writing import EventWriter
from protocol.errors import FederationError

_RECENT = 64
_EVENT_ID_BYTES = 12
_FEW = 8
LOOK_AGAIN_SECONDS = 30.0
FOLLOW_SECONDS = 0.5
DEADLINE_MS = 100.0
_FAILURES = frozenset({Reason.MODEL_ERROR, Reason.MODEL_PAUSED})


_Result = TypeVar("_Result")


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
        deadline_ms: float = DEADLINE_MS,
        arranging: Arranging | None = None,
        neighbours: Neighbours | None = None,
        remembered_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Serve from this until it is swapped.

        Args:
            draw: so many random bytes, for the names of answers.
            deadline_ms: an answer is of no use later than that; what would take longer is left out of it.
            arranging: scenarios and promotions; None: those of the store.
            neighbours: what goes with what; None: nobody knows.
            remembered_bytes: memory for what was worked out lately of the same past.
            clock: seconds that never go back.
        """
        self.store = store
        self.metrics = metrics or Metrics()
        self.now_ms = now_ms
        self._draw = draw
        self.recent: deque[Query] = deque(maxlen=_RECENT)
        """Newest queries, for trying a release out before it serves; in memory only."""
        self.tally = Tally()
        """Of the release that is served."""
        self.recommender = Recommender(
            store,
            draw=draw,
            now_ms=now_ms,
            clock=clock,
            deadline_seconds=deadline_ms / 1_000,
            arranging=arranging or Arranging(store),
            neighbours=neighbours,
            remembered_bytes=remembered_bytes,
            note_state=self.metrics.note_submodel,
        )
        self._writer = EventWriter(store)
        self._foreign = store.foreign_commits()
        self._recount = False
        self._following = False
        self._reading, self._looking = asyncio.Lock(), asyncio.Lock()
        self._standby: tuple[Loaded, Tally] | None = None
        self._loaded = loaded
        self.swap(loaded)

    @property
    def loaded(self) -> Loaded:
        return self._loaded

    @property
    def arranging(self) -> Arranging:
        """Scenarios and promotions."""
        return self.recommender.arranging

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
        if named(self._loaded.release) != named(loaded.release):
            self.tally = Tally()
        before, self._loaded = self._loaded, loaded
        if _model(before) is not _model(loaded):
            self.recommender.forget_model()
        self.metrics.note_release(loaded.release.version if loaded.release else 0)

    def try_out(self, loaded: Loaded) -> None:
        """Answer from this from the next request on, and keep what served before for `settle` or `take_back`."""
        before = self._standby or (self._loaded, self.tally)
        self.swap(loaded)
        self._standby = before
        self.recommender.listening.asks_anew = True
        self.metrics.note_trial(loaded.release.version if loaded.release else 0)

    def settle(self) -> None:
        """Free what served before the trial."""
        self._standby = None
        self.recommender.listening.asks_anew = False
        self.metrics.note_trial(0)

    def take_back(self) -> None:
        """Answer from what served before the trial, from the next request on."""
        self.recommender.listening.asks_anew = False
        if self._standby is not None:
            loaded, tally = self._standby
            self._standby = None
            self.swap(loaded)
            self.tally = tally
        self.metrics.note_trial(0)

    def close(self) -> None:
        self._writer.close()
        self.recommender.close()

    async def add_events(self, events: Sequence[Event] | Batch) -> AddOutcome:
        """Write checked events; when this returns they are on disk, and the next answer knows them.

        Raises:
            UnknownItemError: an item is not listed here, though the site lists its items; nothing was written.
            NoSpaceError: the disk is full; nothing was written.
        """
        batch = events if isinstance(events, Batch) else Batch.of(events)
        named = batch.named_items()
        if len(named) > _FEW or not all(map(self._loaded.shelf.lists, named)):  # else the store need not be asked
            self._check_listed(named)
        outcome = await self._writer.add(batch)
        self.metrics.note_events(added=outcome.added, duplicates=outcome.duplicates)
        if outcome.duplicates:
            self._recount = True  # which of them were new is not known here
        elif outcome.bought:
            for shelf in self._shelves():
                shelf.note_purchases(outcome.bought)
        return outcome

    def _check_listed(self, named: Collection[str]) -> None:
        unknown = self.store.unlisted(named)
        if unknown:
            raise UnknownItemError(f"item {min(unknown)} is not listed", advice="list it first")

    async def change(self, change: Callable[[Store], _Result]) -> _Result:
        """Carry out another change of the store, in the thread that writes; what it raises is raised here.

        The next answer knows of the items that were changed.
        """
        result = await self._writer.run(lambda: change(self.store))
        await self.follow()
        return result

    def forget(self, names: Collection[str]) -> None:
        """Users or sessions were erased: nothing that is kept in memory knows them any more."""
        kept = [query for query in self.recent if query.user not in names and query.session not in names]
        self.recent.clear()
        self.recent.extend(kept)
        self.recommender.forget_pasts()
        self._recount = True

    def recount(self) -> None:
        """Events were deleted: count anew at the next look."""
        self._recount = True

    def drop_caches(self) -> None:
        """Let go of what can be had again: memory is short."""
        self.recommender.drop_caches()
        forget_masks()
        for shelf in self._shelves():
            shelf.numbering.drop_caches()
        for loaded in (self._loaded, self.standby):
            if loaded is not None and loaded.vectors is not None:
                loaded.vectors.nearest.forget()
        with self.store.reading() as db:
            db.execute("PRAGMA shrink_memory")

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
        """Follow the items, and look again every now and then, until cancelled."""
        while True:
            if attributes := self.arranging.attributes():
                await self.know(attributes)
            for _ in range(round(LOOK_AGAIN_SECONDS / FOLLOW_SECONDS)):
                await asyncio.sleep(FOLLOW_SECONDS)
                await self.follow()
            await self.look_again()

    def follow_items(self) -> bool:
        """Take in items that have changed, if they are few; False: they are many, and `follow` takes them in."""
        followed = [shelf.follow() for shelf in self._shelves()]
        return all(followed)

    async def follow(self) -> None:
        """Take in items that have changed: few at once, many a few at a time, so that answers pass in between."""
        if self.follow_items() or self._following:
            return
        self._following = True
        try:
            for shelf in self._shelves():
                while changed := await asyncio.to_thread(shelf.changed):
                    for start in range(0, len(changed), MOST_FOLLOWED):
                        shelf.take_in(changed[start : start + MOST_FOLLOWED])
                        self._embed()
                        await asyncio.sleep(0)
        finally:
            self._following = False

    def _embed(self) -> None:
        for loaded in (self._loaded, self.standby):
            if loaded is not None:
                loaded.embed()

    async def know(self, names: Collection[str]) -> None:
        """Read beside the loop what these attributes say of the items: a question about them then holds up nobody."""
        if not any(shelf.numbering.lacks(names) for shelf in self._shelves()):
            return
        async with self._reading:
            for shelf in self._shelves():
                numbering = shelf.numbering
                if numbering.lacks(names):
                    reading = numbering.begin_reading(names)
                    try:
                        await asyncio.to_thread(reading.read)
                    finally:
                        numbering.finish_reading(reading)

    async def look_round(self, items: Collection[str], *, loaded: Loaded | None = None) -> None:
        """Look beside the loop for what is like these items, where that takes long: an answer then holds up nobody.

        Args:
            loaded: in its vectors; None: in those that are served.
        """
        loaded = loaded or self._loaded
        for place in map(loaded.shelf.place, items):
            if loaded.vectors is None or place is None:
                continue
            async with self._looking:
                search = loaded.vectors.search_for(place)
                if search is not None:
                    loaded.vectors.nearest.keep(place, await asyncio.to_thread(search))

    async def look_again(self) -> None:
        """Take in what another process has imported meanwhile. The reading is done in a thread of its own."""
        before = self._foreign
        self._foreign = self.store.foreign_commits()
        if self._foreign == before and not self._recount:
            return
        self._recount = False
        await self.follow()
        counts = await asyncio.to_thread(self.store.popularity)
        for shelf in self._shelves():
            shelf.count(counts)

    async def recommend(self, query: Query, *, loaded: Loaded | None = None, arm: str | None = None) -> Answer:
        """The best items for a user, a visit or a history, from the highest rung that carries.

        Args:
            loaded: answer from this; None: from what is served. Only that is counted for the release that is served.
            arm: ``experiment/arm`` under which is asked.

        Raises:
            BadInputError: there is no such scenario, or the filter names what no item has.
        """
        if likened := self.arranging.likened(query):
            await self.look_round(likened, loaded=loaded)
        self.recent.append(query)
        began, tally = perf_counter(), self.tally if loaded is None else Tally()
        try:
            answer = await self.recommender.recommend(loaded or self._loaded, query, arm=arm)
        except FederationError:
            raise
        except Exception:
            self._note_failure(tally, perf_counter() - began)
            raise
        self._note(tally, answer, perf_counter() - began, hurried=query.within_ms is not None)
        return answer

    def ask(self, loaded: Loaded, query: Query) -> Answer:
        """What would be answered from this; nothing is counted."""
        return self.recommender.ask(loaded, query)

    def past(self, loaded: Loaded, query: Query) -> Past:
        """Whose past a query is about, in places."""
        return self.recommender.past(loaded, query)

    def score(self, loaded: Loaded, past: Past, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[n], what these places would score for somebody of this past, were they the candidates."""
        return self.recommender.score(loaded, past, places)

    async def similar(
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
        loaded = self._loaded
        mask = allowed(loaded.shelf, wanted, [*exclude, item])
        await self.look_round([item], loaded=loaded)
        return self._timed(lambda: self._similar(loaded, place, mask, limit=limit))

    def _similar(self, loaded: Loaded, place: int, mask: NDArray[np.bool_], *, limit: int) -> Answer:
        shelf = loaded.shelf
        if loaded.vectors is not None and loaded.vectors.known(np.array([place]))[0]:
            places, cosines = loaded.vectors.similar(place, mask, k=limit)
            return self._answer(loaded, Rung.SEQUENCE, (), places, cosines)
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
            self._note_failure(tally, perf_counter() - began)
            raise
        self._note(tally, answer, perf_counter() - began, hurried=False)
        return answer

    def _note(self, tally: Tally, answer: Answer, seconds: float, *, hurried: bool) -> None:
        """Count an answer. That a model is too slow for a hurried question is no failure of the release."""
        failed = any(reason in _FAILURES or (reason is Reason.MODEL_SLOW and not hurried) for reason in answer.reasons)
        tally.note(seconds, failed=failed)
        if failed:
            self.metrics.note_failed_answer()
        self.metrics.note_answer(answer.rung, answer.reasons)

    def _note_failure(self, tally: Tally, seconds: float) -> None:
        tally.note(seconds, failed=True)
        self.metrics.note_failed_answer()

    def _answer(
        self,
        loaded: Loaded,
        rung: Rung,
        reasons: tuple[Reason, ...],
        places: NDArray[np.int64],
        scores: NDArray[np.float32],
    ) -> Answer:
        items = self.recommender.items(loaded.shelf, places, scores)
        return self.recommender.answer(loaded, rung, reasons, items)


def _model(loaded: Loaded) -> Ranker | None:
    return loaded.release.ranker if loaded.release else None
