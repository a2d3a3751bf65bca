"""Every error is a problem of RFC 9457: one clear line saying what is wrong and what to do."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from edge.records.items import UnknownItemError
from protocol.errors import BadInputError, FederationError, NoSpaceError

MEDIA_TYPE = "application/problem+json"
_LONGEST_DETAIL = 1_000
_NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")  # a field's name may be anything that a caller makes up
_BRIEF = {"include_url": False, "include_context": False, "include_input": False}
_BRANCHES = frozenset({"body", "one", "several", "str", "int", "constrained-str", "constrained-int"})
_STATUS = {  # the first that fits
    UnknownItemError: HTTPStatus.NOT_FOUND,
    BadInputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    NoSpaceError: HTTPStatus.INSUFFICIENT_STORAGE,
    FederationError: HTTPStatus.SERVICE_UNAVAILABLE,
}


class ProblemOut(BaseModel):
    """RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


def problem(status: HTTPStatus, detail: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """An error in the form of RFC 9457, one clear line in it."""
    return Response(body_of(status, detail), status.value, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def body_of(status: HTTPStatus, detail: str) -> bytes:
    """What stands in it."""
    line = _NOT_PRINTED.sub(" ", detail[:_LONGEST_DETAIL]).encode("utf-8", "replace").decode("utf-8")
    return orjson.dumps({"type": "about:blank", "title": status.phrase, "status": status.value, "detail": line})


def problem_of(error: Exception) -> Response | None:
    """The problem that an error of ours, or of the body's checks, is to its caller; None: it is a fault of ours."""
    if isinstance(error, ValidationError | RequestValidationError):
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, reason_of(error))
    if isinstance(error, StarletteHTTPException):
        return problem(HTTPStatus(error.status_code), str(error.detail), headers=dict(error.headers or {}))
    if isinstance(error, FederationError):
        return problem(next(status for kind, status in _STATUS.items() if isinstance(error, kind)), error.line())
    return None


def add_problems(app: FastAPI) -> None:
    """For what happens outside our own routes: unknown paths and methods."""

    async def refused(_: Request, error: Exception) -> Response:
        return problem_of(error) or problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the edge failed; its log says how")

    for kind in (StarletteHTTPException, HTTPException, RequestValidationError, FederationError):
        app.add_exception_handler(kind, refused)


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: these statuses come as problems. What stands in them all is written once, by `responses`."""
    return {status: {"description": HTTPStatus(status).phrase} for status in statuses}


def responses(*statuses: int) -> dict[str, Any]:
    """What OpenAPI's components say of each of these statuses."""
    return {f"Problem{status}": _response(HTTPStatus(status)) for status in sorted(statuses)}


def _response(status: HTTPStatus) -> dict[str, Any]:
    example = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": "what is wrong, in a line",
    }
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}, "example": example}}
    said: dict[str, Any] = {"description": status.phrase, "content": content}
    if status is HTTPStatus.TOO_MANY_REQUESTS:
        after = {"description": "Seconds after which to come again.", "schema": {"type": "integer"}, "required": True}
        said["headers"] = {"Retry-After": after}
    return said


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location if part not in _BRANCHES)


def reason_of(error: ValidationError | RequestValidationError) -> str:
    """The first thing that is wrong with a body, in a line."""
    errors = error.errors() if isinstance(error, RequestValidationError) else error.errors(**_BRIEF)
    first = errors[0]
    places = dict.fromkeys(_place(one["loc"]) for one in errors)  # a text or a number: one fault, two complaints
    place = next(iter(places))
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    what = "contains a control character" if first["type"] == "string_pattern_mismatch" else first["msg"]
    return f"{place}: {what}{more}" if place else f"{what}{more}"
