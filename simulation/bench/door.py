"""What the door costs: CPU time of a request through it, against bare ASGI and against FastAPI's own way.

`python -m simulation.bench.door`. All three take the same body and give the same answer, in one process and without
sockets; their turns alternate, so that a busy machine is as unkind to one as to the other.
"""

import asyncio
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Response
from pydantic import BaseModel
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.api.access_log import AccessLog, Detail
from edge.api.admission import Budget
from edge.api.door import Door
from edge.api.keys import ApiKey, ApiKeys, Permission, digest, new_secret
from edge.api.lean import LeanRoute, json_response, lean_router, spec
from edge.serving.metrics import Metrics

_ROUNDS = 30
_REQUESTS = 1_000
_BODY = orjson.dumps({"user": "ada", "limit": 10, "exclude": ["i1", "i2"]})
_ANSWER = {"rec_id": "x" * 40, "items": [{"item": f"i{n}", "score": n / 7, "title": f"Item {n}"} for n in range(10)]}


class Ask(BaseModel):
    """A body like that of a recommendation."""

    user: str
    limit: int = 10
    exclude: list[str] = []


async def bare(_: Scope, receive: Receive, send: Send) -> None:
    """The least that answers: parse, dump, send."""
    orjson.loads((await receive())["body"])
    body = orjson.dumps(_ANSWER)
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def behind_the_door(keys: ApiKeys, detail: Detail) -> ASGIApp:
    """The same behind the door: key, scope, size, lane, figures, log."""
    router = lean_router()

    @router.post("/v1/ask", **spec(dict[str, object], permission=Permission.QUERY))
    async def ask(_: Ask) -> Response:
        return json_response(_ANSWER)

    app = FastAPI()
    app.add_middleware(
        Door,
        keys=keys,
        metrics=Metrics(),
        routes=[route for route in router.routes if isinstance(route, LeanRoute)],
        budgets={"query": Budget(most=256, wait_seconds=0.5)},
        log=AccessLog(detail),
    )
    return app


def by_fastapi() -> ASGIApp:
    """The same as FastAPI does it by itself, without any of the door's work."""
    app, router = FastAPI(), APIRouter()

    @router.post("/v1/ask")
    async def ask(_: Ask) -> JSONResponse:
        return JSONResponse(_ANSWER)

    app.include_router(router)
    return app


def measure() -> dict[str, float]:
    """Microseconds of CPU a request, the median of 30 rounds of 1,000 requests each."""
    secret = new_secret()
    keys = ApiKeys([ApiKey(digest=digest(secret), label="bench", scopes=frozenset(Permission), rate=1e9, burst=10**9)])
    apps: dict[str, ASGIApp] = {
        "bare": bare,
        "door": behind_the_door(keys, "failures"),
        "door_with_access_log": behind_the_door(keys, "all"),
        "fastapi": by_fastapi(),
    }
    taken: dict[str, list[float]] = {name: [] for name in apps}
    with asyncio.Runner() as runner:
        for _ in range(_ROUNDS):
            for name, app in apps.items():
                taken[name].append(runner.run(_spend(app, secret)))
    found = {name: round(median(times) / _REQUESTS * 1e6, 2) for name, times in taken.items()}
    return {**found, "door_above_bare": round(found["door"] - found["bare"], 2)}


async def _spend(app: ASGIApp, secret: str) -> float:
    message: Message = {"type": "http.request", "body": _BODY, "more_body": False}

    async def receive() -> Message:
        return message

    async def send(_: Message) -> None:
        pass

    began = time.process_time()
    for _ in range(_REQUESTS):
        await app(_scope(secret), receive, send)
    return time.process_time() - began


def _scope(secret: str) -> dict[str, Any]:
    headers = {
        "host": "127.0.0.1:8080",
        "accept": "*/*",
        "accept-encoding": "gzip, deflate",
        "connection": "keep-alive",
        "user-agent": "bench",
        "authorization": f"Bearer {secret}",
        "content-length": str(len(_BODY)),
        "content-type": "application/json",
    }
    return {
        "type": "http",
        "method": "POST",
        "path": "/v1/ask",
        "raw_path": b"/v1/ask",
        "root_path": "",
        "query_string": b"",
        "http_version": "1.1",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "state": {},
    }


def main(show: Callable[[str], object] = print) -> None:
    show(json.dumps(measure()))


if __name__ == "__main__":
    main()
