"""The candidates for one answer, and what each voice says of them.

Candidates are the model's best, the user's own, what is popular, and what goes with the user's newest items. This runs
once for every answer on some 300 candidates; a voice is an array over them, and nothing is said twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.records.store import Past
from edge.serving.fusion import VOICES, FusionWeights
from edge.serving.personal import HABITS, Habits, habits
from edge.serving.ranker import Ranked

NEAR: Final = 50
"""Candidates taken from what goes with the user's items."""
_VOTE_RANK: Final = 60
_SMALLEST: Final = 1e-9
_HABITS_AT: Final = VOICES.index(HABITS[0])
_NOWHERE: Final = np.empty(0, np.int64)


class Scoring(Protocol):
    """What a model gives any place: `edge.serving.vectors.Vectors`."""

    def known(self, places: NDArray[np.int64]) -> NDArray[np.bool_]: ...

    def score(self, state: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Market:
    """What sells, whoever asks.

    Attributes:
        site: float32[size], the site's purchases by place.
        federation: float32[size], the federation's.
        popular: int64[m], candidates for everybody.
    """

    site: NDArray[np.float32]
    federation: NDArray[np.float32]
    popular: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Near:
    """What goes with the user's newest items.

    Attributes:
        places: int64[m], each once.
        weights: float32[m], from 0.
    """

    places: NDArray[np.int64]
    weights: NDArray[np.float32]


NOTHING_NEAR: Final = Near(places=_NOWHERE, weights=np.empty(0, np.float32))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slate:
    """The candidates for one answer.

    Attributes:
        places: int64[n], sorted, each once.
        sequence: float32[n], what the model says, standardised; 0 where it does not know the item; None: it is silent.
        own: the user's own items, on the slate or not.
        own_at: int64[k], where each of them stands; n: nowhere.
        site: float32[n], log of the site's purchases.
        federation: float32[n], of the federation's.
        companion: float32[n]; None: nobody says anything.
    """

    places: NDArray[np.int64]
    sequence: NDArray[np.float32] | None
    own: Habits
    own_at: NDArray[np.int64]
    site: NDArray[np.float32]
    federation: NDArray[np.float32]
    companion: NDArray[np.float32] | None

    def scores(self, weights: FusionWeights) -> NDArray[np.float32]:
        """float32[n], the weighted sum of all voices: `voices() @ weights`, with fewer steps."""
        weighing, count = weights.weighing, len(self.places)
        scores, again = self._own(weighing.habits), self._own_again()
        scores += self.site * (weighing.site + weighing.site_again * again)
        scores += self.federation * weighing.federation
        if self.sequence is not None:
            scores += self.sequence * (weighing.sequence + weighing.sequence_again * again)
        if self.companion is not None:
            scores += self.companion * weighing.companion
        return scores[:count]

    def votes(self, weights: FusionWeights) -> NDArray[np.float32]:
        """float32[n], above 0: every source names its candidates by rank, and a rank r is worth 1 / (60 + r).

        Args:
            weights: a source without any weight has no vote; how large a weight is does not count.

        Source:
            Cormack, Clarke and Buettcher, Reciprocal rank fusion, SIGIR 2009.
        """
        weighing, own = weights.weighing, self._own(weights.weighing.habits)
        lists = [_votes(self.site + _SMALLEST * self.federation, None)]
        if self.sequence is not None and weighing.sequence:
            lists.append(_votes(self.sequence, None))
        if weighing.habits.any():
            lists.append(_votes(own, self._own_places()))
        if self.companion is not None and weighing.companion:
            lists.append(_votes(self.companion, self.companion > 0))
        votes: NDArray[np.float32] = np.sum(lists, axis=0, dtype=np.float32)
        return votes

    def voices(self) -> NDArray[np.float64]:
        """float64[n, len(VOICES)], what each voice says of each candidate."""
        voices = np.zeros((len(self.places) + 1, len(VOICES)))
        voices[self.own_at, _HABITS_AT : _HABITS_AT + len(HABITS)] = self.own.features
        voices = voices[:-1]
        again = self._own_again()
        named = {"site": self.site, "site_again": self.site * again, "federation": self.federation}
        if self.sequence is not None:
            named |= {"sequence": self.sequence, "sequence_again": self.sequence * again}
        if self.companion is not None:
            named["companion"] = self.companion
        for name, said in named.items():
            voices[:, VOICES.index(name)] = said
        return voices

    def _own(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[n], the weighted sum of the habits."""
        said = np.zeros(len(self.places) + 1, np.float32)
        said[self.own_at] = weights @ self.own.columns
        return said[:-1]

    def _own_again(self) -> NDArray[np.float32]:
        """float32[n], 1: bought before."""
        again = np.zeros(len(self.places) + 1, np.float32)
        again[self.own_at] = self.own.columns[0]
        return again[:-1]

    def _own_places(self) -> NDArray[np.bool_]:
        own = np.zeros(len(self.places) + 1, np.bool_)
        own[self.own_at] = True
        return own[:-1]


def candidates(
    sources: Sequence[NDArray[np.int64]], *, allowed: NDArray[np.bool_], hidden: NDArray[np.int64] = _NOWHERE
) -> NDArray[np.int64]:
    """int64[n], sorted, each once: what the sources name and may be named.

    Args:
        allowed: bool[size].
        hidden: places that may not, whatever is allowed.
    """
    places = np.concatenate(sources)
    places = places[allowed[places]]
    places.sort()
    keep = np.empty(len(places) + 1, np.bool_)
    keep[:1] = True
    np.not_equal(places[1:], places[:-1], out=keep[1:-1])
    places = places[keep[:-1]]
    if hidden.size:
        keep = np.ones(len(places) + 1, np.bool_)
        keep[_positions(places, hidden)] = False
        places = places[keep[:-1]]
    return places


def lay_out(
    places: NDArray[np.int64],
    own: Habits,
    market: Market,
    *,
    model: Scoring | None = None,
    ranked: Ranked | None = None,
    near: Near = NOTHING_NEAR,
) -> Slate:
    """Ask every voice for these candidates.

    Args:
        places: int64[n], sorted, each once.
        own: the user's habits.
        ranked: the model's answer to the user's past; None: the model is silent.
    """
    sequence = None
    if model is not None and ranked is not None and len(places):
        sequence = _standardised(model, ranked, places)
    companion = None
    if near.places.size:
        said = np.zeros(len(places) + 1, np.float32)
        said[_positions(places, near.places)] = near.weights
        companion = said[:-1]
    sold = np.empty((2, len(places)), np.float32)
    np.add(market.site[places], 1, out=sold[0])
    np.add(market.federation[places], 1, out=sold[1])
    np.log(sold, out=sold)
    return Slate(
        places=places,
        sequence=sequence,
        own=own,
        own_at=_positions(places, own.places),
        site=sold[0],
        federation=sold[1],
        companion=companion,
    )


def slate_of(
    past: Past,
    market: Market,
    *,
    allowed: NDArray[np.bool_],
    model: Scoring | None = None,
    ranked: Ranked | None = None,
    near: Near = NOTHING_NEAR,
) -> Slate:
    """All candidates for a user of this past, in places, and what the voices say."""
    own = habits(past)
    sources = [own.places, market.popular, near.places, *([ranked.rows] if ranked else [])]
    places = candidates(sources, allowed=allowed)
    return lay_out(places, own, market, model=model, ranked=ranked, near=near)


def _positions(places: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[k], where each wanted place stands among sorted ones; n where it does not."""
    at = places.searchsorted(wanted)
    if len(places):
        at[places.take(at, mode="clip") != wanted] = len(places)
    return at


def _standardised(model: Scoring, ranked: Ranked, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """The model's scores with mean 0 and variance 1, so that weights survive the next release; 0 where it has none."""
    known = model.known(places)
    if known.all():
        return _normal(model.score(ranked.state, places))
    said = np.zeros(len(places), np.float32)
    if known.any():
        said[known] = _normal(model.score(ranked.state, places[known]))
    return said


def _normal(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[n], in place: mean 0, variance 1."""
    scores -= np.add.reduce(scores) / np.float32(len(scores))
    scores /= np.float32((float(scores @ scores) / len(scores)) ** 0.5 + _SMALLEST)
    return scores


def _votes(said: NDArray[np.float32], heard: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """float32[n], 1 / (60 + rank), the first having rank 1; 0 of those about whom nothing is said."""
    votes = np.zeros(len(said), np.float32)
    if heard is not None:
        said = np.where(heard, said, -np.inf)
    order = np.argsort(-said, kind="stable")
    votes[order] = 1 / (_VOTE_RANK + 1 + np.arange(len(order), dtype=np.float32))
    if heard is not None:
        votes[~heard] = 0
    return votes
