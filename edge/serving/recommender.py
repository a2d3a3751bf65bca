"""From a question to an answer: read the past, hear the voices, score the candidates, arrange them, name them.

Every step runs in the event loop's thread. Only the model is waited for (`edge.serving.batching`), and nothing is kept
across that wait but what this answer needs. A submodel that is broken or too slow is left out and named; what is left
still makes an answer.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from edge.arranging.arrange import Note
from edge.arranging.arranging import Arranging, Prepared
from edge.records.store import Past, Store
from edge.serving.assortment import Assortments
from edge.serving.batching import Batching, Heard, Reading
from edge.serving.breaker import State
from edge.serving.deadline import Watchdog
from edge.serving.degradation import SILENCE, Reason, Rung
from edge.serving.fitting import LINES
from edge.serving.fusion import TOP, FusionWeights
from edge.serving.personal import habits
from edge.serving.query import Answer, Query, Recommended
from edge.serving.ranker import Ranked, best
from edge.serving.release import Loaded, Release
from edge.serving.remembered import Remembered
from edge.serving.shelf import POPULAR, Shelf
from edge.serving.slate import NEAR, NOTHING_NEAR, Market, Near, Slate, candidates, lay_out
from edge.serving.submodel import COMPANIONS, CONTEXT, NAMES, RECOMMEND, Submodel, Trouble
from edge.serving.vectors import Vectors
from protocol import rec_id

_ENOUGH: Final = 30  # of the model's best that a filter leaves: with fewer, it scores all that the filter allows
_DEEPEST: Final = 1_000
_SECONDED: Final = 1.0
"""What companions weigh at least where the model is silent, and the user's own habits speak."""
_ALONE: Final = 10.0
"""Likewise where nothing is known of the user: then they come first, and popularity fills up."""
_AT_A_TIME: Final = 8_192
_DIGITS: Final = 6
_NO_NOTES: Final[Mapping[int, Note]] = {}
_NOWHERE: Final = np.empty(0, np.int64)
_Said = TypeVar("_Said")
_log = structlog.get_logger(__name__)


class Neighbours(Protocol):
    """What goes with what, and what sells when and where: `edge.neighbours`."""

    def near(
        self, shelf: Shelf, places: NDArray[np.int64], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]: ...

    def prior(self, shelf: Shelf, context: Mapping[str, str], now_ms: int) -> NDArray[np.float32] | None: ...


@dataclass(slots=True, kw_only=True, eq=False)
class _Asked:
    """One question on its way.

    Attributes:
        own: the user's past in places; `past` is the same with what stands on the page.
        readable: int64[t], what of the past the model can read.
        until: by the clock, when the answer is of no use any more.
        version: of the shelf when `prepared` was made.
        silent: what could not be heard so far, and why.
    """

    query: Query
    own: Past
    past: Past
    readable: NDArray[np.int64]
    prepared: Prepared
    version: int
    arm: str | None
    until: float
    hurried: bool
    silent: dict[str, Trouble]


class Recommender:
    """One site's way to answer, whatever release is loaded."""

    def __init__(
        self,
        store: Store,
        *,
        draw: Callable[[int], bytes],
        now_ms: Callable[[], int],
        clock: Callable[[], float],
        deadline_seconds: float,
        arranging: Arranging,
        neighbours: Neighbours | None = None,
        note_state: Callable[[str, State], None] = lambda _name, _state: None,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            draw: so many random bytes, for the names of answers.
            clock: seconds that never go back.
            deadline_seconds: an answer is of no use later than that.
            note_state: told when the breaker of a submodel opens or closes.
        """
        self.arranging = arranging
        self.neighbours = neighbours
        self.deadline_seconds = deadline_seconds
        self._store = store
        self._draw = draw
        self._now_ms = now_ms
        self._clock = clock
        self._note_state = note_state
        self._watchdog = Watchdog(clock=clock)
        self._batching = Batching(watchdog=self._watchdog, clock=clock)
        self._assortments = Assortments(clock=clock)
        self._remembered = Remembered()
        self._submodels = {name: self._submodel(name) for name in NAMES}
        for name in NAMES:
            note_state(name, State.CLOSED)

    def close(self) -> None:
        """End what runs beside."""
        self._watchdog.close()

    def drop_caches(self) -> None:
        """Let go of what can be had again."""
        self._assortments.clear()

    def forget_pasts(self) -> None:
        """Somebody was erased: nothing of anybody's past stays in memory."""
        self._remembered.forget()

    def nbytes(self) -> int:
        """Bytes of all that is kept between answers."""
        return self._remembered.nbytes + self._assortments.nbytes

    def forget_model(self) -> None:
        """Another model is there: what was known of how the one before did is nothing to it."""
        self._submodels[RECOMMEND] = self._submodel(RECOMMEND)
        self._note_state(RECOMMEND, State.CLOSED)

    async def recommend(self, loaded: Loaded, query: Query, *, arm: str | None = None) -> Answer:
        """The best items, from the highest rung that carries.

        Raises:
            BadInputError: no such scenario, or a filter that means nothing here.
        """
        asked = self._read(loaded, query, arm)
        reading = self._reading(loaded, asked)
        return self._finish(loaded, asked, await self._batching.hear(reading) if reading else None)

    def ask(self, loaded: Loaded, query: Query) -> Answer:
        """The same at once, with nobody else."""
        asked = self._read(loaded, query, None)
        reading = self._reading(loaded, asked)
        return self._finish(loaded, asked, self._batching.hear_now([reading])[0] if reading else None)

    def past(self, loaded: Loaded, query: Query) -> Past:
        """Whose past it is, in places. A given history has no times: its items count as looked at, in their order."""
        if query.user is not None:
            return loaded.shelf.placed(self._store.past(query.user, limit=LINES))
        if query.session is not None:
            return loaded.shelf.placed(self._store.past_of_session(query.session, limit=LINES))
        return looked_at(_places(loaded.shelf, query.history or ()))

    def score(self, loaded: Loaded, past: Past, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[n], what these would score for somebody of this past, were they the candidates.

        Args:
            past: its items are places.
            places: int64[n], each once, in any order.
        """
        order = np.argsort(places)
        ranked = None
        readable = _readable(loaded, past)
        if loaded.release is not None and readable.size:
            ranked = loaded.release.ranker.rank(readable, k=1, vectors=loaded.vectors)
        near, weights = NOTHING_NEAR, loaded.weights
        if self.neighbours is not None and past.item.size and (ranked is None or weights.weighing.companion):
            near = self._near(loaded.shelf, past, until=self._clock() + self.deadline_seconds, silent={})
        if ranked is None and near.places.size:
            weights = weights.with_companions(_SECONDED)
        slate = lay_out(
            places[order],
            habits(past),
            _market(loaded.shelf, _NOWHERE),
            model=loaded.vectors,
            ranked=ranked,
            near=near,
        )
        scores = np.empty(len(places), np.float32)
        scores[order] = slate.scores(weights)
        return scores

    def _read(self, loaded: Loaded, query: Query, arm: str | None) -> _Asked:
        """All that is known before the model is asked."""
        shelf, seconds = loaded.shelf, self.deadline_seconds
        hurried = query.within_ms is not None and query.within_ms < 1_000 * seconds
        if hurried and query.within_ms is not None:
            seconds = query.within_ms / 1_000
        until, silent = self._clock() + seconds, dict[str, Trouble]()
        own = self.past(loaded, query)
        past = _with_items(own, _places(shelf, query.items)) if query.items else own
        return _Asked(
            query=query,
            own=own,
            past=past,
            readable=_readable(loaded, past),
            prepared=self._prepare(loaded, query, own, arm=arm, until=until, silent=silent),
            version=shelf.version,
            arm=arm,
            until=until,
            hurried=hurried,
            silent=silent,
        )

    def _prepare(
        self, loaded: Loaded, query: Query, past: Past, *, arm: str | None, until: float, silent: dict[str, Trouble]
    ) -> Prepared:
        near = None
        if self.neighbours is not None:
            near = partial(self._what_is_near, until=until, silent=silent)
        return self.arranging.prepare(
            query, loaded.shelf, past, now_ms=self._now_ms(), near=near, vectors=loaded.vectors, arm=arm
        )

    def _reading(self, loaded: Loaded, asked: _Asked) -> Reading | None:
        """What the model is asked; None: there is no model, or nothing that it could read."""
        if loaded.release is None or not asked.readable.size:
            return None
        return Reading(
            model=loaded.release.ranker,
            vectors=loaded.vectors,
            submodel=self._submodels[RECOMMEND],
            history=asked.readable,
            k=self._depth(loaded, asked),
            until=asked.until,
            hurried=asked.hurried,
        )

    def _depth(self, loaded: Loaded, asked: _Asked) -> int:
        """How many of the model's best are wanted so that a filter leaves enough of them."""
        left = self._assortments.of(loaded.shelf, asked.prepared.allowed).count / max(loaded.shelf.size - 1, 1)
        if left >= _ENOUGH / TOP or left * left * loaded.shelf.size < 2 * _ENOUGH:
            return TOP  # with so few left it is less work to score them all
        return min(round(2 * _ENOUGH / left), _DEEPEST)

    def _finish(self, loaded: Loaded, asked: _Asked, heard: Heard | None) -> Answer:
        """Score, arrange and name."""
        if asked.version != loaded.shelf.version:  # items have come while the model was waited for
            asked.prepared = self._prepare(
                loaded, asked.query, asked.own, arm=asked.arm, until=asked.until, silent=asked.silent
            )
        prepared, weights = asked.prepared, loaded.weights
        if isinstance(heard, Trouble):
            asked.silent[RECOMMEND] = heard
        ranked = self._narrowed(loaded, asked, heard) if isinstance(heard, Ranked) else None
        near = NOTHING_NEAR
        if self.neighbours is not None and asked.past.item.size and (ranked is None or weights.weighing.companion):
            near = self._near(loaded.shelf, asked.past, until=asked.until, silent=asked.silent)
        if ranked is None and near.places.size:
            weights = weights.with_companions(_SECONDED if asked.own.item.size else _ALONE)
        if prepared.scenario.voices is not None:
            weights = weights.only(prepared.scenario.voices)
        slate = self._slate(loaded, asked, ranked, near)
        rung, scores = self._scored(loaded, asked, slate, weights, ranked=ranked, near=near)
        arranged = prepared.arrange(slate.places, scores)
        items = named_items(loaded.shelf, arranged.places, arranged.scores, arranged.notes)
        return self.answer(
            loaded,
            rung,
            _reasons(loaded, asked),
            items,
            skipped=tuple(asked.silent),
            arm=asked.arm,
        )

    def answer(
        self,
        loaded: Loaded,
        rung: Rung,
        reasons: tuple[Reason, ...],
        items: list[Recommended],
        *,
        skipped: tuple[str, ...] = (),
        arm: str | None = None,
    ) -> Answer:
        """Give an answer its name."""
        version, sha256 = named(loaded.release)
        return Answer(
            rec_id=rec_id.make(version=version, sha256=sha256, drawn=self._draw(rec_id.RANDOM_BYTES)),
            release=version or None,
            rung=rung,
            reasons=reasons,
            items=items,
            arm=arm,
            skipped=skipped,
        )

    def _narrowed(self, loaded: Loaded, asked: _Asked, ranked: Ranked) -> Ranked:
        """The model's best of what is allowed, private items among them: enough of them, if there are."""
        allowed, vectors = asked.prepared.allowed, loaded.vectors
        if vectors is None:
            return ranked
        rows = ranked.rows[allowed[ranked.rows]]
        if len(rows) < min(max(asked.query.limit, _ENOUGH), len(ranked.rows)):
            rows = np.flatnonzero(allowed[: loaded.shelf.rows + 1])
            if len(rows) > TOP:
                rows = rows[best(_scores(vectors, ranked.state, rows), TOP)]
        return vectors.with_private(Ranked(state=ranked.state, rows=rows[:TOP]), allowed)

    def _slate(self, loaded: Loaded, asked: _Asked, ranked: Ranked | None, near: Near) -> Slate:
        """All candidates, and what the voices say of them."""
        prepared, own = asked.prepared, self._remembered.habits(asked.past)
        assortment = self._assortments.of(
            loaded.shelf, prepared.allowed, popular=max(POPULAR, prepared.wants + len(prepared.hidden))
        )
        sources = [own.places, assortment.popular]
        sources += [each for each in (near.places, prepared.extra, ranked.rows if ranked else _NOWHERE) if each.size]
        places = candidates(sources, allowed=prepared.allowed, hidden=prepared.hidden)
        return lay_out(
            places,
            own,
            _market(loaded.shelf, assortment.popular),
            model=loaded.vectors,
            ranked=ranked,
            near=near,
        )

    def _scored(
        self, loaded: Loaded, asked: _Asked, slate: Slate, weights: FusionWeights, *, ranked: Ranked | None, near: Near
    ) -> tuple[Rung, NDArray[np.float32]]:
        """The rung that carries, and float32[n], the candidates' scores."""
        scores = slate.votes(weights) if asked.prepared.scenario.fusion == "votes" else slate.scores(weights)
        if ranked is not None:
            return Rung.SEQUENCE, scores
        if asked.own.item.size:
            return Rung.HABITS, scores
        if near.places.size:
            return Rung.COMPANIONS, scores
        prior = self._prior(loaded.shelf, asked) if asked.query.context else None
        if prior is not None:
            return Rung.CONTEXT, prior[slate.places]
        return Rung.POPULARITY, scores

    def _near(self, shelf: Shelf, past: Past, *, until: float, silent: dict[str, Trouble]) -> Near:
        places, weights = self._what_is_near(shelf, past.item, NEAR, until=until, silent=silent)
        return Near(places=places, weights=weights)

    def _what_is_near(
        self, shelf: Shelf, places: NDArray[np.int64], k: int, *, until: float, silent: dict[str, Trouble]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """What goes with these; nothing, if that cannot be told."""
        neighbours = self.neighbours
        nothing = NOTHING_NEAR.places, NOTHING_NEAR.weights
        if neighbours is None:
            return nothing
        found = self._guarded(COMPANIONS, lambda: neighbours.near(shelf, places, k), until=until, silent=silent)
        return found if found is not None else nothing

    def _prior(self, shelf: Shelf, asked: _Asked) -> NDArray[np.float32] | None:
        """float32[size], what sells then and there; None: that cannot be told."""
        neighbours, context = self.neighbours, asked.query.context
        if neighbours is None:
            return None
        return self._guarded(
            CONTEXT,
            lambda: neighbours.prior(shelf, context, self._now_ms()),
            until=asked.until,
            silent=asked.silent,
        )

    def _guarded(
        self, name: str, ask: Callable[[], _Said | None], *, until: float, silent: dict[str, Trouble]
    ) -> _Said | None:
        """What a submodel says; None, and a note why, where it does not."""
        submodel, began = self._submodels[name], self._clock()
        trouble = submodel.trouble(left=until - began)
        said = None
        if trouble is None:
            try:
                said = ask()
            except Exception as error:  # noqa: BLE001 - whatever it is, the answer goes on without it, and says so
                trouble = Trouble.FAILED
                _log.warning("a submodel failed", submodel=name, why=type(error).__name__)
            submodel.note(self._clock() - began, failed=trouble is not None)
        if trouble is not None:
            silent[name] = trouble
        return said

    def _submodel(self, name: str) -> Submodel:
        return Submodel(clock=self._clock, changed=partial(self._note_state, name))


def looked_at(places: NDArray[np.int64]) -> Past:
    """A past in which these were looked at, in this order."""
    return Past(item=places, time_ms=np.arange(len(places)), purchased=np.zeros(len(places), np.bool_))


def named_items(
    shelf: Shelf, places: NDArray[np.int64], scores: NDArray[np.float32], notes: Mapping[int, Note] = _NO_NOTES
) -> list[Recommended]:
    """The items of an answer as a shop sees them."""
    rounded = scores.astype(np.float64).round(_DIGITS).tolist()
    return [
        Recommended(item=shelf.name(place), score=score, title=shelf.title(place), note=notes.get(place))
        for place, score in zip(places.tolist(), rounded, strict=True)
    ]


def named(release: Release | None) -> tuple[int, str]:
    """Version and digest; before the first release 0 and nothing."""
    return (release.version, release.sha256) if release else (0, "")


def _with_items(past: Past, places: NDArray[np.int64]) -> Past:
    """What stands on the page is looked at now."""
    last = past.time_ms[-1] if past.time_ms.size else 0
    return Past(
        item=np.concatenate([past.item, places]),
        time_ms=np.concatenate([past.time_ms, np.full(len(places), last)]),
        purchased=np.concatenate([past.purchased, np.zeros(len(places), np.bool_)]),
    )


def _places(shelf: Shelf, items: Iterable[str]) -> NDArray[np.int64]:
    return np.array([place for item in items if (place := shelf.place(item)) is not None], np.int64)


def _readable(loaded: Loaded, past: Past) -> NDArray[np.int64]:
    return loaded.vectors.readable(past.item) if loaded.vectors is not None else _NOWHERE


def _scores(vectors: Vectors, state: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32[n], a part at a time: the vectors of a large catalogue would not fit into the cache, nor be welcome."""
    if len(rows) <= _AT_A_TIME:
        return vectors.score(state, rows)
    parts = [vectors.score(state, rows[start : start + _AT_A_TIME]) for start in range(0, len(rows), _AT_A_TIME)]
    return np.concatenate(parts)


def _market(shelf: Shelf, popular: NDArray[np.int64]) -> Market:
    return Market(site=shelf.bought, federation=shelf.federation, popular=popular)


def _reasons(loaded: Loaded, asked: _Asked) -> tuple[Reason, ...]:
    """Why the answer is not of the best rung, in the order of the ladder."""
    reasons = []
    if loaded.release is None:
        reasons.append(Reason.NO_RELEASE)
    if not asked.past.item.size:
        reasons.append(_unknown(asked.query))
    elif loaded.release is not None and not asked.readable.size:
        reasons.append(Reason.NO_SHARED_ITEMS)
    return (*reasons, *(SILENCE[name, trouble] for name, trouble in asked.silent.items()))


def _unknown(query: Query) -> Reason:
    if query.user is not None:
        return Reason.UNKNOWN_USER
    return Reason.UNKNOWN_SESSION if query.session is not None else Reason.UNKNOWN_ITEMS
