"""A FastAPI route without what FastAPI does around it: its OpenAPI is the same, and a request costs a third.

An endpoint takes one body, or the request as it comes, or nothing, and gives a `Response` of its own making. The body
is checked by pydantic straight from its bytes. The door goes straight to the route and asks it what it needs: which
permission, how large a body, whose turn it is (docs/decisions/0015).
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from inspect import signature
from typing import Any, Final

import orjson
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.types import Message, Receive, Scope, Send

from edge.api.keys import Permission as Permission  # noqa: PLC0414 - routes say what they need in one import
from edge.api.problems import described, problem_of

LARGEST_BODY: Final = 1 << 20
"""Bytes of a body that a route takes when it says nothing else."""
TRAITS: Final = "x-hanse"
_SEND_JSON = "send the body as Content-Type: application/json"


class LeanRoute(APIRoute):
    """One path and method, answered without dependencies.

    Attributes:
        permission: what the API key must be for; None: anybody may ask.
        largest_body: bytes; None: a stream that is taken in piece by piece, as long as it may be.
        sheds: may be refused when there is too much to do.
    """

    def __init__(self, path: str, endpoint: Callable[..., Awaitable[Response]], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        extra = self.openapi_extra or {}
        traits = extra.get(TRAITS, {})
        self.permission = permission_of(extra)
        self.largest_body: int | None = traits.get("largest_body", LARGEST_BODY)
        self.sheds: bool = traits.get("sheds", True)
        self._endpoint = endpoint
        kinds = [parameter.annotation for parameter in signature(endpoint, eval_str=True).parameters.values()]
        if len(kinds) > 1:
            raise TypeError(f"{endpoint} takes more than one body")
        self._takes_request = kinds == [Request]
        self._check = _check_of(kinds[0]) if kinds and not self._takes_request else None
        self.app = self._as_app

    async def read(self, scope: Scope, receive: Receive, headers: Mapping[bytes, bytes]) -> Any:
        """What the endpoint takes of the request: the bytes of the body, the request as it comes, or nothing.

        Raises:
            HTTPException: the body is too large, is cut off, or says that it is no JSON.
        """
        if self._check is not None:
            kind = headers.get(b"content-type", b"")
            if kind != b"application/json" and not _is_json(kind):
                raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, _SEND_JSON)
            return await _body(receive, self.largest_body)
        if self._takes_request:
            return Request(scope, receive if self.largest_body is None else _bounded(receive, self.largest_body))
        return None

    async def answer(self, taken: Any) -> Response:
        """Ask the endpoint.

        Raises:
            Exception: a fault of ours; what is the caller's is answered with a problem.
        """
        try:
            if self._check is not None:
                return await self._endpoint(self._check(taken))
            return await (self._endpoint(taken) if self._takes_request else self._endpoint())
        except Exception as error:
            known = problem_of(error)
            if known is None:
                raise
            return known

    async def _as_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """For whoever comes by the app's list of routes and not through the door."""
        response = await self.answer(await self.read(scope, receive, dict(scope["headers"])))
        await response(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Straight:
    """In the annotation of a body: reads it from its bytes, where pydantic's own way takes too long."""

    read: Callable[[bytes], Any]


def _check_of(kind: Any) -> Callable[[bytes], Any]:
    """Strictly: `true` is no number and `"3"` is none, as the schema says."""
    straight = [mark.read for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, Straight)]
    return straight[0] if straight else partial(TypeAdapter(kind).validate_json, strict=True)


def lean_router() -> APIRouter:
    """A router whose routes are lean."""
    return APIRouter(route_class=LeanRoute)


def spec(
    gives: Any,
    *,
    permission: Permission | None,
    problems: tuple[int, ...] = (),
    example: Any = None,
    answer: Any = None,
    largest_body: int | None = LARGEST_BODY,
    sheds: bool = True,
    media: str = "text/plain",
) -> dict[str, Any]:
    """What a route's decorator is told.

    Args:
        gives: the model of the answer, for OpenAPI; the answer itself is not checked again. `str`: plain text.
        permission: what the API key must be for; None: anybody may ask.
        problems: statuses other than 400, 401, 403, 408, 413, 415, 422, 429 and 503 that come as problems.
        example: a body that is answered.
        answer: what it may be answered with.
        largest_body: bytes that the body may have; None: the endpoint takes a stream as it comes, without a limit.
        sheds: False for what must be answered however much there is to do.
        media: type of an answer that is a `str`.
    """
    usual = () if permission is None else (400, 401, 403, 408, 413, 415, 422, 429, 503)
    extra: dict[str, Any] = {TRAITS: {"largest_body": largest_body, "sheds": sheds}}
    if permission is not None:
        extra["security"] = [{"key": [permission.value]}]
    if example is not None:
        extra["requestBody"] = {"content": {"application/json": {"example": example}}}
    good: dict[str, Any] = {"model": gives} if gives is not str else {}
    if answer is not None:
        good["content"] = {media if gives is str else "application/json": {"example": answer}}
    options: dict[str, Any] = {"responses": {200: good, **described(*usual, *problems)}, "openapi_extra": extra}
    return {**options, "response_class": _text(media)} if gives is str else options


def _text(media: str) -> type[Response]:
    return type("Text", (PlainTextResponse,), {"media_type": media})


def permission_of(extra: Mapping[str, Any]) -> Permission | None:
    """What `spec` was told."""
    for known in extra.get("security", ()):
        return Permission(known["key"][0])
    return None


class LeanResponse(Response):
    """Bytes with their length and type: Starlette's own makes its headers in five times as long."""

    def __init__(self, body: bytes, status: int, kind: bytes) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", kind)]


def json_response(value: Any, *, status: int = 200) -> Response:
    """Any value orjson knows: dataclasses, numpy arrays and enums among them."""
    return LeanResponse(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status, b"application/json")


def _is_json(kind: bytes) -> bool:
    essence = kind.split(b";", 1)[0].strip().lower()
    return essence == b"application/json" or (essence.startswith(b"application/") and essence.endswith(b"+json"))


async def _body(receive: Receive, limit: int | None) -> bytes:
    message = await _next(receive)
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        pieces, size = [body], len(body)
        while message.get("more_body") and (limit is None or size <= limit):
            message = await _next(receive)
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
        body = b"".join(pieces)
    if limit is not None and len(body) > limit:
        raise too_large(limit)
    return body


async def _next(receive: Receive) -> Message:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the body was cut off")
    return message


def too_large(limit: int) -> HTTPException:
    """The refusal of a body; whoever sends it is told to stop."""
    detail = f"the body is larger than {limit} bytes"
    return HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, headers={"Connection": "close"})


def _bounded(receive: Receive, limit: int) -> Receive:
    """The same body, but no more of it than the limit: Content-Length may be missing."""
    taken = 0

    async def receive_some() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise too_large(limit)
        return message

    return receive_some
