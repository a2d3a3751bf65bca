"""What somebody types -> items; and what somebody may be about to type."""

from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from edge.api.fields import at_hand, told
from edge.api.lean import Permission, json_response, lean_router, spec
from edge.api.models import Body, Name
from edge.api.problems import problem
from edge.experiments.design import SEARCH
from edge.records.events import LONGEST_TEXT
from edge.search.answers import Ask, Found, Gap, Hit, Sort
from edge.search.completing import Kind
from edge.search.facets import MOST_FACETS
from edge.search.searching import Search
from edge.search.synonyms import KIND, MOST_PHRASES, check
from edge.serving.filters import ANYTHING, Filter
from edge.shop import Shop

LAST: Final = 10_000
"""Place of the last item that can be paged to."""
_LONGEST_WAIT_MS = 60_000
_EXAMPLE = {
    "query": "green tea",
    "user": "ada",
    "filter": {"price": {"max": 20}},
    "facets": ["category", "brand", "price"],
    "highlight": True,
}
_ANSWER = {
    "rec_id": "AAAAAwABAgMEBQYHCAkKCwwNDg8",
    "release": 3,
    "arm": None,
    "degraded": False,
    "reasons": [],
    "skipped": [],
    "hits": 1,
    "corrected": None,
    "items": [
        {
            "item": "i7",
            "score": 11.25,
            "title": "Green tea, loose",
            "price": 4.5,
            "category": "tea",
            "brand": "own",
            "highlight": "<mark>Green</mark> <mark>tea</mark>, loose",
        }
    ],
    "facets": {
        "category": [{"value": "tea", "count": 1}],
        "brand": [{"value": "own", "count": 1}],
        "price": [{"min": 2.0, "max": 5.0, "count": 1}],
    },
}


class SearchIn(Body):
    """What was typed, and by whom."""

    query: str = Field(default="", max_length=LONGEST_TEXT, description="Empty: whatever the filter lets through.")
    user: Name | None = None
    session: Name | None = Field(default=None, description="Of a visitor who is no known user.")
    # Made by a factory: pydantic would copy a default, whatever it holds, at every request.
    filter: Filter = Field(default_factory=lambda: ANYTHING)
    facets: list[Name] = Field(
        default_factory=list,
        max_length=MOST_FACETS,
        description="Count the values of category, brand, price, or an attribute.",
    )
    fields: list[Name] = Field(default_factory=list, max_length=20, description="What else is told of each item.")
    sort: Sort = Sort.RELEVANCE
    limit: int = Field(default=10, ge=1, le=100)
    offset: int = Field(default=0, ge=0, le=LAST - 100)
    highlight: bool = Field(default=False, description="Give titles as HTML, too, with what was found in <mark>.")
    semantic: Literal["auto", "off"] = Field(
        default="auto", description="Also find what means the same in other words, where the release can."
    )
    timeout_ms: float | None = Field(
        default=None, gt=0, le=_LONGEST_WAIT_MS, description="The answer is of use only so long; see docs/serving.md."
    )


class HitOut(BaseModel):
    """One item. Scores compare within one answer only, and are 0 in an order that is not one of relevance."""

    item: str
    score: float
    title: str
    price: float | None
    category: str
    brand: str
    highlight: str | None = Field(default=None, description="HTML; everything but <mark> is escaped.")
    fields: dict[str, Any] | None = Field(default=None, description="What was asked for and is known of it.")


class CountOut(BaseModel):
    """One value of a facet, or from `min` on and below `max`."""

    value: str | float | bool | None = None
    min: float | None = None
    max: float | None = None
    count: int


class SearchOut(BaseModel):
    """`degraded` is true when the answer is not as good as it could be, and `reasons` says why."""

    rec_id: str = Field(description="Events that follow from this answer echo it.")
    release: int | None = Field(description="Version of the release that took part; null before the first.")
    arm: str | None = Field(description="The arm of an experiment under which it was answered.")
    degraded: bool
    reasons: list[Gap]
    skipped: list[str] = Field(description="Submodels that should have had a say and had none.")
    hits: int = Field(
        description="How many items fit with every word. If fewer than asked for, others that nearly fit follow them."
    )
    corrected: str | None = Field(description="The question as it was probably meant; null: as it was typed.")
    items: list[HitOut] = Field(description="Best first.")
    facets: dict[str, list[CountOut]] = Field(description="Over all hits, not only those in this answer.")


class SuggestIn(Body):
    """What has been typed so far."""

    query: str = Field(max_length=LONGEST_TEXT)
    limit: int = Field(default=8, ge=1, le=20, description="Texts.")
    items: int = Field(default=4, ge=0, le=20, description="Items.")


class SuggestionOut(BaseModel):
    """A text to search for. A `query` was typed by three people at least."""

    text: str
    kind: Kind


class SuggestOut(BaseModel):
    """What may be about to be typed, and what is found for it already."""

    suggestions: list[SuggestionOut]
    items: list[HitOut]


_Texts = Annotated[list[str], Field(max_length=MOST_PHRASES)]


class SynonymsIn(Body):
    """Either `same`, texts that mean the same, or `from`, a text, and `to`, what is found for it, too."""

    name: Name
    same: _Texts | None = Field(default=None, examples=[["sofa", "couch", "settee"]])
    from_: str | None = Field(default=None, alias="from", max_length=LONGEST_TEXT)
    to: _Texts | None = None

    def document(self) -> dict[str, Any]:
        """As it is kept."""
        return self.model_dump(by_alias=True, exclude={"name"}, exclude_none=True)


class SynonymsNamed(Body):
    """Which ones."""

    name: Name


class SynonymsSet(BaseModel):
    """They are on disk, and the next search knows them."""

    name: str


class SynonymsOut(BaseModel):
    """All of them by name."""

    synonyms: dict[str, dict[str, Any]]


class IndexOut(BaseModel):
    """The index that is searched."""

    items: int
    whole: bool = Field(description="False: it is being built for the first time, and items are missing.")
    language: str
    building: bool = Field(description="Another one is being built, or is about to be.")


def routes(shop: Shop) -> APIRouter:
    """Routes of the search."""
    router = lean_router()
    if shop.search is not None:
        _add_questions(router, shop, shop.search)
        _add_synonyms(router, shop, shop.search)
        _add_index(router, shop.search)
    return router


def _add_questions(router: APIRouter, shop: Shop, search: Search) -> None:
    experiments = shop.experiments

    @router.post("/v1/search", **spec(SearchOut, permission=Permission.QUERY, example=_EXAMPLE, answer=_ANSWER))
    async def find(body: SearchIn) -> Response:
        """Items for what was typed, best first; without a query, what sells best of what the filter lets through."""
        await at_hand(shop.service, body.filter, fields=body.fields, facets=body.facets)
        ask = Ask(
            text=body.query,
            user=body.user,
            session=body.session if body.user is None else None,
            filter=body.filter,
            facets=body.facets,
            sort=body.sort,
            limit=body.limit,
            offset=body.offset,
            highlight=body.highlight,
            semantic=body.semantic == "auto",
            within_ms=body.timeout_ms,
        )
        choice = experiments.choose(SEARCH, user=body.user, session=body.session) if experiments else None
        if experiments is None or choice is None:
            found = search.search(ask)
        else:
            what = choice.arm.what.search
            if what is not None:
                ask = replace(
                    ask,
                    semantic=ask.semantic if what.semantic is None else what.semantic,
                    personal=ask.personal if what.personal is None else what.personal,
                )
            found = search.search(ask, loaded=choice.loaded)
            if choice.stand_in:
                found = replace(found, gaps=(*found.gaps, Gap.ARM_NOT_HERE))
            experiments.answered(choice)
        return json_response(_answer(found, shop, body.fields, arm=choice.label if choice else None))

    @router.post("/v1/suggest", **spec(SuggestOut, permission=Permission.QUERY, example={"query": "gre"}))
    async def suggest(body: SuggestIn) -> Response:
        """Texts that begin with, or have a word that begins with, what was typed; and items it already finds."""
        found = search.suggest(body.query, limit=body.limit, items=body.items)
        texts = [{"text": text, "kind": kind} for text, kind in found.suggestions]
        return json_response({"suggestions": texts, "items": [_hit(hit) for hit in found.items]})


def _add_synonyms(router: APIRouter, shop: Shop, search: Search) -> None:
    service = shop.service

    @router.get("/v1/synonyms", **spec(SynonymsOut, permission=Permission.ADMIN))
    async def everything() -> Response:
        """All synonyms that were set."""
        return json_response({"synonyms": service.store.documents(KIND)})

    @router.post(
        "/v1/synonyms",
        **spec(SynonymsSet, permission=Permission.ADMIN, example={"name": "sofas", "same": ["sofa", "couch"]}),
    )
    async def put(body: SynonymsIn) -> Response:
        """Set synonyms by name, replacing those that are there."""
        document = body.document()
        check(document)
        await service.change(lambda store: store.put_document(KIND, body.name, document))
        search.read_synonyms()
        return json_response({"name": body.name})

    @router.post(
        "/v1/synonyms/remove",
        **spec(SynonymsSet, permission=Permission.ADMIN, problems=(404,), example={"name": "sofas"}),
    )
    async def remove(body: SynonymsNamed) -> Response:
        """Remove synonyms that were set."""
        if not await service.change(lambda store: store.drop_document(KIND, body.name)):
            return problem(HTTPStatus.NOT_FOUND, f"no synonyms {body.name} were set")
        search.read_synonyms()
        return json_response({"name": body.name})


def _add_index(router: APIRouter, search: Search) -> None:
    @router.get("/v1/search/index", **spec(IndexOut, permission=Permission.ADMIN))
    async def state() -> Response:
        """The index that is searched."""
        return json_response(_index(search))

    @router.post("/v1/search/rebuild", **spec(IndexOut, permission=Permission.ADMIN))
    async def rebuild() -> Response:
        """Build the index anew beside the one that is searched, which goes on until then."""
        search.follower.rebuild()
        return json_response(_index(search))


def _index(search: Search) -> dict[str, Any]:
    view = search.follower.view
    return {
        "items": view.reader.items if view else 0,
        "whole": view is not None and view.whole,
        "language": view.source.language if view else "",
        "building": search.follower.building,
    }


def _answer(found: Found, shop: Shop, fields: list[str], *, arm: str | None) -> dict[str, Any]:
    items = [_hit(hit) for hit in found.items]
    if fields:
        known = told([hit.item for hit in found.items], fields, shop.service.loaded.shelf, shop.service.store)
        for item, about in zip(items, known, strict=True):
            item["fields"] = about
    return {
        "rec_id": found.rec_id,
        "release": found.release,
        "arm": arm,
        "degraded": bool(found.gaps),
        "reasons": found.gaps,
        "skipped": found.skipped,
        "hits": found.hits,
        "corrected": found.corrected,
        "items": items,
        "facets": found.facets,
    }


def _hit(hit: Hit) -> dict[str, Any]:
    known: dict[str, Any] = {
        "item": hit.item,
        "score": hit.score,
        "title": hit.title,
        "price": hit.price,
        "category": hit.category,
        "brand": hit.brand,
    }
    if hit.highlight is not None:
        known["highlight"] = hit.highlight
    return known
