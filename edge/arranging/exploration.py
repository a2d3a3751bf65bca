"""Items that few have seen get a chance in a bounded number of positions, and it is known with which probability.

An item is drawn in proportion to its optimistic click rate (the upper confidence bound of UCB1), so what clicked well
in few showings comes more often, and what nobody clicked fades. Drawing instead of taking the highest keeps the
probability of each choice exact, which is what judging another policy from these answers needs.

Source:
    Auer, Cesa-Bianchi and Fischer, Finite-time analysis of the multiarmed bandit problem, Machine Learning 2002.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.arranging.scenario import Exploration


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Untried:
    """Items that were shown seldom or never.

    Attributes:
        places: int64[m], each once.
        impressions: float64[m], how often each was shown.
        clicks: float64[m], how often it was clicked then, or bought.
    """

    places: NDArray[np.int64]
    impressions: NDArray[np.float64]
    clicks: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """What was drawn for a position.

    Attributes:
        position: from 0.
        place: None: this time the best stands there.
        propensity: the probability of that, given what was drawn for the positions before.
    """

    position: int
    place: int | None
    propensity: float


def explore(
    untried: Untried,
    exploration: Exploration,
    *,
    allowed: NDArray[np.bool_],
    limit: int,
    taken: Collection[int],
    occupied: Collection[int],
    rng: np.random.Generator,
) -> list[Explored]:
    """Draw for each position that explores, as long as there is something to explore.

    Args:
        allowed: bool[size].
        taken: places that are in the answer anyhow.
        occupied: positions that are given away.
    """
    free = allowed[untried.places] & (untried.impressions < exploration.impressions)
    if taken:
        free &= ~np.isin(untried.places, list(taken))
    left = np.count_nonzero(free)
    found: list[Explored] = []
    for position in sorted({position - 1 for position in exploration.positions}):
        if position >= limit or position in occupied or not left:
            continue
        if rng.random() >= exploration.epsilon:
            found.append(Explored(position=position, place=None, propensity=1 - exploration.epsilon))
            continue
        shares = np.cumsum(np.where(free, optimism(untried), 0.0))
        one = int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))
        one = min(one, int(np.flatnonzero(free)[-1]))  # rounding can reach the end
        share = float(shares[one] - (shares[one - 1] if one else 0.0)) / float(shares[-1])
        found.append(
            Explored(position=position, place=int(untried.places[one]), propensity=exploration.epsilon * share)
        )
        free[one] = False
        left -= 1
    return found


def optimism(untried: Untried) -> NDArray[np.float64]:
    """float64[m] above 0, the click rate that each item may have: what is known, and room for what is not."""
    shown = untried.impressions + 1
    rate = np.minimum((untried.clicks + 1) / (shown + 1), 1)
    room: NDArray[np.float64] = np.sqrt(2 * np.log(shown.sum() + 1) / shown)
    return rate + room
