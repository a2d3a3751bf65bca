"""From a question to an answer: read the past, hear the voices, score the candidates, arrange them, name them.

Every step runs in the event loop's thread. Only the model is waited for (`edge.serving.batching`), and nothing is kept
across that wait but what this answer needs. A submodel that is broken or too slow is left out and named; what is left
still makes an answer (`edge.serving.listening`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.arranging.arrange import Note
from edge.arranging.arranging import Arranging, Prepared
from edge.records.store import Past, Store
from edge.serving.assortment import Assortments
from edge.serving.breaker import State
from edge.serving.degradation import Reason, Rung
from edge.serving.fitting import LINES
from edge.serving.fusion import TOP, FusionWeights
from edge.serving.labels import Labels
from edge.serving.listening import Listening, Neighbours, readable
from edge.serving.query import Answer, Query, Recommended
from edge.serving.question import Question, looked_at, places_of, with_items
from edge.serving.ranker import Ranked, best
from edge.serving.release import Loaded, Release
from edge.serving.remembered import MOST_BYTES, Remembered
from edge.serving.shelf import POPULAR, Shelf
from edge.serving.slate import NOTHING_NEAR, Market, Near, Slate, candidates, lay_out
from edge.serving.submodel import Trouble
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
        remembered_bytes: int = MOST_BYTES,
        note_state: Callable[[str, State], None] = lambda _name, _state: None,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            draw: so many random bytes, for the names of answers.
            clock: seconds that never go back.
            deadline_seconds: an answer is of no use later than that.
            remembered_bytes: memory for what was worked out lately of the same past.
            note_state: told when the breaker of a submodel opens or closes.
        """
        self.arranging = arranging
        self._store = store
        self._draw = draw
        self._now_ms = now_ms
        self._assortments = Assortments(clock=clock)
        self._labels = Labels()
        self._remembered = Remembered(most_bytes=remembered_bytes)
        self.listening = Listening(
            clock=clock,
            now_ms=now_ms,
            deadline_seconds=deadline_seconds,
            neighbours=neighbours,
            remembered=self._remembered,
            note_state=note_state,
        )

    def close(self) -> None:
        """End what runs beside."""
        self.listening.close()

    def drop_caches(self) -> None:
        """Let go of what can be had again."""
        self._assortments.clear()
        self._remembered.forget()

    def forget_pasts(self) -> None:
        """Somebody was erased: nothing of anybody's past stays in memory."""
        self._remembered.forget()

    def forget_model(self) -> None:
        """Another model is there: nothing that is known of the one before has to do with it."""
        self._remembered.forget()
        self.listening.forget_model()

    def nbytes(self) -> int:
        """Bytes of all that is kept between answers."""
        return self._remembered.nbytes + self._assortments.nbytes

    async def recommend(self, loaded: Loaded, query: Query, *, arm: str | None = None) -> Answer:
        """The best items, from the highest rung that carries.

        Raises:
            BadInputError: no such scenario, or a filter that means nothing here.
        """
        question = self._read(loaded, query, arm)
        ranked = await self.listening.model(loaded, question, k=self._depth(loaded, question))
        return self._finish(loaded, question, ranked)

    def ask(self, loaded: Loaded, query: Query) -> Answer:
        """The same at once, with nobody else."""
        question = self._read(loaded, query, None)
        ranked = self.listening.model_now(loaded, question, k=self._depth(loaded, question))
        return self._finish(loaded, question, ranked)

    def past(self, loaded: Loaded, query: Query) -> Past:
        """Whose past it is, in places. A given history has no times: its items count as looked at, in their order."""
        if query.user is not None:
            return loaded.shelf.placed(self._store.past(query.user, limit=LINES))
        if query.session is not None:
            return loaded.shelf.placed(self._store.past_of_session(query.session, limit=LINES))
        return looked_at(places_of(loaded.shelf, query.history or ()))

    def score(self, loaded: Loaded, past: Past, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[n], what these would score for somebody of this past, were they the candidates.

        Args:
            past: its items are places.
            places: int64[n], each once, in any order.

        Raises:
            ModelFailedError: the model failed, or was stopped.
        """
        order, until = np.argsort(places), self.listening.until()[0]
        ranked = self.listening.state(loaded, past)
        near, weights = self._companions(loaded, past, past, ranked, until=until, silent={})
        market = _market(loaded.shelf, _NOWHERE)
        slate = lay_out(
            places[order], self._remembered.habits(past), market, model=loaded.vectors, ranked=ranked, near=near
        )
        scores = np.empty(len(places), np.float32)
        scores[order] = slate.scores(weights)
        return scores

    def items(
        self,
        shelf: Shelf,
        places: NDArray[np.int64],
        scores: NDArray[np.float32],
        notes: Mapping[int, Note] = _NO_NOTES,
    ) -> list[Recommended]:
        """The items of an answer as a shop sees them."""
        labels = self._labels.of(shelf, places.tolist())
        return [
            Recommended(item=item, score=round(score, _DIGITS), title=title, note=notes.get(place))
            for (place, item, title), score in zip(labels, scores.tolist(), strict=True)
        ]

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

    def _read(self, loaded: Loaded, query: Query, arm: str | None) -> Question:
        """All that is known before the model is asked."""
        until, hurried = self.listening.until(query.within_ms)
        own, silent = self.past(loaded, query), dict[str, Trouble]()
        past = with_items(own, places_of(loaded.shelf, query.items)) if query.items else own
        return Question(
            query=query,
            own=own,
            past=past,
            readable=readable(loaded, past),
            prepared=self._prepare(loaded, query, own, arm=arm, until=until, silent=silent),
            version=loaded.shelf.version,
            arm=arm,
            until=until,
            hurried=hurried,
            silent=silent,
        )

    def _prepare(
        self, loaded: Loaded, query: Query, past: Past, *, arm: str | None, until: float, silent: dict[str, Trouble]
    ) -> Prepared:
        near = None
        if self.listening.neighbours is not None:
            near = partial(self.listening.near_places, until=until, silent=silent)
        return self.arranging.prepare(
            query, loaded.shelf, past, now_ms=self._now_ms(), near=near, vectors=loaded.vectors, arm=arm
        )

    def _depth(self, loaded: Loaded, question: Question) -> int:
        """How many of the model's best are wanted so that a filter leaves enough of them."""
        left = self._assortments.of(loaded.shelf, question.prepared.allowed).count / max(loaded.shelf.size - 1, 1)
        if left >= _ENOUGH / TOP or left * left * loaded.shelf.size < 2 * _ENOUGH:
            return TOP  # with so few left it is less work to score them all
        return min(round(2 * _ENOUGH / left), _DEEPEST)

    def _finish(self, loaded: Loaded, question: Question, ranked: Ranked | None) -> Answer:
        """Score, arrange and name."""
        query, shelf = question.query, loaded.shelf
        if question.version != shelf.version:  # items have come while the model was waited for
            question.prepared = self._prepare(
                loaded, query, question.own, arm=question.arm, until=question.until, silent=question.silent
            )
        prepared = question.prepared
        if ranked is not None:
            ranked = _narrowed(loaded, prepared.allowed, ranked, limit=query.limit)
        near, weights = self._companions(
            loaded, question.past, question.own, ranked, until=question.until, silent=question.silent
        )
        if prepared.scenario.voices is not None:
            weights = weights.only(prepared.scenario.voices)
        stranger = ranked is None and not question.own.item.size and not near.places.size
        prior = self.listening.prior(shelf, question) if stranger else None
        slate = self._slate(loaded, question, ranked, near, prior)
        if prior is not None:
            scores = prior[slate.places]
        else:
            scores = slate.votes(weights) if prepared.scenario.fusion == "votes" else slate.scores(weights)
        arranged = prepared.arrange(slate.places, scores)
        return self.answer(
            loaded,
            _rung(question, ranked, near, prior),
            question.reasons(loaded),
            self.items(shelf, arranged.places, arranged.scores, arranged.notes),
            skipped=tuple(question.silent),
            arm=question.arm,
        )

    def _companions(
        self,
        loaded: Loaded,
        past: Past,
        own: Past,
        ranked: Ranked | None,
        *,
        until: float,
        silent: dict[str, Trouble],
    ) -> tuple[Near, FusionWeights]:
        """What goes with a past, where anybody wants to hear it, and the weights with which it is heard."""
        weights = loaded.weights
        if self.listening.neighbours is None or not past.item.size:
            return NOTHING_NEAR, weights
        if ranked is not None and not weights.weighing.companion:
            return NOTHING_NEAR, weights
        near = self.listening.near(loaded.shelf, past, until=until, silent=silent)
        if ranked is None and near.places.size:
            weights = weights.with_companions(_SECONDED if own.item.size else _ALONE)
        return near, weights

    def _slate(
        self,
        loaded: Loaded,
        question: Question,
        ranked: Ranked | None,
        near: Near,
        prior: NDArray[np.float32] | None = None,
    ) -> Slate:
        """All candidates, and what the voices say of them."""
        prepared, own = question.prepared, self._remembered.habits(question.past)
        assortment = self._assortments.of(
            loaded.shelf, prepared.allowed, popular=max(POPULAR, prepared.wants + len(prepared.hidden))
        )
        sources = [own.places, assortment.popular]
        sources += [each for each in (near.places, prepared.extra, ranked.rows if ranked else _NOWHERE) if each.size]
        if prior is not None:
            sources.append(self._assortments.liked(prepared.allowed, prior))
        places = candidates(sources, allowed=prepared.allowed, hidden=prepared.hidden)
        market = _market(loaded.shelf, assortment.popular)
        return lay_out(places, own, market, model=loaded.vectors, ranked=ranked, near=near)


def named(release: Release | None) -> tuple[int, str]:
    """Version and digest; before the first release 0 and nothing."""
    return (release.version, release.sha256) if release else (0, "")


def _rung(question: Question, ranked: Ranked | None, near: Near, prior: NDArray[np.float32] | None) -> Rung:
    if ranked is not None:
        return Rung.SEQUENCE
    if question.own.item.size:
        return Rung.HABITS
    if near.places.size:
        return Rung.COMPANIONS
    return Rung.POPULARITY if prior is None else Rung.CONTEXT


def _narrowed(loaded: Loaded, allowed: NDArray[np.bool_], ranked: Ranked, *, limit: int) -> Ranked:
    """The model's best of what is allowed, private items among them: enough of them, if there are."""
    vectors = loaded.vectors
    if vectors is None:
        return ranked
    rows = ranked.rows[allowed[ranked.rows]]
    if len(rows) < min(max(limit, _ENOUGH), len(ranked.rows)):
        rows = np.flatnonzero(allowed[: loaded.shelf.rows + 1])
        if len(rows) > TOP:
            rows = rows[best(_scores(vectors, ranked.state, rows), TOP)]
    return vectors.with_private(Ranked(state=ranked.state, rows=rows[:TOP]), allowed)


def _scores(vectors: Vectors, state: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32[n], a part at a time: the vectors of a large catalogue would not fit into the cache, nor be welcome."""
    if len(rows) <= _AT_A_TIME:
        return vectors.score(state, rows)
    parts = [vectors.score(state, rows[start : start + _AT_A_TIME]) for start in range(0, len(rows), _AT_A_TIME)]
    return np.concatenate(parts)


def _market(shelf: Shelf, popular: NDArray[np.int64]) -> Market:
    return Market(site=shelf.bought, federation=shelf.federation, popular=popular)
