"""What stands before every route: the API key, the size of the body, the stop-watch. Plain ASGI, a few µs a request."""

import hmac
from collections.abc import Iterable, Mapping
from hashlib import sha256
from http import HTTPStatus
from time import perf_counter
from typing import Final

from fastapi import HTTPException, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.api.lean import LeanRoute
from edge.api.problems import problem
from edge.serving.metrics import Metrics
from protocol.errors import BadInputError

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
_DIGEST_CHARACTERS = 64
_LONGEST_KEY = 512
_MOST_BYTES: Final = {"/v1/events": 16 << 20}
_MOST_BYTES_ELSEWHERE = 1 << 20


class ApiKeys:
    """The keys that open the door, known only by their SHA-256."""

    def __init__(self, hashes: Iterable[str]) -> None:
        """Take the hashes in hexadecimal.

        Raises:
            BadInputError: one of them is none.
        """
        self._hashes = [text.lower().encode() for text in hashes]
        for known in self._hashes:
            if len(known) != _DIGEST_CHARACTERS or not set(known) <= set(b"0123456789abcdef"):
                raise BadInputError("the hash of an API key has 64 hex digits", advice="make one with hanse-edge key")

    def accept(self, key: bytes) -> bool:
        """Compared with every known key, each in constant time."""
        offered = sha256(key).hexdigest().encode()
        return len(key) <= _LONGEST_KEY and sum([hmac.compare_digest(offered, known) for known in self._hashes]) > 0


class Door:
    """Lets in who has a key and a body of a bearable size, and notes how each request ended."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: ApiKeys | None,
        metrics: Metrics,
        routes: Mapping[tuple[str, str], LeanRoute],
    ) -> None:
        """Stand before the app.

        Args:
            routes: by path and method, what is gone to straight, without walking the app's list of routes.
        """
        self._app = app
        self._routes = routes
        self._keys = keys
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = perf_counter(), HTTPStatus.INTERNAL_SERVER_ERROR.value

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            headers = dict(reversed(scope["headers"]))
            refusal = self._refusal(scope["path"], headers)
            if refusal is not None:
                await refusal(scope, receive, noting)
            else:
                route = self._routes.get((scope["path"], scope["method"]))
                app = route.app if route is not None else self._app
                await app(scope, _bounded(receive, _limit(scope["path"])), noting)
        finally:
            self._metrics.note_request(scope["path"], scope["method"], status, perf_counter() - began)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> Response | None:
        if self._keys is not None and path not in OPEN_PATHS and not self._keys.accept(_key(headers)):
            detail = "the API key is missing or wrong; send it as Authorization: Bearer KEY or X-API-Key: KEY"
            return problem(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > _limit(path):
            return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(_limit(path)))
        return None


def _key(headers: dict[bytes, bytes]) -> bytes:
    bearer = headers.get(b"authorization", b"")
    return bearer[7:].strip() if bearer[:7].lower() == b"bearer " else headers.get(b"x-api-key", b"")


def _limit(path: str) -> int:
    return _MOST_BYTES.get(path, _MOST_BYTES_ELSEWHERE)


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit} bytes"


def _bounded(receive: Receive, limit: int) -> Receive:
    """The same body, but no more of it than the limit: Content-Length may be missing."""
    taken = 0

    async def receive_some() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(limit))
        return message

    return receive_some
