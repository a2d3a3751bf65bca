"""Scenarios as operators set them; the next answer obeys."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from edge.api.lean import Permission, json_response, lean_router, spec
from edge.api.models import Body, Name
from edge.api.problems import problem
from edge.arranging.naming import scenario_names, unknown_names
from edge.arranging.scenario import BUILT_IN, Scenario
from edge.serving.fusion import SOURCES, VOICES
from edge.shop import Shop
from protocol.errors import BadInputError

_EXAMPLE = {
    "name": "home",
    "filter": {"in_stock": True},
    "boosts": [
        {"factor": 1.5, "filter": {"where": 'brand in ["own"]'}},
        {"factor": 2, "by": {"attribute": "margin", "low": 0.1, "high": 0.4}},
        {"factor": 1.3, "fresh": {"attribute": "released", "half_life_days": 14}},
    ],
    "rules": [
        {"do": "pin", "items": ["i3"], "position": 1, "start": "2026-12-01T00:00:00Z", "end": "2026-12-27T00:00:00Z"},
        {"do": "exclude", "filter": {"category": ["fish"]}},
    ],
    "diversity": {"relevance": 0.8, "caps": {"category": 3}},
    "exploration": {"positions": [6], "epsilon": 0.1},
}


class Named(Body):
    """Which one."""

    name: Name


class DocumentSet(BaseModel):
    """It is on disk, and the next answer obeys it."""

    name: str
    unknown: list[str] = Field(description="Items and names in it that this shop does not know; they have no effect.")


class Removed(BaseModel):
    """It is gone."""

    name: str
    built_in: bool = Field(description="One of this name is built in; that one holds again.")


class ScenariosOut(BaseModel):
    """All scenarios; what is not written down is the default."""

    scenarios: list[dict[str, Any]]


def routes(shop: Shop) -> APIRouter:
    """Routes of scenarios."""
    router, service = lean_router(), shop.service
    book = service.arranging.scenarios

    @router.get("/v1/scenarios", **spec(ScenariosOut, permission=Permission.QUERY))
    async def everything() -> Response:
        """All scenarios, those that are built in among them."""
        known = book.known()
        listed = [
            {**book.as_json(each), "built_in": each is BUILT_IN.get(name)} for name, each in sorted(known.items())
        ]
        return json_response({"scenarios": listed})

    @router.post("/v1/scenarios", **spec(DocumentSet, permission=Permission.ADMIN, example=_EXAMPLE))
    async def put(body: Scenario) -> Response:
        """Set a scenario by its name; it replaces the one that is there, all of it."""
        _check_voices(body)
        await service.change(lambda _: book.put(body.name, body))
        names = scenario_names(body)
        await service.know(names.attributes)
        return json_response({"name": body.name, "unknown": unknown_names(names, service.loaded.shelf)})

    @router.post(
        "/v1/scenarios/remove",
        **spec(Removed, permission=Permission.ADMIN, problems=(404,), example={"name": "christmas"}),
    )
    async def remove(body: Named) -> Response:
        """Remove a scenario that was set; of a built-in one, the change."""
        if not await service.change(lambda _: book.drop(body.name)):
            return problem(HTTPStatus.NOT_FOUND, f"no scenario {body.name} was set")
        return json_response({"name": body.name, "built_in": body.name in BUILT_IN})

    return router


def _check_voices(scenario: Scenario) -> None:
    unknown = set(scenario.voices or ()) - SOURCES.keys() - set(VOICES)
    if unknown:
        raise BadInputError(f"there is no voice {min(unknown)}", advice=f"there are {', '.join(SOURCES)}")
