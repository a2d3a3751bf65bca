"""What stands before every route: the API key and what it is for, the body's size, whose turn it is, the stop-watch.

Plain ASGI, some 15 µs a request (docs/decisions/0015). Routes of ours are gone to straight, without the app's list.
"""

import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from math import ceil, inf
from time import perf_counter
from traceback import extract_tb
from typing import Any, Final

import structlog
from fastapi import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.api.access_log import AccessLog, Passed
from edge.api.admission import Budget, Lane
from edge.api.keys import ApiKeys, Held, Permission
from edge.api.lean import LARGEST_BODY, LeanRoute, too_large
from edge.api.problems import problem, problem_of
from edge.serving.metrics import Metrics, RouteFigures

ARRIVED: Final = "hanse.arrived"
"""In the scope: `perf_counter()` when the head of the request was complete, where the server says so."""
_NO_KEY = "the API key is missing, wrong or revoked; send it as Authorization: Bearer KEY or X-API-Key: KEY"
_UNKNOWN = "other"
_SMALL = 64 << 10
_DIGITS = 16
_FAILED = HTTPStatus.INTERNAL_SERVER_ERROR
_log = structlog.get_logger(__name__)


class Passage:
    """The way to one route: all that the door must know of it, looked up once.

    Attributes:
        route: None for what is no route of ours; the app says what is to be said.
        template: of its path, for figures and logs.
        lane: None: it is never sent away.
        open: anybody may ask, without a key.
    """

    __slots__ = ("figures", "lane", "largest_body", "method", "open", "permission", "route", "streams", "template")

    def __init__(
        self, route: LeanRoute | None, template: str, method: str, *, figures: RouteFigures, lane: Lane | None
    ) -> None:
        self.route, self.template, self.method, self.figures, self.lane = route, template, method, figures, lane
        self.permission = route.permission if route is not None else None
        self.largest_body = LARGEST_BODY if route is None else route.largest_body
        self.streams = self.largest_body is None
        self.open = route is not None and self.permission is None


class Door:
    """Lets in who may, when there is room, and notes how each request ended."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: ApiKeys | None,
        metrics: Metrics,
        routes: Iterable[LeanRoute],
        budgets: Mapping[str, Budget],
        log: AccessLog,
    ) -> None:
        """Stand before the app.

        Args:
            keys: None: everybody is let in, and may do everything.
            budgets: by permission, and "stream" for bodies without an end.
        """
        self._app, self._keys, self._metrics, self._log = app, keys, metrics, log
        self._lanes = {name: _lane(name, budget, metrics) for name, budget in budgets.items()}
        self._passages: dict[tuple[str, str], Passage] = {}
        self._templates: list[Passage] = []
        for route in routes:
            self._open_up(route)
        figures = metrics.of_route(_UNKNOWN, _UNKNOWN)
        self._elsewhere = Passage(None, _UNKNOWN, _UNKNOWN, figures=figures, lane=None)

    def _open_up(self, route: LeanRoute) -> None:
        kind = "stream" if route.largest_body is None else route.permission
        lane = self._lanes[kind] if kind is not None and route.sheds else None
        for method in route.methods or ():
            figures = self._metrics.of_route(route.path, method)
            passage = Passage(route, route.path, method, figures=figures, lane=lane)
            if route.param_convertors:
                self._templates.append(passage)
            else:
                self._passages[route.path, method] = passage
            if method == "GET":
                self._passages.setdefault((route.path, "HEAD"), passage)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        passage = self._passages.get((scope["path"], scope["method"])) or self._look_for(scope)
        headers = dict(reversed(scope["headers"]))  # of several with one name the first counts
        status, sent, held = _FAILED.value, 0, None
        try:
            held = self._keys.find(_secret(headers)) if self._keys is not None else None
            response = self._refusal(passage, held, headers, began)
            response = response or await self._ask(passage, scope, receive, headers, began)
            if response is None:
                status = await self._by_the_app(scope, receive, send)
            else:
                status, sent = response.status_code, len(response.body) if hasattr(response, "body") else 0
                await response(scope, receive, send)
        finally:
            seconds = perf_counter() - began
            passage.figures.note(status, seconds)
            if self._log.wants(status):
                label = held.label if held is not None else None
                at = time.time() - seconds
                self._log.note(Passed(at, passage.method, passage.template, status, seconds, label, sent))

    def _look_for(self, scope: Scope) -> Passage:
        """Paths with parameters; other methods of a path we know."""
        for passage in self._templates:
            assert passage.route is not None
            match, child = passage.route.matches(scope)
            if match is Match.FULL and passage.method == scope["method"]:
                scope.update(child)
                return passage
        return self._elsewhere

    def _refusal(self, passage: Passage, held: Held | None, headers: dict[bytes, bytes], now: float) -> Response | None:
        if self._keys is not None and not passage.open:
            if held is None:
                return problem(HTTPStatus.UNAUTHORIZED, _NO_KEY, headers={"WWW-Authenticate": "Bearer"})
            if passage.permission is not None and passage.permission not in held.scopes:
                return problem(HTTPStatus.FORBIDDEN, _out_of_scope(held, passage.permission))
            if held.bucket is not None and (wait := held.bucket.take(now)):
                return _later(wait, f"the API key {held.label} asks more often than it may")
        length = headers.get(b"content-length")
        if length is not None and passage.largest_body is not None and _number(length) > passage.largest_body:
            return problem_of(too_large(passage.largest_body))
        return None

    async def _ask(
        self, passage: Passage, scope: Scope, receive: Receive, headers: dict[bytes, bytes], began: float
    ) -> Response | None:
        """The route's answer, or that there is too much to do; None where there is no route."""
        route, lane = passage.route, passage.lane
        if route is None:
            return self._other_methods(scope)
        try:
            taken = await _read(passage, scope, receive, headers)
            if isinstance(taken, Response):
                return taken
            if lane is None:
                return await route.answer(taken)
            wait = lane.enter(now=began, waited=began - scope.get(ARRIVED, began))
            if wait:
                return _later(wait, "the edge has too much to do")
            entered = perf_counter()
            try:
                return await route.answer(taken)
            finally:
                now = perf_counter()
                lane.leave(entered=now if passage.streams else entered, now=now)
        except Exception as error:  # noqa: BLE001 - a fault of ours is logged, and the client learns no more
            return problem_of(error) or _failed(error, passage)

    def _other_methods(self, scope: Scope) -> Response | None:
        path = scope["path"]
        allowed = {method for known, method in self._passages if known == path}
        allowed |= {
            passage.method
            for passage in self._templates
            if passage.route is not None and passage.route.path_regex.match(path)
        }
        if not allowed:
            return None
        detail = f"this path takes {' and '.join(sorted(allowed))}"
        return problem(HTTPStatus.METHOD_NOT_ALLOWED, detail, headers={"Allow": ", ".join(sorted(allowed))})

    async def _by_the_app(self, scope: Scope, receive: Receive, send: Send) -> int:
        status = _FAILED.value

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._app(scope, receive, noting)
        return status


def _lane(name: str, budget: Budget, metrics: Metrics) -> Lane:
    lane = Lane(budget)
    lane.note_shed = metrics.of_lane(name, inside=lambda: lane.inside)
    return lane


async def _read(passage: Passage, scope: Scope, receive: Receive, headers: dict[bytes, bytes]) -> Any:
    """What the route takes of the request, or a refusal where there is no room for its body."""
    route, lane = passage.route, passage.lane
    assert route is not None
    size = _announced(headers, passage.largest_body)
    if lane is None or size < _SMALL:
        return await route.read(scope, receive, headers)
    wait = lane.receive(size)
    if wait:
        return _later(wait, "the edge is receiving too many large bodies", close=True)
    try:
        return await route.read(scope, receive, headers)
    finally:
        lane.receiving -= size


def _announced(headers: Mapping[bytes, bytes], limit: int | None) -> int:
    """Bytes that a body may come to; a stream is taken in piece by piece."""
    if limit is None:
        return 0
    length = headers.get(b"content-length")
    if length is not None:
        return int(min(_number(length), limit))
    return limit if b"transfer-encoding" in headers else 0


def _number(length: bytes) -> float:
    return int(length) if length.isdigit() and len(length) < _DIGITS else inf


def _secret(headers: Mapping[bytes, bytes]) -> bytes:
    bearer = headers.get(b"authorization", b"")
    return bearer[7:].strip() if bearer[:7].lower() == b"bearer " else headers.get(b"x-api-key", b"")


def _out_of_scope(held: Held, needed: Permission) -> str:
    return f"this needs an API key for {needed}; {held.label} is for {' and '.join(sorted(held.scopes))}"


def _later(wait: float, detail: str, *, close: bool = False) -> Response:
    seconds = max(1, ceil(wait))
    headers = {"Retry-After": str(seconds), **({"Connection": "close"} if close else {})}
    return problem(HTTPStatus.TOO_MANY_REQUESTS, f"{detail}; come again in {seconds} s", headers=headers)


def _failed(error: Exception, passage: Passage) -> Response:
    """A fault of ours. Its message may hold what a caller sent, so the log gets its kind and its place only."""
    place = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(extract_tb(error.__traceback__)[-6:]))
    _log.error("a request failed", route=passage.template, error=type(error).__name__, place=place)
    return problem(_FAILED, "the edge failed; its log says where")
