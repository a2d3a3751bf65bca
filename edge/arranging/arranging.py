"""All that decides what stands where in this shop's answers, as one part: scenarios, promotions, newcomers, anchors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.arranging.anchors import MOST_LIKENED, Near, Space, lifts
from edge.arranging.arrange import Arranged, Candidates, Promoted, arrange
from edge.arranging.book import Book
from edge.arranging.exploration import Untried
from edge.arranging.naming import promotion_names, scenario_names
from edge.arranging.newcomers import Newcomers
from edge.arranging.openings import Openings
from edge.arranging.promotion import Visit
from edge.arranging.promotions import Promotions
from edge.arranging.scenario import BUILT_IN, Scenario
from edge.records.store import Past, Store
from edge.serving.filters import passing
from edge.serving.query import Query
from edge.serving.shelf import Shelf
from protocol.errors import BadInputError

KIND: Final = "scenario"
_MORE: Final = 3  # times the limit, for caps and diversity to choose from
_NOWHERE: Final = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """What is known of an answer before anything is scored, and how it is put together afterwards.

    Attributes:
        allowed: bool[size], what may be in it. Leave it as it is.
        hidden: int64[h], places that must not be among the candidates beside that.
        extra: int64[e], places that should be.
        wants: so many candidates, if there are any.
    """

    scenario: Scenario
    allowed: NDArray[np.bool_]
    hidden: NDArray[np.int64]
    extra: NDArray[np.int64]
    wants: int
    _limit: int
    _now_ms: int
    _shelf: Shelf
    _space: Space | None
    _lifts: Mapping[int, float]
    _promoted: Sequence[Promoted]
    _untried: Untried | None
    _rng: np.random.Generator

    def arrange(self, places: NDArray[np.int64], scores: NDArray[np.float32]) -> Arranged:
        """Put the answer together.

        Args:
            places: int64[n], each once, allowed and not hidden, in any order.
            scores: float32[n]; log-odds, or above 0 where the scenario fuses by votes.
        """
        if self._lifts:
            scores = _lifted(places, scores, self._lifts, votes=self.scenario.fusion == "votes")
        return arrange(
            Candidates(places=places, scores=scores, allowed=self._open()),
            scenario=self.scenario,
            shelf=self._shelf,
            vectors=self._space.at if self._space is not None else None,
            limit=self._limit,
            rng=self._rng,
            now_ms=self._now_ms,
            untried=self._untried,
            promoted=self._promoted,
        )

    def _open(self) -> NDArray[np.bool_]:
        """What pins, promotions and exploration may name."""
        if not self.hidden.size or (self.scenario.is_plain and not self._promoted and self._untried is None):
            return self.allowed
        open_ = self.allowed.copy()
        open_[self.hidden] = False
        return open_


class Arranging:
    """For one thread, but for what its books write."""

    def __init__(
        self, store: Store, *, rng: np.random.Generator | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        """Put the parts together.

        Args:
            rng: for exploration.
            clock: seconds that only rise.
        """
        self.scenarios = Book(store, KIND, Scenario, built_in=BUILT_IN, clock=clock)
        self.promotions = Promotions(store, clock=clock)
        self._newcomers = Newcomers(store, clock=clock)
        self._openings = Openings()
        self._rng = rng or np.random.default_rng()

    def scenario(self, name: str) -> Scenario:
        """A scenario by its name.

        Raises:
            BadInputError: there is none.
        """
        found = self.scenarios.known().get(name)
        if found is None:
            raise BadInputError(f"there is no scenario {name}", advice="GET /v1/scenarios lists them")
        return found

    def attributes(self) -> frozenset[str]:
        """What scenarios and promotions ask of the items."""
        named = [scenario_names(each) for each in self.scenarios.known().values()]
        named += [promotion_names(each) for each in self.promotions.book.known().values()]
        return frozenset().union(*(names.attributes for names in named))

    def likened(self, query: Query) -> Sequence[str]:
        """The items of a question for which it matters what is like them.

        Raises:
            BadInputError: there is no such scenario.
        """
        return query.items[-MOST_LIKENED:] if query.items and self._scenario_of(query).anchor.similar else ()

    def _scenario_of(self, query: Query) -> Scenario:
        return query.variant or self.scenario(query.scenario)

    def prepare(
        self,
        query: Query,
        shelf: Shelf,
        past: Past,
        *,
        now_ms: int,
        near: Near | None = None,
        vectors: Space | None = None,
        arm: str | None = None,
    ) -> Prepared:
        """Look at a question before anything is scored.

        Args:
            past: the user's; its items are places.
            near: what is bought or looked at with items; None: nobody knows.
            vectors: None: before the first release.
            arm: ``experiment/arm`` under which is asked.

        Raises:
            BadInputError: there is no such scenario, or the filter names what no item has.
        """
        scenario = self._scenario_of(query)
        allowed = self._openings.of(passing(shelf, query.filter), scenario, shelf, now_ms=now_ms)
        hidden = _hidden(query, scenario, shelf, past)
        promoted: Sequence[Promoted] = ()
        if self.promotions.book.known():
            visit = Visit(past=past, known=query.history is None, region=query.context.get("region"), arm=arm)
            promoted = self.promotions.placed(visit, shelf, scenario=scenario.name, now_ms=now_ms)
        lifted: Mapping[int, float] = {}
        if query.items and (scenario.anchor.related or scenario.anchor.similar):
            items = _places(query.items, shelf)
            lifted = lifts(scenario.anchor, items, shelf, near=near, space=vectors)
        plain = scenario.is_plain and not promoted
        return Prepared(
            scenario=scenario,
            allowed=allowed,
            hidden=hidden,
            extra=_extra(lifted, promoted, allowed, hidden) if lifted or promoted else _NOWHERE,
            wants=query.limit if plain else _MORE * query.limit,
            _limit=query.limit,
            _now_ms=now_ms,
            _shelf=shelf,
            _space=vectors,
            _lifts=lifted,
            _promoted=promoted,
            _untried=self._newcomers.on(shelf) if scenario.exploration.positions else None,
            _rng=self._rng,
        )


def _hidden(query: Query, scenario: Scenario, shelf: Shelf, past: Past) -> NDArray[np.int64]:
    """What the question excludes, what stands there already, and where the scenario says so, what was bought."""
    named = _places([*query.exclude, *query.items], shelf) if query.exclude or query.items else _NOWHERE
    if scenario.bought == "show":
        return named
    hidden: NDArray[np.int64] = np.concatenate([named, past.item[past.purchased]])
    return hidden


def _extra(
    lifts: Mapping[int, float], promoted: Sequence[Promoted], allowed: NDArray[np.bool_], hidden: NDArray[np.int64]
) -> NDArray[np.int64]:
    near = np.fromiter(lifts, np.int64, len(lifts))
    extra: NDArray[np.int64] = np.unique(np.concatenate([near, *(each.places for each in promoted)]))
    return extra[allowed[extra] & ~np.isin(extra, hidden)]


def _places(items: Iterable[str], shelf: Shelf) -> NDArray[np.int64]:
    return np.array([place for item in items if (place := shelf.place(item)) is not None], np.int64)


def _lifted(
    places: NDArray[np.int64], scores: NDArray[np.float32], lifts: Mapping[int, float], *, votes: bool
) -> NDArray[np.float32]:
    added = np.array([lifts.get(place, 0.0) for place in places.tolist()], np.float32)
    return scores * np.exp(added) if votes else scores + added
