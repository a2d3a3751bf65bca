"""Business rules of a scenario as masks and positions, at one moment."""

import numpy as np
from numpy.typing import NDArray

from edge.arranging.scenario import Rule, Scenario
from edge.serving.filters import matching
from edge.serving.shelf import Shelf


def excluded(scenario: Scenario, shelf: Shelf, *, now_ms: int) -> NDArray[np.bool_]:
    """bool[size], what rules that hold now exclude."""
    return _ruled(scenario, "exclude", shelf, now_ms=now_ms)


def buried(scenario: Scenario, shelf: Shelf, *, now_ms: int) -> NDArray[np.bool_]:
    """bool[size], what rules that hold now bury."""
    return _ruled(scenario, "bury", shelf, now_ms=now_ms)


def pins(scenario: Scenario, shelf: Shelf, allowed: NDArray[np.bool_], *, limit: int, now_ms: int) -> dict[int, int]:
    """Position -> place, positions from 0. Where two want the same position, the later rule's item moves down.

    Args:
        allowed: bool[size]; what is not offered, left over or wanted is not pinned either.
    """
    pinned: dict[int, int] = {}
    for rule in scenario.rules:
        if rule.do != "pin" or not rule.holds(now_ms):
            continue
        position = rule.position - 1
        for place in _places(rule, shelf):
            if allowed[place] and place not in pinned.values():
                while position in pinned:
                    position += 1
                if position < limit:
                    pinned[position] = place
    return pinned


def _ruled(scenario: Scenario, do: str, shelf: Shelf, *, now_ms: int) -> NDArray[np.bool_]:
    mask = np.zeros(shelf.size, np.bool_)
    for rule in scenario.rules:
        if rule.do == do and rule.holds(now_ms):
            mask[_places(rule, shelf)] = True
            if rule.filter is not None:
                mask |= matching(shelf, rule.filter, strictly=False)
    return mask


def _places(rule: Rule, shelf: Shelf) -> list[int]:
    return [place for item in rule.items if (place := shelf.place(item)) is not None]
