"""What goes with an item, what is trending, and why an item was recommended."""

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, model_validator

from edge.api.fields import at_hand
from edge.api.lean import Permission, json_response, lean_router, spec
from edge.api.models import AnsweredOut, Body, Context, ItemOut, Name, RecommendationsOut, Wanted
from edge.api.recommendations import answered, head_of
from edge.neighbours.explaining import Explained, Explaining
from edge.neighbours.finding import related, trending
from edge.neighbours.parts import Kind
from edge.neighbours.telling import Why
from edge.records.events import EventType, iso
from edge.serving.query import Query
from edge.shop import Shop

_MOST_SEEDS = 20
_MOST_EXPLAINED = 10


class _OneOrMore(Body):
    """Exactly one of `item` and `items`."""

    item: Name | None = None
    items: list[Name] = Field(default_factory=list, max_length=_MOST_SEEDS)

    @model_validator(mode="after")
    def _one_of_them(self) -> "_OneOrMore":
        if (self.item is None) == (not self.items):
            raise ValueError("give either item or items")
        return self

    def named(self) -> list[str]:
        return [self.item] if self.item is not None else list(self.items)


class RelatedIn(Wanted, _OneOrMore):
    """What goes with one item, or with several taken together."""

    kind: Literal["bought", "viewed", "any"] = Field(
        default="any", description="Bought in one basket, looked at in one visit, or both."
    )


class TrendingIn(Wanted):
    """What is wanted now more than usual."""


class TrendingItemOut(ItemOut):
    """One item; `rise` is how many times as much as usual it is wanted, null when that is not known."""

    rise: float | None


class TrendingOut(AnsweredOut):
    """Items that are rising, then those wanted most now. A score above 0 says that an item is rising."""

    items: list[TrendingItemOut]


class ExplanationsIn(_OneOrMore):
    """Why these items, for a user, a session or a history; exactly one of those."""

    items: list[Name] = Field(default_factory=list, max_length=_MOST_EXPLAINED)
    user: Name | None = None
    session: Name | None = None
    history: list[Name] | None = Field(default=None, max_length=1_000, description="Items, oldest first.")
    context: Context = Field(default_factory=Context)
    limit: int = Field(default=5, ge=1, le=20, description="Reasons of an item at most.")

    @model_validator(mode="after")
    def _one_person(self) -> "ExplanationsIn":
        if (self.user is None and self.session is None) == (self.history is None):
            raise ValueError("give either user, session or history")
        return self

    def query(self) -> Query:
        """Without HTTP."""
        return Query(
            user=self.user,
            session=self.session if self.user is None else None,
            history=self.history,
            context=self.context.known(),
        )


class ReasonOut(BaseModel):
    """One reason. `effect` is what it adds to the score; below 0 it moved the item down."""

    kind: Kind
    effect: float
    text: str
    item: str | None = None
    type: EventType | None = None
    time: str | None = None
    count: int | None = None


class ExplainedOut(BaseModel):
    """One item. The effects of `voices` add up to `above`, its score less the candidates' average."""

    item: str
    title: str
    score: float
    above: float
    because: list[ReasonOut]
    voices: list[ReasonOut]


class ExplanationsOut(AnsweredOut):
    """Why each of the items is recommended, or is not."""

    items: list[ExplainedOut]


def routes(shop: Shop) -> APIRouter:
    """Routes that ask what the site's own events say."""
    router, service = lean_router(), shop.service
    explaining = Explaining(service, shop.neighbours)

    @router.post(
        "/v1/related",
        **spec(
            RecommendationsOut,
            permission=Permission.QUERY,
            problems=(404,),
            example={"item": "i1", "kind": "bought", "limit": 3},
        ),
    )
    async def ask_related(body: RelatedIn) -> Response:
        """Items that were bought or viewed together with one item, or with several."""
        await at_hand(service, body.filter, fields=body.fields)
        answer = await related(
            service,
            shop.neighbours,
            body.named(),
            way=body.kind,
            limit=body.limit,
            wanted=body.filter,
            exclude=body.exclude,
        )
        return answered(answer, shop, fields=body.fields)

    @router.post("/v1/trending", **spec(TrendingOut, permission=Permission.QUERY, example={"limit": 3}))
    async def ask_trending(body: TrendingIn) -> Response:
        """Items that are wanted now more than usual."""
        return await _trending(shop, body)

    @router.get("/v1/trending", **_with_parameters(spec(TrendingOut, permission=Permission.QUERY)))
    async def get_trending(request: Request) -> Response:
        """The same, for a page that asks without a body."""
        asked: dict[str, Any] = dict(request.query_params)
        if "category" in asked:
            asked.pop("category")
            asked["filter"] = {"category": request.query_params.getlist("category")}
        return await _trending(shop, TrendingIn.model_validate(asked))

    @router.post(
        "/v1/explanations",
        **spec(ExplanationsOut, permission=Permission.QUERY, problems=(404,), example={"user": "ada", "item": "i1"}),
    )
    async def explain(body: ExplanationsIn) -> Response:
        """Which past events and which attributes moved an item up or down, and by how much."""
        found = await explaining.explain(body.query(), body.named(), limit=body.limit)
        answer = service.recommender.answer(service.loaded, found.rung, found.reasons, [])
        return json_response({**head_of(answer), "items": [_explained(item) for item in found.items]})

    return router


async def _trending(shop: Shop, body: TrendingIn) -> Response:
    await at_hand(shop.service, body.filter, fields=body.fields)
    found = trending(shop.service, shop.neighbours, limit=body.limit, wanted=body.filter, exclude=body.exclude)
    return answered(found.answer, shop, fields=body.fields, beside=[{"rise": rise} for rise in found.rises])


def _explained(item: Explained) -> dict[str, Any]:
    return {
        "item": item.item,
        "title": item.title,
        "score": round(item.score, 6),
        "above": round(item.above, 6),
        "because": [_reason(why) for why in item.because],
        "voices": [_reason(why) for why in item.voices],
    }


def _reason(why: Why) -> dict[str, Any]:
    """What is not so is left out."""
    told = {name: value for name, value in asdict(why).items() if value is not None and name != "time_ms"}
    told["effect"] = round(why.effect, 6)
    return told if why.time_ms is None else {**told, "time": iso(why.time_ms)}


def _with_parameters(options: dict[str, Any]) -> dict[str, Any]:
    """What may stand in the URL: nothing that says who asks."""
    parameters: list[dict[str, Any]] = [
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10}},
        {"name": "category", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
    ]
    return {**options, "openapi_extra": {**options["openapi_extra"], "parameters": parameters}}
