"""The HTTP routes of an edge. They check and translate; `edge.serving.service` decides.

Endpoints are coroutines and answer with bytes of their own making: a thread pool, or validating an answer that we have
just built, would cost more than the recommendation itself.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException as StarletteHTTPException

from edge.api.door import ApiKeys, Door, problem
from edge.api.models import (
    EventBody,
    EventIn,
    EventsIn,
    EventsOut,
    ProblemOut,
    RecommendationsIn,
    RecommendationsOut,
    SimilarIn,
)
from edge.records.events import Event, check_event, parse_time
from edge.serving.service import Answer, Query, Service, UnknownItemError
from protocol.errors import BadInputError, FederationError, NoSpaceError

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemOut, "content": {"application/problem+json": {}}} for status in (401, 413, 422)
}


def build_app(service: Service, *, api_keys: ApiKeys | None) -> FastAPI:
    """Build the HTTP service around a service; nothing global.

    Args:
        api_keys: None: everybody is let in, for machines that nobody else can reach.
    """

    @asynccontextmanager
    async def watching(_: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(service.watch())
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    app = FastAPI(title="Hanse edge", version="1", docs_url=None, redoc_url=None, lifespan=watching)
    app.add_middleware(Door, keys=api_keys, metrics=service.metrics)
    _add_problems(app)
    _add_questions(app, service)
    _add_events(app, service)
    _add_health(app, service)
    return app


def _add_questions(app: FastAPI, service: Service) -> None:
    @app.post("/v1/recommendations", responses={200: {"model": RecommendationsOut}, **_PROBLEMS})
    async def recommend(body: RecommendationsIn) -> Response:
        """Items for a user or for a history, best first."""
        query = Query(
            user=body.user,
            history=body.history,
            limit=body.limit,
            categories=body.filter.category,
            exclude=body.exclude,
        )
        return _answered(service.recommend(query))

    @app.post("/v1/similar", responses={200: {"model": RecommendationsOut}, 404: {"model": ProblemOut}, **_PROBLEMS})
    async def similar(body: SimilarIn) -> Response:
        """Items like one item."""
        try:
            found = service.similar(body.item, limit=body.limit, categories=body.filter.category, exclude=body.exclude)
        except UnknownItemError as error:
            return problem(HTTPStatus.NOT_FOUND, error.line())
        return _answered(found)


def _add_events(app: FastAPI, service: Service) -> None:
    @app.post("/v1/events", responses={200: {"model": EventsOut}, 507: {"model": ProblemOut}, **_PROBLEMS})
    async def add(body: EventBody) -> Response:
        """One event, or several as `{"events": [...]}`, which are written together or not at all."""
        several = isinstance(body, EventsIn)
        given: list[EventIn] = body.events if isinstance(body, EventsIn) else [body]
        now_ms, events = service.now_ms(), []
        for number, event in enumerate(given):
            try:
                events.append(_event(event, now_ms=now_ms, spare_id=service.new_event_id))
            except BadInputError as error:
                place = f"events[{number}]: " if several else ""
                return problem(HTTPStatus.UNPROCESSABLE_ENTITY, place + error.line())
        outcome = await service.add_events(events)
        return _json({"added": outcome.added, "duplicates": outcome.duplicates})


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    async def alive() -> Response:
        """The process answers."""
        return _json({"status": "ok"})

    @app.get("/readyz", responses={503: {"model": ProblemOut}})
    async def ready() -> Response:
        """The store can be read and something can be answered."""
        try:
            service.store.items_mark()
        except FederationError as error:
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, error.line())
        release = service.loaded.release
        named = {"version": release.version, "sha256": release.sha256} if release else None
        return _json({"ready": True, "release": named})

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus text."""
        return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)


def _add_problems(app: FastAPI) -> None:
    """Every error is a problem of RFC 9457."""

    @app.exception_handler(StarletteHTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return problem(HTTPStatus(error.status_code), str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in {"body", "one", "several"})
        more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
        detail = f"{place}: {first['msg']}{more}" if place else f"{first['msg']}{more}"
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)

    @app.exception_handler(FederationError)
    async def failed(_: Request, error: FederationError) -> Response:
        if isinstance(error, UnknownItemError):
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, error.line())
        full = isinstance(error, NoSpaceError)
        return problem(HTTPStatus.INSUFFICIENT_STORAGE if full else HTTPStatus.SERVICE_UNAVAILABLE, error.line())


def _event(given: EventIn, *, now_ms: int, spare_id: Any) -> Event:
    return check_event(
        Event(
            event_id=given.event_id or spare_id(),
            type=given.type,
            user=given.user,
            item=given.item,
            time_ms=now_ms if given.time is None else parse_time(given.time),
            quantity=given.quantity,
            session=given.session,
            rec_id=given.rec_id,
            query=given.query,
        ),
        now_ms=now_ms,
    )


def _answered(answer: Answer) -> Response:
    return _json(
        {
            "rec_id": answer.rec_id,
            "release": answer.release,
            "rung": answer.rung,
            "degraded": bool(answer.reasons),
            "reasons": answer.reasons,
            "items": answer.items,
        }
    )


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
