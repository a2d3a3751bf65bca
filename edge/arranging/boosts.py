"""What an operator wants to see more of, or less: factors on how likely an item is to be picked.

Scores are those of a multinomial logit (`edge.serving.fitting`), so a factor f on the odds of an item is ln f added to
its score. Fused votes are no such scores; there the score itself is multiplied.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.arranging.scenario import Boost, Freshness, Ramp, Scenario
from edge.records.events import DAY_MS, parse_time
from edge.serving.facts import Coded, Numbers, ShelfFacts
from edge.serving.filters import matching
from edge.serving.shelf import Shelf
from protocol.errors import BadInputError


def boosted(
    places: NDArray[np.int64], scores: NDArray[np.float32], *, scenario: Scenario, shelf: Shelf, now_ms: int
) -> NDArray[np.float32]:
    """float32[n], the scores after all boosts of a scenario."""
    lifts = np.zeros(len(places))
    for boost in scenario.boosts:
        lifts += math.log(boost.factor) * _strength(boost, places, shelf, now_ms=now_ms)
    lifted = scores * np.exp(lifts) if scenario.fusion == "votes" else scores + lifts
    return lifted.astype(np.float32)


def _strength(boost: Boost, places: NDArray[np.int64], shelf: Shelf, *, now_ms: int) -> NDArray[Any]:
    """From 0, not at all, to 1, fully; for each place."""
    if boost.by is not None:
        return _ramp(boost.by, places, shelf)
    if boost.fresh is not None:
        return _freshness(boost.fresh, places, shelf, now_ms=now_ms)
    assert boost.filter is not None
    return matching(shelf, boost.filter, strictly=False)[places]


def _ramp(ramp: Ramp, places: NDArray[np.int64], shelf: Shelf) -> NDArray[np.float64]:
    height = (_numbers(ramp.attribute, places, shelf) - ramp.low) / (ramp.high - ramp.low)
    return np.nan_to_num(np.clip(height, 0, 1))


def _freshness(fresh: Freshness, places: NDArray[np.int64], shelf: Shelf, *, now_ms: int) -> NDArray[np.float64]:
    """What has not come yet is as fresh as what came today; what has no date is not fresh."""
    fact = ShelfFacts(shelf).fact(fresh.attribute)
    match fact:
        case None:
            return np.zeros(len(places))
        case Numbers(values=values):
            texts = values[places].tolist()
        case Coded(codes=codes, values=values):
            texts = [values[code] for code in codes[places].tolist()]
    age_days = (now_ms - np.array([_time_ms(text) for text in texts])) / DAY_MS
    return np.nan_to_num(np.exp2(-np.maximum(age_days, 0) / fresh.half_life_days))


def _numbers(name: str, places: NDArray[np.int64], shelf: Shelf) -> NDArray[np.float64]:
    fact = ShelfFacts(shelf).fact(name)
    if isinstance(fact, Numbers):
        return fact.values[places].astype(np.float64)
    return np.full(len(places), np.nan)


@lru_cache(maxsize=4_096)
def _time_ms(value: Any) -> float:
    """Nan: it is no time."""
    try:
        return float(parse_time(value)) if isinstance(value, str | float) else math.nan
    except (BadInputError, ValueError):
        return math.nan
