"""Who has a say beside the words: what means the same, and what this user likes. Neither is waited for too long."""

from collections.abc import Callable
from typing import Final, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from edge.records.store import Past
from edge.search.answers import Ask, Gap
from edge.search.fusing import Slate
from edge.search.picking import Picked
from edge.search.semantic import SUBMODEL
from edge.serving.deadline import Watchdog
from edge.serving.query import Query
from edge.serving.ranker import ModelFailedError, Ranked, best
from edge.serving.release import Loaded
from edge.serving.service import Service
from edge.serving.submodel import RECOMMEND, Submodel, Trouble

WINDOW: Final = 50
"""Candidates of each kind that the voices put in order; what comes behind them stays in the order of its words."""
_NEAREST: Final = 200  # rows that the submodel names: some may not be on offer here
_ENOUGH: Final = 30  # with fewer left of them, what the filter allows is scored one by one
_MOST_SCORED: Final = 5_000
_log = structlog.get_logger(__name__)
_Said = TypeVar("_Said")


class Voices:
    """What stands before the submodels of a search: each is asked only while it is well and there is time for it."""

    def __init__(self, service: Service, *, clock: Callable[[], float]) -> None:
        self._service = service
        self._clock = clock
        self._watchdog = Watchdog(clock=clock)
        self._submodels = self._fresh()
        self._of: object = None

    def close(self) -> None:
        """End what runs beside."""
        self._watchdog.close()

    def slate(
        self,
        ask: Ask,
        loaded: Loaded,
        picked: Picked,
        allowed: NDArray[np.bool_],
        *,
        until: float,
        past: Past | None = None,
    ) -> tuple[Slate, dict[str, Gap]]:
        """The candidates and what is said of them; and which submodels should have spoken and did not, and why.

        Args:
            allowed: bool[size], places that may be named.
            until: time of the clock from which on the answer is of no use.
            past: what is known of who asks, in places; None: what the store knows.
        """
        if self._of is not loaded.release:  # what is known of how another model did is nothing to this one
            self._of = loaded.release
            self._submodels = self._fresh()
        silent: dict[str, Gap] = {}
        places, words = picked.places[:WINDOW], picked.scores[:WINDOW]
        ranked = self._meant(ask, loaded, silent, until=until)
        if ranked is not None:
            others = _nearest(ranked, loaded, allowed)
            others = without(others, places, size=len(allowed))[:WINDOW]
            places = np.concatenate([places, others])
            words = np.concatenate([words, np.zeros(len(others), np.float32)])
        slate = Slate(
            places=places,
            words=words,
            complete=min(picked.complete, len(places)),
            meaning=_meaning(ranked, loaded, places),
            taste=self._taste(past or self._past(ask, loaded), loaded, places, silent, until=until),
            sold=loaded.shelf.bought[places],
        )
        return slate, silent

    def _fresh(self) -> dict[str, Submodel]:
        return {name: Submodel(clock=self._clock) for name in (SUBMODEL, RECOMMEND)}

    def _meant(self, ask: Ask, loaded: Loaded, silent: dict[str, Gap], *, until: float) -> Ranked | None:
        semantic = loaded.release.semantic if loaded.release is not None else None
        if semantic is None or not ask.semantic:
            return None

        def run() -> Ranked | None:
            options = self._watchdog.watch(until)
            try:
                return semantic.ask(ask.text, k=_NEAREST, options=options)
            finally:
                self._watchdog.rest()

        return self._asked(SUBMODEL, run, silent, until=until)

    def _past(self, ask: Ask, loaded: Loaded) -> Past | None:
        """What the one who asks has done; None: it is not said who that is, or it shall not count."""
        return self._service.past(loaded, Query(user=ask.user, session=ask.session)) if ask.is_personal else None

    def _taste(
        self, past: Past | None, loaded: Loaded, places: NDArray[np.int64], silent: dict[str, Gap], *, until: float
    ) -> NDArray[np.float32] | None:
        """float32[n], what somebody of this past would be recommended of these; None: nothing is known of them."""
        if past is None or not past.item.size or not places.size:
            return None
        return self._asked(RECOMMEND, lambda: self._service.score(loaded, past, places), silent, until=until)

    def _asked(
        self, name: str, run: Callable[[], _Said | None], silent: dict[str, Gap], *, until: float
    ) -> _Said | None:
        submodel, began = self._submodels[name], self._clock()
        trouble = submodel.trouble(left=until - began)
        if trouble is None:
            try:
                said = run()
            except ModelFailedError as error:
                _log.warning("a submodel failed in a search", submodel=name, why=error.line())
                trouble = Trouble.SLOW if self._clock() >= until else Trouble.FAILED
            submodel.note(self._clock() - began, failed=trouble is not None)
            if trouble is None:
                return said
        silent[name] = _GAPS[name, trouble]
        return None


def without(places: NDArray[np.int64], others: NDArray[np.int64], *, size: int) -> NDArray[np.int64]:
    """int64[m], places that are not among others, in their order.

    Args:
        size: above every place.
    """
    there = np.zeros(size, np.bool_)  # 1 us per 100,000: less than any search among a hundred
    there[others] = True
    return places[~there[places]]


_GAPS: Final = {
    (SUBMODEL, Trouble.FAILED): Gap.SEARCH_ERROR,
    (SUBMODEL, Trouble.SLOW): Gap.SEARCH_SLOW,
    (SUBMODEL, Trouble.PAUSED): Gap.SEARCH_PAUSED,
    (RECOMMEND, Trouble.FAILED): Gap.RECOMMEND_ERROR,
    (RECOMMEND, Trouble.SLOW): Gap.RECOMMEND_SLOW,
    (RECOMMEND, Trouble.PAUSED): Gap.RECOMMEND_PAUSED,
}


def _nearest(ranked: Ranked, loaded: Loaded, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """int64[m], what means most nearly the same and may be named, nearest first."""
    assert loaded.meanings is not None
    rows = ranked.rows[allowed[ranked.rows]]
    if len(rows) < _ENOUGH:
        every = np.flatnonzero(allowed)
        if len(rows) < len(every) <= _MOST_SCORED:
            every = every[loaded.meanings.known(every)]
            return every[best(loaded.meanings.score(ranked.state, every), WINDOW)]
    return loaded.meanings.with_private(Ranked(state=ranked.state, rows=rows), allowed).rows


def _meaning(ranked: Ranked | None, loaded: Loaded, places: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """float32[n], nan where nothing is known of an item's words."""
    if ranked is None or loaded.meanings is None:
        return None
    scores = loaded.meanings.score(ranked.state, places)
    scores[~loaded.meanings.known(places)] = np.nan
    return scores
