"""A FastAPI route without what FastAPI does around it: its OpenAPI is the same, and a request costs a third.

An endpoint takes one body, or the request as it comes, or nothing, and gives a `Response` of its own making. The body
is checked by pydantic straight from its bytes. FastAPI's dependency machinery takes some 60 µs a request, and walking
its list of routes another 20; a recommendation takes 600 (docs/decisions/0015).
"""

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from inspect import signature
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.types import ASGIApp, Receive, Scope, Send

from edge.api.problems import described, problem_of


class Permission(StrEnum):
    """What an API key may be for."""

    QUERY = "query"
    INGEST = "ingest"
    ADMIN = "admin"


class LeanRoute(APIRoute):
    """One path and method, answered without dependencies."""

    def __init__(self, path: str, endpoint: Callable[..., Awaitable[Response]], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.permission = permission_of(self.openapi_extra or {})
        self.app = _lean(endpoint)


def lean_router() -> APIRouter:
    """A router whose routes are lean."""
    return APIRouter(route_class=LeanRoute)


def spec(
    gives: Any, *, permission: Permission | None, problems: tuple[int, ...] = (), example: Any = None
) -> dict[str, Any]:
    """What a route's decorator is told.

    Args:
        gives: the model of the answer, for OpenAPI; the answer itself is not checked again.
        permission: what the API key must be for; None: anybody may ask.
        problems: statuses other than 401, 403, 413, 422, 429 and 503 that come as problems.
        example: a body that is answered.
    """
    usual = () if permission is None else (401, 403, 413, 422, 429, 503)
    extra: dict[str, Any] = {}
    if permission is not None:
        extra["security"] = [{"key": [permission.value]}]
    if example is not None:
        extra["requestBody"] = {"content": {"application/json": {"example": example}}}
    return {"responses": {200: {"model": gives}, **described(*usual, *problems)}, "openapi_extra": extra}


def permission_of(extra: Mapping[str, Any]) -> Permission | None:
    """What `spec` was told."""
    for known in extra.get("security", ()):
        return Permission(known["key"][0])
    return None


def json_response(value: Any, *, status: int = 200) -> Response:
    """Any value orjson knows: dataclasses, numpy arrays and enums among them."""
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status, media_type="application/json")


def _lean(endpoint: Callable[..., Awaitable[Response]]) -> ASGIApp:
    kinds = [parameter.annotation for parameter in signature(endpoint, eval_str=True).parameters.values()]
    if len(kinds) > 1:
        raise TypeError(f"{endpoint} takes more than one body")
    check = TypeAdapter(kinds[0]).validate_json if kinds and kinds[0] is not Request else None

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if check is not None:
                response = await endpoint(check(await _body(receive)))
            else:
                response = await (endpoint(Request(scope, receive)) if kinds else endpoint())
        except Exception as error:
            known = problem_of(error)
            if known is None:
                raise
            response = known
        await response(scope, receive, send)

    return answer


async def _body(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    return body
