"""Campaigns as operators set them; the next answer shows them."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel

from edge.api.lean import Permission, json_response, lean_router, spec
from edge.api.problems import problem
from edge.api.scenarios import DocumentSet, Named
from edge.arranging.moments import is_on
from edge.arranging.naming import promotion_names, unknown_names
from edge.arranging.promotion import Promotion
from edge.shop import Shop

_EXAMPLE = {
    "name": "tea-week",
    "title": "A week of tea",
    "filter": {"category": ["tea"]},
    "start": "2026-11-20T00:00:00Z",
    "end": "2026-12-27T00:00:00Z",
    "audience": {"interest": {"category": ["tea", "fish"], "did": "bought", "days": 60}},
    "placement": {"scenarios": ["home"], "positions": [2, 5], "slots": 2},
    "impressions": 10000,
    "data": {"banner": "/img/tea.webp"},
}


class PromotionsOut(BaseModel):
    """All campaigns, with how often their items stood in answers, and whether they run now."""

    promotions: list[dict[str, Any]]


class PromotionRemoved(BaseModel):
    """It is gone."""

    name: str


def routes(shop: Shop) -> APIRouter:
    """Routes of campaigns."""
    router, service = lean_router(), shop.service
    promotions = service.arranging.promotions
    book = promotions.book

    @router.get("/v1/promotions", **spec(PromotionsOut, permission=Permission.QUERY))
    async def everything() -> Response:
        """All campaigns."""
        now_ms = service.now_ms()
        listed = [
            {
                **book.as_json(each),
                "shown": promotions.shown(name),
                "running": is_on(each.start, each.end, now_ms) and not promotions.is_spent(each),
            }
            for name, each in sorted(book.known().items())
        ]
        return json_response({"promotions": listed})

    @router.post("/v1/promotions", **spec(DocumentSet, permission=Permission.ADMIN, example=_EXAMPLE))
    async def put(body: Promotion) -> Response:
        """Set a campaign by its name; it replaces the one that is there, and what it was shown counts on."""
        await service.change(lambda _: book.put(body.name, body))
        names = promotion_names(body)
        await service.know(names.attributes)
        return json_response({"name": body.name, "unknown": unknown_names(names, service.loaded.shelf)})

    @router.post(
        "/v1/promotions/remove",
        **spec(PromotionRemoved, permission=Permission.ADMIN, problems=(404,), example={"name": "tea-week"}),
    )
    async def remove(body: Named) -> Response:
        """Remove a campaign, and how often it was shown."""
        if not await service.change(lambda _: promotions.drop(body.name)):
            return problem(HTTPStatus.NOT_FOUND, f"there is no promotion {body.name}")
        return json_response({"name": body.name})

    return router
