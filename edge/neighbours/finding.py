"""Related and trending items as answers, each with a ladder of its own: never an error page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.neighbours.companions import EVERY, Kinds
from edge.neighbours.entries import LONGEST
from edge.neighbours.neighbours import Neighbours
from edge.neighbours.visits import BOUGHT, VIEWED
from edge.serving.degradation import Reason, Rung
from edge.serving.filters import ANYTHING, Filter, allowed
from edge.serving.query import Answer, Recommended
from edge.serving.ranker import best
from edge.serving.release import Loaded
from edge.serving.service import Service, UnknownItemError

WAYS: Final[Mapping[str, Kinds]] = MappingProxyType(
    {"bought": ((BOUGHT, 1.0),), "viewed": ((VIEWED, 1.0),), "any": EVERY}
)
"""Ways to be related, and which books tell of it."""
_ALL = 2 * LONGEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Trending:
    """What is wanted now.

    Attributes:
        rises: of each item of the answer, how many times as much as usual it is wanted; None: it is not known.
    """

    answer: Answer
    rises: Sequence[float | None]


async def related(
    service: Service,
    neighbours: Neighbours | None,
    items: Sequence[str],
    *,
    way: str,
    limit: int,
    wanted: Filter = ANYTHING,
    exclude: Sequence[str] = (),
) -> Answer:
    """What goes with these items taken together; filled up with what is like the last of them.

    Args:
        way: one of `WAYS`.

    Raises:
        UnknownItemError: nobody knows one of them.
        BadInputError: the filter names what no item has.
    """
    loaded = service.loaded
    places = [loaded.shelf.place(item) for item in items]
    for item, place in zip(items, places, strict=True):
        if place is None:
            raise UnknownItemError(f"item {item} is unknown")
    found: tuple[NDArray[np.int64], NDArray[np.float32]] = np.empty(0, np.int64), np.empty(0, np.float32)
    if neighbours is not None:
        seeds = np.array(places, np.int64)
        found = neighbours.near(loaded.shelf, seeds, loaded.shelf.size, kinds=WAYS[way], most=_ALL)
    mask = allowed(loaded.shelf, wanted, [*exclude, *items])
    kept = mask[found[0]]
    answer = [_named(loaded, place, weight) for place, weight in _pairs(found[0][kept][:limit], found[1][kept][:limit])]
    if len(answer) == limit:
        return _counted(service, loaded, Rung.COMPANIONS, (), answer)
    known = [*exclude, *items, *(item.item for item in answer)]
    like = await service.similar(items[-1], limit=limit - len(answer), wanted=wanted, exclude=known)
    floor = min((item.score for item in answer), default=0.0) - 1
    filled = [
        Recommended(item=each.item, score=round(floor - at, 6), title=each.title) for at, each in enumerate(like.items)
    ]
    rung = Rung.COMPANIONS if answer else like.rung
    reasons = (Reason.NO_COMPANIONS, *(() if answer else like.reasons))
    return _counted(service, loaded, rung, reasons, [*answer, *(filled if answer else like.items)])


def trending(
    service: Service,
    neighbours: Neighbours | None,
    *,
    limit: int,
    wanted: Filter = ANYTHING,
    exclude: Sequence[str] = (),
) -> Trending:
    """What is rising, then what is wanted most now; filled up with what sells.

    Raises:
        BadInputError: the filter names what no item has.
    """
    loaded = service.loaded
    shelf, mask = loaded.shelf, allowed(loaded.shelf, wanted, exclude)
    items: list[Recommended] = []
    rises: list[float | None] = []
    if neighbours is not None:
        found = neighbours.trends(shelf, service.now_ms())
        places = best(np.where(mask, found.score[: len(mask)], -np.inf).astype(np.float32), limit)
        items = [_named(loaded, place, score) for place, score in _pairs(places, found.score[places])]
        rises = [round(float(rise), 3) for rise in found.rise[places]]
        mask[places] = False
    enough = len(items) == limit
    floor = min((item.score for item in items), default=0.0) - 1
    popularity = np.where(mask, shelf.popularity(), -np.inf).astype(np.float32)
    rest = best(popularity, limit - len(items))
    items += [_named(loaded, place, floor - at) for at, place in enumerate(rest.tolist())]
    rung = Rung.TRENDING if rises else Rung.POPULARITY
    answer = _counted(service, loaded, rung, () if enough else (Reason.NO_TRENDS,), items)
    return Trending(answer=answer, rises=[*rises, *[None] * len(rest)])


def _pairs(places: NDArray[np.int64], scores: NDArray[np.float32]) -> list[tuple[int, float]]:
    return list(zip(places.tolist(), scores.tolist(), strict=True))


def _named(loaded: Loaded, place: int, score: float) -> Recommended:
    return Recommended(item=loaded.shelf.name(place), score=round(score, 6), title=loaded.shelf.title(place))


def _counted(
    service: Service, loaded: Loaded, rung: Rung, reasons: tuple[Reason, ...], items: list[Recommended]
) -> Answer:
    service.metrics.note_answer(rung, reasons)
    return service.recommender.answer(loaded, rung, reasons, items)
