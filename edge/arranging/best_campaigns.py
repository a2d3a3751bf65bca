"""Which campaign for whom: the one whose best items score highest for this user.

All items of all campaigns that run are ranked once, as the scenario ``plain`` ranks, and a campaign is worth the mean
of its five best. The mean of all its items would punish a campaign for being broad.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from edge.arranging.promotion import Promotion, Visit
from edge.serving.filters import Filter
from edge.serving.query import Answer, Query, Recommended
from edge.serving.service import Service

BEST: Final = 5
_RANKED: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A campaign as an answer.

    Attributes:
        items: its best, best first.
    """

    promotion: Promotion
    score: float
    items: Sequence[Recommended]


async def best_campaigns(service: Service, query: Query, *, limit: int) -> tuple[Answer, list[Campaign]]:
    """Those that run in the question's scenario and mean who asks, best first; and the answer they were judged by.

    Raises:
        BadInputError: there is no such scenario.
    """
    loaded, promotions = service.loaded, service.arranging.promotions
    service.arranging.scenario(query.scenario)
    visit = Visit(
        past=service.past(loaded, query), known=query.history is None, region=query.context.get("region"), arm=None
    )
    running = [
        each
        for each in promotions.running(visit, loaded.shelf, now_ms=service.now_ms())
        if query.scenario in each.placement.scenarios
    ]
    members = {
        each.name: {loaded.shelf.name(place) for place in promotions.places(each, loaded.shelf)} for each in running
    }
    wanted = Filter(items=sorted(set().union(*members.values())))
    answer = await service.recommend(replace(query, scenario="plain", filter=wanted, limit=_RANKED))
    found = [_judged(each, members[each.name], answer.items) for each in running]
    return answer, sorted((each for each in found if each.items), key=lambda each: -each.score)[:limit]


def _judged(promotion: Promotion, members: set[str], ranked: Sequence[Recommended]) -> Campaign:
    best = [item for item in ranked if item.item in members][:BEST]
    score = sum(item.score for item in best) / max(len(best), 1)
    return Campaign(promotion=promotion, score=round(score, 6), items=best)
