"""The HTTP service of an edge, put together from its routes. `edge.serving` decides; routes check and translate.

Endpoints are coroutines and answer with bytes of their own making: a thread pool, or validating an answer that we have
just built, would cost more than the recommendation itself.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from edge.api import (
    events,
    experiments,
    front,
    health,
    items,
    neighbours,
    people,
    promotions,
    recommendations,
    reference,
    scenarios,
    search,
)
from edge.api.access_log import AccessLog
from edge.api.admission import Budget
from edge.api.door import Door
from edge.api.keys import ApiKeys
from edge.api.lean import LeanRoute
from edge.api.openapi import DESCRIPTION, TITLE, VERSION, describe, operation_id
from edge.api.problems import add_problems
from edge.settings import ServingSettings
from edge.shop import Shop

_LOOK_SECONDS = 0.5


class App(FastAPI):
    """Requests go to the door, and only what the door knows no route for goes on to FastAPI."""

    door: Door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.door(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def build_app(shop: Shop, *, api_keys: ApiKeys | None, settings: ServingSettings | None = None) -> FastAPI:
    """Build the HTTP service around the parts of a shop; nothing global.

    Args:
        api_keys: None: everybody is let in, for machines that nobody else can reach.
        settings: how much is borne at once, and what is logged; the defaults if None.
    """
    settings = settings or ServingSettings()
    log = AccessLog(settings.access_log)

    @asynccontextmanager
    async def watching(_: FastAPI) -> AsyncIterator[None]:
        watches = [asyncio.create_task(shop.service.watch()), asyncio.create_task(log.keep_writing())]
        if api_keys is not None:
            watches.append(asyncio.create_task(_follow(api_keys)))
        if shop.experiments is not None:
            watches.append(asyncio.create_task(shop.experiments.watch()))
        try:
            yield
        finally:
            for watch in watches:
                watch.cancel()
            for watch in watches:
                with suppress(asyncio.CancelledError):
                    await watch
            log.write()

    app = App(
        title=TITLE,
        version=VERSION,
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=watching,
        generate_unique_id_function=operation_id,
    )
    asking = (recommendations, neighbours, search)
    telling = (events, items, people)
    subjects = (front, *asking, *telling, scenarios, promotions, experiments, health)
    routers = {subject.__name__.rpartition(".")[2]: subject.routes(shop) for subject in subjects}
    lean: list[LeanRoute] = []
    routers["reference"] = reference.routes(lambda: describe(app, lean))
    for subject, router in routers.items():
        app.include_router(router, tags=[subject])
    lean += [route for router in routers.values() for route in router.routes if isinstance(route, LeanRoute)]
    app.door = Door(
        super(App, app).__call__,
        keys=api_keys,
        metrics=shop.service.metrics,
        routes=lean,
        budgets=_budgets(settings),
        log=log,
    )
    add_problems(app)
    return app


def _budgets(settings: ServingSettings) -> dict[str, Budget]:
    queries = Budget(most=settings.max_queries, wait_seconds=settings.query_wait_seconds)
    return {
        "query": queries,
        "ingest": Budget(most=settings.max_ingests, wait_seconds=settings.ingest_wait_seconds),
        "admin": queries,
        "stream": Budget(most=settings.max_streams, wait_seconds=settings.ingest_wait_seconds),
    }


async def _follow(keys: ApiKeys) -> None:
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        keys.look_again()
