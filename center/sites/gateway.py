"""The only door of the center that edges can see: Flower's Fleet API, health, and the way in for a new edge.

SuperLink has one port for everything, and whoever reaches it may submit code to run. So it listens on loopback, and in
front of it stands a list of exact paths. Whatever is not on the list does not exist.
"""

import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import httpx
import structlog
import uvicorn
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from protocol.errors import BadInputError, FederationError, MalformedMessageError, UnavailableError, UntrustedError
from protocol.renewal import RENEWAL_PATH

_log = structlog.get_logger()

FLEET_PATHS = tuple(
    f"/v1/fleet/{call}"
    for call in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "pull-object",
        "push-object",
        "confirm-message-received",
    )
)
"""What our nodes call. Registering is the center's own business, and runs and app bundles are nothing an edge needs."""

HEALTH_PATH = "/health"
ENROLL_PATH = "/v1/enroll"

Renew = Callable[[bytes], bytes]
"""Request of an admitted edge for its next certificate -> that. Raises UntrustedError or BadInputError."""

LARGEST_BODY = 6 << 20
"""Bytes; Flower cuts what is larger into pieces of 5 MiB."""

_LARGEST_ENROLLMENT = 64 << 10
_RETRY_AFTER_SECONDS = 2
_CALL_SECONDS = 30.0
_KEEP_ALIVE_SECONDS = 30
_ASKED = frozenset({"accept", "content-length", "content-type", "flwr-public-key", "flwr-signature", "flwr-timestamp"})
_TOLD = frozenset({"content-length", "content-type"})

Enroll = Callable[[str, bytes], bytes]
"""Token and request of a new edge -> what it gets. Raises UntrustedError or BadInputError."""


class _TooLargeError(Exception):
    """The body went on beyond the limit."""


class Front:
    """The ASGI application: everything that a stranger can reach.

    Args:
        superlink_url: ``https://host:port`` of SuperLink.
        ca_certificate: PEM file of the authority that signed SuperLink's certificate.
        enroll: admits a new edge; without it nobody gets in.
        renew: gives an admitted edge its next certificate; without it nobody gets one.
    """

    def __init__(
        self, *, superlink_url: str, ca_certificate: Path, enroll: Enroll | None = None, renew: Renew | None = None
    ) -> None:
        self._enroll = enroll
        self._renew = renew
        self._away = False
        self._superlink = httpx.AsyncClient(
            base_url=superlink_url,
            verify=ssl.create_default_context(cafile=str(ca_certificate)),
            timeout=_CALL_SECONDS,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._superlink.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, request: Request) -> Response:
        # The path as it came over the line: no dot, doubled slash or %2F is resolved on the way to this comparison.
        path = request.scope["raw_path"].decode("ascii", "replace")
        if request.scope["query_string"]:
            return _not_found()
        if (request.method == "POST" and path in FLEET_PATHS) or (request.method == "GET" and path == HEALTH_PATH):
            return await self._forward(request, path)
        if request.method == "POST" and path == ENROLL_PATH:
            return await self._admit(request)
        if request.method == "POST" and path == RENEWAL_PATH and self._renew is not None:
            return await self._answered(request, self._renew)
        return _not_found()

    async def _forward(self, request: Request, path: str) -> Response:
        if _announced(request) > LARGEST_BODY:
            return _too_large()
        if {"content-length", "transfer-encoding"} <= set(request.headers.keys()):
            return PlainTextResponse("two lengths\n", status_code=400)  # two readers would find two different ends
        headers = {name: value for name, value in request.headers.items() if name in _ASKED}
        body = _limited(request, LARGEST_BODY) if request.method == "POST" else None
        call = self._superlink.build_request(request.method, path, headers=headers, content=body)
        call.headers["accept-encoding"] = "identity"
        try:
            answer = await self._superlink.send(call, stream=True)
        except _TooLargeError:
            return _too_large()
        except httpx.HTTPError as error:
            return self._pause(str(error) or type(error).__name__)
        if answer.is_server_error or answer.is_redirect:
            await answer.aclose()
            return self._pause(f"status {answer.status_code}")
        self._away = False
        return StreamingResponse(
            answer.aiter_raw(),
            status_code=answer.status_code,
            headers={name: value for name, value in answer.headers.items() if name in _TOLD},
            background=BackgroundTask(answer.aclose),
        )

    def _pause(self, reason: str) -> Response:
        if not self._away:
            _log.warning("SuperLink is away", reason=reason)
        self._away = True
        return _unavailable()

    async def _admit(self, request: Request) -> Response:
        """A wrong token is answered like a path that does not exist."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if self._enroll is None or scheme.lower() != "bearer" or not token:
            return _not_found()
        return await self._answered(request, partial(self._enroll, token))

    async def _answered(self, request: Request, act: Callable[[bytes], bytes]) -> Response:
        """Whoever is not believed learns not even that there is somebody to believe him."""
        try:
            body = b"".join([chunk async for chunk in _limited(request, _LARGEST_ENROLLMENT)])
            answer = await run_in_threadpool(act, body)
        except (UntrustedError, _TooLargeError):
            return _not_found()
        except (BadInputError, MalformedMessageError) as error:
            return PlainTextResponse(f"{error.line()}\n", status_code=400)
        except FederationError as error:
            _log.warning("a site could not be answered", reason=error.line())
            return _unavailable()
        return Response(answer, media_type="application/octet-stream")


def _announced(request: Request) -> int:
    length = request.headers.get("content-length", "0")
    return int(length) if length.isdecimal() else 0


async def _limited(request: Request, limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _TooLargeError
        if chunk:
            yield chunk


def _not_found() -> Response:
    return PlainTextResponse("not found\n", status_code=404)


def _too_large() -> Response:
    return PlainTextResponse("too large\n", status_code=413)


def _unavailable() -> Response:
    """Flower's own nodes take 503 for a pause and any other trouble for an end."""
    return PlainTextResponse("unavailable\n", status_code=503, headers={"retry-after": str(_RETRY_AFTER_SECONDS)})


class Gateway:
    """The front on a socket with TLS, in a thread.

    Args:
        host: the address that edges come to.
        port: 0 takes a free one.
        certificate: PEM file, what edges check against the federation's authority.
        key: PEM file of that certificate.
        superlink_url: ``https://host:port`` of SuperLink.
        ca_certificate: PEM file of the authority that signed SuperLink's certificate.
        enroll: admits a new edge.
        renew: gives an admitted edge its next certificate.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        certificate: Path,
        key: Path,
        superlink_url: str,
        ca_certificate: Path,
        enroll: Enroll | None = None,
        renew: Renew | None = None,
    ) -> None:
        self._host = host
        self._papers = (certificate, key)
        self._port = port
        self._config = uvicorn.Config(
            Front(superlink_url=superlink_url, ca_certificate=ca_certificate, enroll=enroll, renew=renew),
            interface="asgi3",
            http="h11",  # it hands over the request target untouched; the faster parser tidies it first
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=2,
            ssl_certfile=str(certificate),
            ssl_keyfile=str(key),
        )
        self._config.load()
        if self._config.ssl is not None:
            self._config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        self._server = uvicorn.Server(self._config)
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"https://{self._host}:{self._port}"

    def start(self, *, timeout: float = 10.0) -> None:
        """Open the door.

        Raises:
            BadInputError: the address cannot be used.
            UnavailableError: nobody stands behind it after ``timeout`` seconds.
        """
        listener = _listen(self._host, self._port)
        self._port = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="gateway", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + timeout
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise UnavailableError("the gateway did not start")
            time.sleep(0.01)

    def take_certificate(self) -> None:
        """Show the certificate that lies in the files now to whoever comes from now on; open connections go on.

        Raises:
            BadInputError: it cannot be read, or is not for the key; the old one is still shown.
        """
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._papers)
            if self._config.ssl is not None:
                self._config.ssl.load_cert_chain(*self._papers)
        except (OSError, ssl.SSLError) as error:
            raise BadInputError(f"{self._papers[0]} cannot be used: {error}", advice="hanse-center renew") from error

    def stop(self) -> None:
        """Close the door."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout=10.0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise BadInputError(
            f"port {port} on {host} cannot be used for the gateway: {error.strerror}",
            advice="end what listens there, or choose another port",
        ) from error


def nginx_configuration(
    *, server_name: str, port: int, certificate: Path, key: Path, superlink_url: str, ca_certificate: Path
) -> str:
    """The same door for those who keep nginx. Enrolling and renewing then need the built-in gateway on another port."""
    doors = [("POST", path) for path in FLEET_PATHS] + [("GET", HEALTH_PATH)]
    # The path is written out behind proxy_pass: nginx would else forward what it was before it was tidied.
    locations = "\n".join(
        f"    location = {path} {{ if ($request_method != {method}) {{ return 404; }}"
        f" proxy_pass {superlink_url}{path}; }}"
        for method, path in doors
    )
    return f"""\
server {{
    listen {port} ssl;
    server_name {server_name};
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    server_tokens off;
    merge_slashes off;
    client_max_body_size {LARGEST_BODY};

    proxy_http_version 1.1;
    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate {ca_certificate};
    proxy_intercept_errors on;
    error_page 500 502 503 504 =503 @away;

{locations}
    location / {{ return 404; }}
    location @away {{ add_header Retry-After {_RETRY_AFTER_SECONDS} always; return 503; }}
}}
"""
