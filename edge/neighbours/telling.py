"""From measured effects to reasons: what is named, with its date, its title and a plain sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.neighbours import sentences
from edge.neighbours.companions import SEEDS
from edge.neighbours.neighbours import Neighbours
from edge.neighbours.occlusion import Panel
from edge.neighbours.parts import Kind, Part
from edge.records import people
from edge.records.events import EventType
from edge.records.schema import TYPE_OF
from edge.records.store import Past
from edge.serving.degradation import Rung
from edge.serving.fusion import SOURCES, VOICES
from edge.serving.query import Query
from edge.serving.ranker import Ranked
from edge.serving.release import Loaded
from edge.serving.service import Service

_FAINTEST: Final = 1e-6
_SPEAKERS: Final[Mapping[Kind, Sequence[str]]] = MappingProxyType(
    {
        Kind.SEQUENCE: SOURCES["sequence"],
        Kind.HABITS: (*SOURCES["habits"], "site_again"),  # what is bought again needs popularity less
        Kind.COMPANION: SOURCES["companion"],
        Kind.POPULARITY: ("site", "federation"),
    }
)
_TYPE = """
    SELECT type FROM events WHERE user = ? AND time_ms = ? AND item = (SELECT id FROM items WHERE name = ?)
    AND type <= 4 AND item IS NOT NULL AND (type = 4) = ? ORDER BY id DESC LIMIT 1"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """One reason.

    Attributes:
        effect: what it adds to the score; below 0: it moved the item down.
        item: of an event: what it was about; of a companion: what the item goes with.
        time_ms: of an event.
        count: events that it names.
    """

    kind: Kind
    effect: float
    text: str
    item: str | None = None
    type: EventType | None = None
    time_ms: int | None = None
    count: int | None = None


class Telling:
    """Tells reasons to one person."""

    def __init__(
        self, service: Service, neighbours: Neighbours | None, loaded: Loaded, query: Query, past: Past
    ) -> None:
        self._service = service
        self._neighbours = neighbours
        self._shelf = loaded.shelf
        self._query = query
        self._past = past

    def rung(self, ranked: Ranked | None) -> Rung:
        """Where an answer to this person would stand."""
        if ranked is not None:
            return Rung.SEQUENCE
        if self._past.item.size:
            return Rung.HABITS
        return Rung.CONTEXT if self.prior() is not None else Rung.POPULARITY

    def prior(self) -> NDArray[np.float32] | None:
        """float32[size], what an answer to somebody unknown goes by; None: by popularity."""
        if self._neighbours is None or not self._query.context:
            return None
        return self._neighbours.prior(self._shelf, self._query.context, self._service.now_ms())

    def because(self, place: int, parts: Sequence[Part], effects: NDArray[np.float64]) -> list[Why]:
        """What of the past, and what of time and place, moved the item; the strongest first.

        Args:
            effects: float64[len(parts)], of each part on this item.
        """
        found = [
            self._why(place, part, effect)
            for part, effect in zip(parts, effects.tolist(), strict=True)
            if part.place in {0, place} and abs(effect) >= _FAINTEST
        ]
        if not self._past.item.size:
            found += self._by_context(place)
        return sorted(found, key=lambda why: -abs(why.effect))

    def voices(self, panel: Panel, places: Sequence[int], ranked: Ranked | None) -> list[list[Why]]:
        """Of each item, what each voice says of it beyond what it says of the candidates on average."""
        slate, weights = panel.scored(self._past, ranked)
        said = slate.voices() * weights.vector()
        above = said - said.mean(axis=0)
        told = []
        for place, row in zip(places, panel.at(places).tolist(), strict=True):
            by_voice = dict(zip(VOICES, above[row].tolist(), strict=True))
            effects = {kind: sum(by_voice[name] for name in names) for kind, names in _SPEAKERS.items()}
            told.append(
                [
                    self._voice(kind, effect, place, by_voice)
                    for kind, effect in effects.items()
                    if abs(effect) >= _FAINTEST
                ]
            )
        return told

    def _why(self, place: int, part: Part, effect: float) -> Why:
        if part.kind is Kind.EVENT:
            return self._event(int(np.flatnonzero(part.gone)[0]), effect)
        bought = int(np.count_nonzero(self._past.purchased[part.gone]))
        value = {
            Kind.CATEGORY: self._shelf.categories[self._shelf.category[place]],
            Kind.BRAND: self._shelf.brands[self._shelf.brand[place]],
        }.get(part.kind, "")
        text = sentences.of_group(part.kind, part.count, bought=bought, value=value)
        return Why(kind=part.kind, effect=effect, text=text, count=part.count)

    def _event(self, at: int, effect: float) -> Why:
        place, purchased = int(self._past.item[at]), bool(self._past.purchased[at])
        time_ms = None if self._query.history is not None else int(self._past.time_ms[at])
        name = self._shelf.name(place)
        did = self._did(name, time_ms, purchased=purchased)
        return Why(
            kind=Kind.EVENT,
            effect=effect,
            text=sentences.of_event(did, self._title(place), time_ms=time_ms),
            item=name,
            type=did,
            time_ms=time_ms,
            count=1,
        )

    def _did(self, name: str, time_ms: int | None, *, purchased: bool) -> EventType:
        """The past says only whether it was a purchase; the store knows more."""
        if time_ms is not None and not purchased:
            with self._service.store.reading() as db:
                key = people.find(db, user=self._query.user, session=self._query.session)
                for (code,) in db.execute(_TYPE, (key, time_ms, name, purchased)):
                    return TYPE_OF[code]
        return EventType.PURCHASE if purchased else EventType.VIEW

    def _voice(self, kind: Kind, effect: float, place: int, by_voice: Mapping[str, float]) -> Why:
        if kind is Kind.SEQUENCE:
            return Why(kind=kind, effect=effect, text=sentences.of_sequence(helps=effect > 0))
        if kind is Kind.HABITS:
            own = self._past.item == place
            bought = int(np.count_nonzero(own & self._past.purchased))
            count = int(np.count_nonzero(own))
            return Why(
                kind=kind, effect=effect, text=sentences.of_own(bought=bought, looked=count - bought), count=count
            )
        if kind is Kind.COMPANION:
            seed = self._goes_with(place) if effect > 0 else None
            title = None if seed is None else self._title(seed)
            item = None if seed is None else self._shelf.name(seed)
            return Why(kind=kind, effect=effect, text=sentences.of_company(title), item=item)
        here = by_voice["site"] >= by_voice["federation"]
        return Why(kind=kind, effect=effect, text=sentences.of_popularity(helps=effect > 0, here=here))

    def _goes_with(self, place: int) -> int | None:
        """Which of the person's items says most for it."""
        if self._neighbours is None:
            return None
        weights = {}
        for seed in dict.fromkeys(self._past.item[::-1].tolist()):
            found, weight = self._neighbours.near(self._shelf, np.array([seed]), len(self._shelf.offered))
            weights[seed] = float(weight[found == place].sum())
            if len(weights) == SEEDS:
                break
        best = max(weights, key=lambda seed: weights[seed], default=None)
        return best if best is not None and weights[best] > 0 else None

    def _by_context(self, place: int) -> list[Why]:
        """How much more often than elsewhere it is wanted there and then; the score is a product of these factors."""
        if self._neighbours is None or not self._query.context:
            return []
        lifts = self._neighbours.lifts(self._shelf, self._query.context, place, self._service.now_ms())
        return [
            Why(kind=Kind.CONTEXT, effect=log(times), text=sentences.of_context(name, times))
            for name, times in lifts.items()
            if abs(log(times)) >= _FAINTEST
        ]

    def _title(self, place: int) -> str:
        return self._shelf.title(place) or self._shelf.name(place)
