"""What would this user, this visit, this history want next; and what is like an item."""

from fastapi import APIRouter, Response

from edge.api.lean import Permission, json_response, lean_router, spec
from edge.api.models import RecommendationsIn, RecommendationsOut, SimilarIn
from edge.serving.filters import Filter
from edge.serving.query import Answer, Query
from edge.shop import Shop


def routes(shop: Shop) -> APIRouter:
    """Routes that ask the model."""
    router, service = lean_router(), shop.service

    @router.post(
        "/v1/recommendations",
        **spec(RecommendationsOut, permission=Permission.QUERY, example={"user": "ada", "limit": 3}),
    )
    async def recommend(body: RecommendationsIn) -> Response:
        """Items for a user or for a history, best first."""
        query = Query(
            user=body.user,
            history=body.history,
            limit=body.limit,
            filter=Filter(categories=body.filter.category),
            exclude=body.exclude,
        )
        return answered(service.recommend(query))

    @router.post(
        "/v1/similar",
        **spec(RecommendationsOut, permission=Permission.QUERY, problems=(404,), example={"item": "i1", "limit": 3}),
    )
    async def similar(body: SimilarIn) -> Response:
        """Items like one item."""
        found = service.similar(
            body.item, limit=body.limit, wanted=Filter(categories=body.filter.category), exclude=body.exclude
        )
        return answered(found)

    return router


def answered(answer: Answer) -> Response:
    """An answer of the service as the API gives it."""
    return json_response(
        {
            "rec_id": answer.rec_id,
            "release": answer.release,
            "arm": answer.arm,
            "rung": answer.rung,
            "degraded": bool(answer.reasons),
            "reasons": answer.reasons,
            "items": answer.items,
        }
    )
