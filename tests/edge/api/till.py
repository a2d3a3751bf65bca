"""A shop's till, as the tests of the routes use it."""

import asyncio

import httpx
import orjson

from edge.api.app import build_app
from edge.shop import Shop


class Till:
    """A synchronous client of the app itself; a handler that raises answers 500, as a server would."""

    def __init__(self, service, app=None):
        self.service, self.store = service, service.store
        app = app or build_app(Shop(service=service), api_keys=None)
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    def send(self, path, body=None, *, method="POST", content=None, kind="application/json"):
        raw = orjson.dumps(body) if content is None else content

        async def ask():
            async with httpx.AsyncClient(transport=self._transport, base_url="http://edge") as client:
                return await client.request(method, path, content=raw, headers={"content-type": kind})

        return asyncio.run(ask())

    def stream(self, *pieces):
        async def given():
            for piece in pieces:
                yield piece

        return self.send("/v1/events/stream", content=given(), kind="application/x-ndjson")
