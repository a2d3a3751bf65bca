"""The HTTP service of an edge, put together from its routes. `edge.serving` decides; routes check and translate.

Endpoints are coroutines and answer with bytes of their own making: a thread pool, or validating an answer that we have
just built, would cost more than the recommendation itself.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

from edge.api import events, health, recommendations
from edge.api.door import ApiKeys, Door
from edge.api.lean import LeanRoute
from edge.api.problems import add_problems
from edge.shop import Shop


def build_app(shop: Shop, *, api_keys: ApiKeys | None) -> FastAPI:
    """Build the HTTP service around the parts of a shop; nothing global.

    Args:
        api_keys: None: everybody is let in, for machines that nobody else can reach.
    """

    @asynccontextmanager
    async def watching(_: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(shop.service.watch())
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    app = FastAPI(title="Hanse edge", version="1", docs_url=None, redoc_url=None, lifespan=watching)
    for subject in (recommendations, events, health):
        app.include_router(subject.routes(shop))
    lean = [route for route in app.routes if isinstance(route, LeanRoute)]
    straight = {(route.path, method): route for route in lean for method in route.methods or ()}
    app.add_middleware(Door, keys=api_keys, metrics=shop.service.metrics, routes=straight)
    add_problems(app)
    return app
