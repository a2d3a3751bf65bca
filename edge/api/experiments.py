"""A/B tests on this site's own visitors: set, stop, remove, and what came of them."""

import asyncio
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt

from edge.api.lean import Permission, json_response, lean_router, spec
from edge.api.problems import problem
from edge.experiments.book import UnknownExperimentError
from edge.experiments.design import MOST_ARMS, MOST_METRICS, Arm, Design, Kind, Metric, Unit
from edge.experiments.experiment import State
from edge.records.events import LONGEST_NAME, check_name, parse_time
from edge.shop import Shop
from protocol.errors import BadInputError


def _checked(value: str) -> str:
    try:
        check_name("name", value)
    except BadInputError as error:
        raise ValueError(str(error)) from error
    if "/" in value:
        raise ValueError("a slash separates experiment and arm")
    return value


ExperimentName = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_checked)]
_Time = Annotated[str | int | None, Field(description="ISO 8601, or seconds or milliseconds since 1970.")]


class _Body(BaseModel):
    """A misspelt field is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ExperimentIn(_Body):
    """An experiment. The first arm is the control; shares are shares of all units, the rest is in no arm."""

    name: ExperimentName
    arms: list[Arm] = Field(min_length=2, max_length=MOST_ARMS)
    metrics: list[Metric] = Field(
        default=[Metric(name="conversion", kind=Kind.CONVERSION), Metric(name="clicks", kind=Kind.CLICKS)],
        min_length=1,
        max_length=MOST_METRICS,
    )
    unit: Unit = Unit.USER
    layer: ExperimentName = Field(default="shop", description="Experiments of one layer never share a unit.")
    scenarios: list[Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]] = Field(
        default=[], max_length=64, description="Where it applies; `search` is one; empty: everywhere."
    )
    planned_units: PositiveInt = Field(
        default=10_000, le=1_000_000_000, description="Where the interval that always holds is narrowest."
    )
    start: _Time = None
    end: _Time = None
    run: bool = Field(default=False, description="Start it. Later it is stopped with /v1/experiments/stop only.")


class ExperimentNamed(_Body):
    """Which one."""

    name: ExperimentName


class ExperimentSet(BaseModel):
    """It is on disk."""

    name: str
    state: State


class ExperimentRemoved(BaseModel):
    """It is gone, and so is all that came of it."""

    name: str


class ExperimentsOut(BaseModel):
    """All experiments with their figures; see docs/experiments.md."""

    experiments: list[dict[str, Any]]


_EXAMPLE = {
    "name": "diverse-home",
    "scenarios": ["home"],
    "arms": [
        {"name": "control", "share": 0.5},
        {"name": "votes", "share": 0.5, "what": {"fusion": "votes"}},
    ],
    "metrics": [
        {"name": "conversion", "kind": "conversion", "days": 7},
        {"name": "revenue", "kind": "revenue", "days": 7, "cap": 200},
    ],
    "run": True,
}


def routes(shop: Shop) -> APIRouter:
    """Routes of experiments."""
    router, experiments = lean_router(), shop.experiments
    if experiments is None:
        return router

    @router.get("/v1/experiments", **spec(ExperimentsOut, permission=Permission.ADMIN))
    async def everything() -> Response:
        """All experiments, and what came of them as of now."""
        return json_response({"experiments": await asyncio.to_thread(experiments.reports)})

    @router.post("/v1/experiments", **spec(ExperimentSet, permission=Permission.ADMIN, example=_EXAMPLE))
    async def put(body: ExperimentIn) -> Response:
        """Set an experiment by name. While it runs its end may change, and its shares may grow by one factor."""
        design = Design(
            arms=tuple(body.arms),
            metrics=tuple(body.metrics),
            unit=body.unit,
            layer=body.layer,
            scenarios=tuple(body.scenarios),
            planned_units=body.planned_units,
            start_ms=None if body.start is None else parse_time(body.start),
            end_ms=None if body.end is None else parse_time(body.end),
        )
        experiment = await asyncio.to_thread(experiments.put, body.name, design, run=body.run)
        experiments.look_again()
        return json_response({"name": experiment.name, "state": experiment.state})

    @router.post(
        "/v1/experiments/stop",
        **spec(ExperimentSet, permission=Permission.ADMIN, problems=(404,), example={"name": "diverse-home"}),
    )
    async def stop(body: ExperimentNamed) -> Response:
        """Give nobody an arm any more. What those exposed do still counts until the last window closes."""
        try:
            experiment = await asyncio.to_thread(experiments.stop, body.name)
        except UnknownExperimentError as error:
            return problem(HTTPStatus.NOT_FOUND, error.line())
        experiments.look_again()
        return json_response({"name": experiment.name, "state": experiment.state})

    @router.post(
        "/v1/experiments/remove",
        **spec(ExperimentRemoved, permission=Permission.ADMIN, problems=(404,), example={"name": "diverse-home"}),
    )
    async def remove(body: ExperimentNamed) -> Response:
        """Forget an experiment and all that came of it."""
        try:
            await asyncio.to_thread(experiments.remove, body.name)
        except UnknownExperimentError as error:
            return problem(HTTPStatus.NOT_FOUND, error.line())
        experiments.look_again()
        return json_response({"name": body.name})

    return router
