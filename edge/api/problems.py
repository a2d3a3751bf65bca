"""Every error is a problem of RFC 9457: one clear line saying what is wrong and what to do."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from edge.serving.service import UnknownItemError
from protocol.errors import BadInputError, FederationError, NoSpaceError

MEDIA_TYPE = "application/problem+json"
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
    body: dict[str, Any] = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    return Response(orjson.dumps(body), status.value, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def problem_of(error: Exception) -> Response | None:
    """The problem that an error of ours, or of the body's checks, is to its caller; None: it is a fault of ours."""
    if isinstance(error, ValidationError | RequestValidationError):
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, _first(error))
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
    """For OpenAPI: these statuses come as problems."""
    return {status: {"model": ProblemOut, "content": {MEDIA_TYPE: {}}} for status in statuses}


def _first(error: ValidationError | RequestValidationError) -> str:
    errors = error.errors()
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part not in {"body", "one", "several"})
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place}: {first['msg']}{more}" if place else f"{first['msg']}{more}"
