"""What would this user, this visit, this history want next; what is like an item; which campaign fits."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from edge.api.fields import at_hand, told
from edge.api.lean import Permission, json_response, lean_router, spec
from edge.api.models import AnsweredOut, ItemOut, Person, RecommendationsIn, RecommendationsOut, SimilarIn
from edge.arranging.best_campaigns import best_campaigns
from edge.serving.query import Answer, Query, Recommended
from edge.shop import Shop

_EXAMPLE = {
    "user": "ada",
    "limit": 3,
    "filter": {"price": {"max": 20}, "where": 'category == "tea" or brand in ["own"]'},
    "fields": ["price", "brand"],
}
_ANSWER = {
    "rec_id": "AAAAAwABAgMEBQYHCAkKCwwNDg8",
    "release": 3,
    "arm": None,
    "rung": "sequence",
    "degraded": False,
    "reasons": [],
    "skipped": [],
    "items": [{"item": "i2", "score": 7.25, "title": "Item i2", "fields": {"price": 1.5, "brand": "own"}}],
}


class CampaignsIn(Person):
    """A question for campaigns."""

    limit: int = Field(default=3, ge=1, le=20)


class CampaignOut(BaseModel):
    """Scores compare within one answer only."""

    name: str
    title: str
    score: float = Field(description="Mean of the five of its items that score best for who asks.")
    data: dict[str, str | float | bool]
    items: list[ItemOut] = Field(description="Those five, best first.")


class CampaignsOut(AnsweredOut):
    """Campaigns that run now and mean who asks, best first."""

    promotions: list[CampaignOut]


def routes(shop: Shop) -> APIRouter:
    """Routes that ask the model."""
    router, service, experiments = lean_router(), shop.service, shop.experiments

    @router.post(
        "/v1/recommendations",
        **spec(RecommendationsOut, permission=Permission.QUERY, example=_EXAMPLE, answer=_ANSWER),
    )
    async def recommend(body: RecommendationsIn) -> Response:
        """Items for a user, a visitor or a history, best first."""
        await at_hand(service, body.filter, fields=body.fields)
        query = body.query()
        choice = None
        if experiments is not None:
            choice = experiments.choose(body.scenario, user=body.user, session=body.session)
        if experiments is None or choice is None:
            answer = await service.recommend(query)
        else:
            found = await service.recommend(choice.under(query), loaded=choice.loaded, arm=choice.label)
            answer = choice.said(found)
            experiments.answered(choice)
        _count(answer)
        return answered(answer, shop, fields=body.fields, propensity=body.propensity)

    @router.post(
        "/v1/recommendations/promotions",
        **spec(CampaignsOut, permission=Permission.QUERY, example={"user": "ada", "limit": 1}),
    )
    async def promote(body: CampaignsIn) -> Response:
        """Campaigns for a user, a visitor or a history, best first: to choose a banner, not an item."""
        query = Query(
            user=body.user,
            session=body.session if body.user is None else None,
            history=body.history,
            scenario=body.scenario,
            items=body.items,
            context=body.context.known() if body.context else {},
            within_ms=body.timeout_ms,
        )
        answer, campaigns = await best_campaigns(service, query, limit=body.limit)
        found = [
            {
                "name": each.promotion.name,
                "title": each.promotion.title,
                "score": each.score,
                "data": each.promotion.data,
                "items": [_item(item) for item in each.items],
            }
            for each in campaigns
        ]
        return json_response({**head_of(answer), "promotions": found})

    @router.post(
        "/v1/similar",
        **spec(RecommendationsOut, permission=Permission.QUERY, problems=(404,), example={"item": "i1", "limit": 3}),
    )
    async def similar(body: SimilarIn) -> Response:
        """Items like one item."""
        await at_hand(service, body.filter, fields=body.fields)
        found = await service.similar(body.item, limit=body.limit, wanted=body.filter, exclude=body.exclude)
        return answered(found, shop, fields=body.fields)

    def _count(answer: Answer) -> None:
        """Campaigns may be shown so often only. The answer does not wait for the disk."""
        shown = [item.note.promotion for item in answer.items if item.note is not None and item.note.promotion]
        promotions = service.arranging.promotions
        if shown and promotions.note_shown(shown):
            asyncio.get_running_loop().run_in_executor(None, promotions.save_if_possible)

    return router


def answered(
    answer: Answer,
    shop: Shop,
    *,
    fields: Sequence[str] = (),
    propensity: bool = False,
    beside: Sequence[Mapping[str, Any]] = (),
) -> Response:
    """An answer of the service as the API gives it.

    Args:
        beside: what else is told of each item.
    """
    items = [_item(item, propensity=propensity) for item in answer.items]
    for item, more in zip(items, beside, strict=False):
        item.update(more)
    if fields:
        known = told([item.item for item in answer.items], fields, shop.service.loaded.shelf, shop.service.store)
        for item, about in zip(items, known, strict=True):
            item["fields"] = about
    return json_response({**head_of(answer), "items": items})


def head_of(answer: Answer) -> dict[str, Any]:
    """What is told of any answer, beside its items."""
    return {
        "rec_id": answer.rec_id,
        "release": answer.release,
        "arm": answer.arm,
        "rung": answer.rung,
        "degraded": bool(answer.reasons),
        "reasons": answer.reasons,
        "skipped": answer.skipped,
    }


def _item(item: Recommended, *, propensity: bool = False) -> dict[str, Any]:
    known: dict[str, Any] = {"item": item.item, "score": item.score, "title": item.title}
    note = item.note
    if note is not None:
        if note.promotion is not None:
            known["promotion"] = note.promotion
        if note.pinned:
            known["pinned"] = True
        if note.explored:
            known["explored"] = True
    if propensity:
        known["propensity"] = 1.0 if note is None or note.propensity is None else note.propensity
    return known
