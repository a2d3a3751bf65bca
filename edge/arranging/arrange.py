"""Candidates with scores -> an answer: who stands where, and why. Pure: the clock and the dice are arguments."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge.arranging.boosts import boosted
from edge.arranging.diversity import POOL, Vectors, capped, caps_of, diverse, likeness
from edge.arranging.exploration import Untried, explore
from edge.arranging.rules import buried, excluded, pins
from edge.arranging.scenario import Scenario
from edge.serving.ranker import best
from edge.serving.shelf import Shelf


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """What may be in an answer.

    Attributes:
        places: int64[n], each once.
        scores: float32[n].
        allowed: bool[size], what rules, promotions and exploration may name beside the candidates; None: what is
            offered. All candidates are allowed.
    """

    places: NDArray[np.int64]
    scores: NDArray[np.float32]
    allowed: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Promoted:
    """A campaign that may show some of its items in this answer.

    Attributes:
        places: int64[n], its items.
        positions: from 1, the first one first; one item each.
    """

    name: str
    places: NDArray[np.int64]
    positions: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Why an item stands where it stands, if not for its score.

    Attributes:
        promotion: the campaign that it belongs to.
        propensity: the probability with which it came to stand where chance decides; None: chance did not.
    """

    pinned: bool = False
    promotion: str | None = None
    explored: bool = False
    propensity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arranged:
    """An answer.

    Attributes:
        places: int64[m], at most as many as were asked for, each once, the first one first.
        scores: float32[m], after boosts; an item that was no candidate has the lowest.
        notes: by place, of those places that something is to be said of.
    """

    places: NDArray[np.int64]
    scores: NDArray[np.float32]
    notes: Mapping[int, Note] = field(default_factory=dict)


_NO_NOTES: Final[Mapping[int, Note]] = {}
_NO_CHANCES: Final[Mapping[int, float]] = {}
_PINNED: Final = Note(pinned=True)


def arrange(
    candidates: Candidates,
    *,
    scenario: Scenario,
    shelf: Shelf,
    vectors: Vectors | None,
    limit: int,
    rng: np.random.Generator,
    now_ms: int,
    untried: Untried | None = None,
    promoted: Sequence[Promoted] = (),
) -> Arranged:
    """Put an answer together: pins first, then promotions and exploration, and the best and most diverse around them.

    Caps count what is pinned, promoted or explored, and never take it away. An answer may be shorter than asked for
    where caps leave too little.

    Args:
        vectors: of any places; None: none are known.
        limit: length of the answer, at most.
        untried: what may be explored; None: nothing.
    """
    places, scores = candidates.places, candidates.scores
    allowed = shelf.offered if candidates.allowed is None else candidates.allowed
    last = None
    if scenario.rules:
        allowed = allowed & ~excluded(scenario, shelf, now_ms=now_ms)
        places, scores = places[allowed[places]], scores[allowed[places]]
        last = buried(scenario, shelf, now_ms=now_ms)[places]
    if scenario.boosts:
        scores = boosted(places, scores, scenario=scenario, shelf=shelf, now_ms=now_ms)
    pinned = pins(scenario, shelf, allowed, limit=limit, now_ms=now_ms)
    fixed: _Fixed = {position: (place, _PINNED) for position, place in pinned.items()}
    for campaign in promoted:
        _promote(campaign, fixed, places, scores, allowed, limit=limit)
    chances = _explore(untried, scenario, fixed, allowed, limit=limit, rng=rng)
    given_away = np.array([place for place, _ in fixed.values()], np.int64)
    if scenario.is_plain:
        rest = _best(places, scores, given_away, limit)
    else:
        rest = _diverse(places, scores, given_away, last, scenario=scenario, shelf=shelf, vectors=vectors, limit=limit)
    if not fixed:
        shown = places[rest[:limit]]
        return Arranged(places=shown, scores=scores[rest[:limit]], notes=_chances(shown, chances))
    laid = _laid({position: place for position, (place, _) in fixed.items()}, places[rest].tolist(), limit)
    notes = {**_chances(laid, chances), **dict(fixed.values())}
    return Arranged(places=np.array(laid, np.int64), scores=_scores(laid, places, scores), notes=notes)


_Fixed: TypeAlias = dict[int, tuple[int, Note]]
"""Position, from 0 -> place, and why it stands there."""


def _promote(
    campaign: Promoted,
    fixed: _Fixed,
    places: NDArray[np.int64],
    scores: NDArray[np.float32],
    allowed: NDArray[np.bool_],
    *,
    limit: int,
) -> None:
    """Give a campaign its positions, and to these the items of it that score highest; what scores not comes last."""
    taken = [place for place, _ in fixed.values()]
    mine = campaign.places[allowed[campaign.places] & ~np.isin(campaign.places, taken)]
    positions = [position - 1 for position in campaign.positions if position <= limit and position - 1 not in fixed]
    for position, one in zip(positions, np.argsort(-_scores(mine, places, scores, floor=-np.inf)), strict=False):
        fixed[position] = int(mine[one]), Note(promotion=campaign.name)


def _explore(
    untried: Untried | None,
    scenario: Scenario,
    fixed: _Fixed,
    allowed: NDArray[np.bool_],
    *,
    limit: int,
    rng: np.random.Generator,
) -> Mapping[int, float]:
    """Give positions to items that were drawn; position -> probability, where the best could have been drawn away."""
    if untried is None or not scenario.exploration.positions:
        return _NO_CHANCES
    taken = [place for place, _ in fixed.values()]
    drawn = explore(
        untried, scenario.exploration, allowed=allowed, limit=limit, taken=taken, occupied=list(fixed), rng=rng
    )
    for one in drawn:
        if one.place is not None:
            fixed[one.position] = one.place, Note(explored=True, propensity=one.propensity)
    return {one.position: one.propensity for one in drawn if one.place is None}


def _best(
    places: NDArray[np.int64], scores: NDArray[np.float32], given_away: NDArray[np.int64], limit: int
) -> NDArray[np.int64]:
    """int64[m], candidates for all positions, best first; none that is given away."""
    order = best(scores, limit + len(given_away))
    return order[~np.isin(places[order], given_away)] if given_away.size else order


def _diverse(
    places: NDArray[np.int64],
    scores: NDArray[np.float32],
    given_away: NDArray[np.int64],
    last: NDArray[np.bool_] | None,
    *,
    scenario: Scenario,
    shelf: Shelf,
    vectors: Vectors | None,
    limit: int,
) -> NDArray[np.int64]:
    """The same, buried ones last, as unlike each other and as many of a kind as the scenario wants.

    Args:
        last: bool[n], what is buried; None: nothing.
    """
    last = np.zeros(len(places), np.bool_) if last is None else last
    order = np.flatnonzero((places[:, None] != given_away).all(axis=1))
    order = order[np.lexsort((-scores[order], last[order]))]
    diversity = scenario.diversity
    if diversity.relevance == 1 and not diversity.caps:
        return order
    if diversity.relevance < 1:
        order = order[: max(POOL, limit)]
    mixed = np.concatenate([places[order], given_away])
    caps, chosen = caps_of(diversity.caps, mixed, shelf), range(len(order), len(mixed))
    if diversity.relevance == 1:
        return order[capped(range(len(order)), limit, caps, chosen)]
    alike = likeness(mixed, shelf, vectors)
    return order[
        diverse(scores[order], alike, limit, relevance=diversity.relevance, last=last[order], caps=caps, chosen=chosen)
    ]


def _laid(fixed: Mapping[int, int], rest: Sequence[int], limit: int) -> list[int]:
    """Every fixed item at its position, or before it where the answer is too short to reach so far."""
    waiting, coming = sorted(fixed.items(), reverse=True), iter(rest)
    laid: list[int] = []
    while len(laid) < limit:
        if waiting and waiting[-1][0] <= len(laid):
            laid.append(waiting.pop()[1])
        elif (one := next(coming, None)) is not None:
            laid.append(one)
        elif waiting:
            laid.append(waiting.pop()[1])
        else:
            break
    return laid


def _scores(
    wanted: Iterable[int], places: NDArray[np.int64], scores: NDArray[np.float32], *, floor: float | None = None
) -> NDArray[np.float32]:
    """float32[m], the scores of these places; of what was no candidate the floor, else the lowest there is."""
    known = dict(zip(places.tolist(), scores.tolist(), strict=True))
    if floor is None:
        floor = min(known.values(), default=0.0)
    return np.array([known.get(int(place), floor) for place in wanted], np.float32)


def _chances(laid: Iterable[int], chances: Mapping[int, float]) -> Mapping[int, Note]:
    """Notes of those that could have been drawn away."""
    if not chances:
        return _NO_NOTES
    return {int(place): Note(propensity=chances[at]) for at, place in enumerate(laid) if at in chances}
