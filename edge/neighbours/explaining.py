"""Why an item is recommended: which past events, which attributes and which voices moved it up, and by how much.

What is said is measured, not guessed: an event's effect is the item's score with everything less its score without
that event (`edge.neighbours.occlusion`). The effect of a voice is how much more it says of the item than of the other
candidates on average, so that the effects of all voices add up to how far the item stands above the average.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge.neighbours.neighbours import Neighbours
from edge.neighbours.occlusion import Panel, without
from edge.neighbours.parts import parts_of
from edge.neighbours.telling import Telling, Why
from edge.records.store import Past
from edge.serving.degradation import Reason, Rung
from edge.serving.fusion import TOP
from edge.serving.query import Query
from edge.serving.ranker import ModelFailedError, Ranked
from edge.serving.release import Loaded
from edge.serving.service import Service, UnknownItemError
from edge.serving.shelf import Shelf
from edge.serving.slate import NOTHING_NEAR, Market, Near, candidates

_NEAR = 50  # as in an answer
_ANSWERS = 20  # as long as so many answers may take the model is asked; then the other voices explain alone
_BREATH = 8  # histories between two looks at what else there is to do


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One item.

    Attributes:
        above: its score less the average of the candidates.
        because: past events and what they have in common, the strongest first.
        voices: who speaks for it and who against it; their effects add up to `above`.
    """

    item: str
    title: str
    score: float
    above: float
    because: Sequence[Why]
    voices: Sequence[Why]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """All items that were asked about."""

    rung: Rung
    reasons: tuple[Reason, ...]
    items: Sequence[Explained]


class Explaining:
    """Explains what a service recommends; lives in its event loop."""

    def __init__(self, service: Service, neighbours: Neighbours | None) -> None:
        self._service = service
        self._neighbours = neighbours
        self._listening = service.recommender.listening
        self._turn = asyncio.Lock()  # one at a time: each is as much work as many answers

    async def explain(self, query: Query, items: Sequence[str], *, limit: int) -> Explanation:
        """Why these items.

        Args:
            limit: reasons of an item at most.

        Raises:
            UnknownItemError: nobody knows one of them.
        """
        async with self._turn:
            loaded, past = self._service.loaded, self._service.past(self._service.loaded, query)
            places = [_place(loaded.shelf, item) for item in items]
            until = self._listening.clock() + _ANSWERS * self._listening.deadline_seconds
            try:
                return await self._explain(loaded, query, past, places, limit=limit, until=until)
            except ModelFailedError:
                late = self._listening.clock() >= until
                found = await self._explain(loaded, query, past, places, limit=limit, until=None)
                return replace(found, reasons=(Reason.MODEL_SLOW if late else Reason.MODEL_ERROR,))

    async def _explain(
        self, loaded: Loaded, query: Query, past: Past, places: Sequence[int], *, limit: int, until: float | None
    ) -> Explanation:
        """The answer; until None: without the model."""
        ranked = await self._best(loaded, past, until=until)
        panel = self._panel(loaded, past, places, ranked, until=until)
        parts = parts_of(past, places, loaded.shelf)
        pasts = [past, *(without(past, part.gone) for part in parts)]
        heard = await panel.hear(pasts)
        scores = np.empty((len(pasts), len(places)))
        for number, (shortened, said) in enumerate(zip(pasts, heard, strict=True)):
            scores[number] = panel.scores(shortened, said)[panel.at(places)]
            if number % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
        telling = Telling(self._service, self._neighbours, loaded, query, past)
        voices = telling.voices(panel, places, heard[0])
        rung = telling.rung(ranked)
        if rung is Rung.CONTEXT and (prior := telling.prior()) is not None:
            scores[0], voices = prior[places], [[] for _ in places]
        return Explanation(
            rung=rung,
            reasons=(),
            items=[
                Explained(
                    item=loaded.shelf.name(place),
                    title=loaded.shelf.title(place),
                    score=float(scores[0, column]),
                    above=sum(voice.effect for voice in voices[column]),
                    because=telling.because(place, parts, scores[0, column] - scores[1:, column])[:limit],
                    voices=voices[column],
                )
                for column, place in enumerate(places)
            ],
        )

    async def _best(self, loaded: Loaded, past: Past, *, until: float | None) -> Ranked | None:
        """What the model would recommend; None: it is silent."""
        alone = self._panel(loaded, past, (), None, until=until)
        return (await alone.hear([past], k=TOP))[0]

    def _panel(
        self, loaded: Loaded, past: Past, places: Sequence[int], ranked: Ranked | None, *, until: float | None
    ) -> Panel:
        """The voices of an answer, and its candidates: the model's best, the own ones, what sells, what goes along."""
        shelf, popular = loaded.shelf, loaded.shelf.popular()
        sources = [past.item, popular, self._near(shelf, past.item).places, np.array(places, np.int64)]
        if ranked is not None:
            sources.append(ranked.rows)
        market = Market(site=shelf.bought, federation=shelf.federation, popular=popular)
        return Panel(
            loaded=loaded,
            places=candidates(sources, allowed=np.ones(shelf.size, np.bool_)),
            market=market,
            near=lambda heard: self._near(shelf, heard),
            stopping=None if until is None else partial(self._listening.stopped_at, until),
        )

    def _near(self, shelf: Shelf, places: NDArray[np.int64]) -> Near:
        if self._neighbours is None:
            return NOTHING_NEAR
        found, weights = self._neighbours.near(shelf, places, _NEAR)
        return Near(places=found, weights=weights)


def _place(shelf: Shelf, item: str) -> int:
    place = shelf.place(item)
    if place is None:
        raise UnknownItemError(f"item {item} is unknown")
    return place
