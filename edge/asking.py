"""Asks the running edge on this machine, as its shop would. For `hanse-edge query` and `hanse-edge status`."""

from pathlib import Path
from typing import Any

import httpx

from edge import durable
from edge.settings import EdgeSettings
from protocol.errors import BadInputError, UnavailableError

_TIMEOUT_SECONDS = 10.0
_ERASING_SECONDS = 300.0  # a large store may have to be written anew
_KEY_FILE = "operator.key"


def keep_key(directory: Path, key: str) -> None:
    """Let the commands on this machine use an API key: readable by its owner alone."""
    durable.write(directory / "keys" / _KEY_FILE, key.encode() + b"\n", private=True)


def read_key(directory: Path) -> str:
    """The key that commands on this machine use.

    Raises:
        BadInputError: there is none.
    """
    try:
        return (directory / "keys" / _KEY_FILE).read_text("ascii").strip()
    except OSError as error:
        advice = "hanse-edge key new operator --operator"
        raise BadInputError("this folder keeps no API key for queries", advice=advice) from error


def recommend(user: str, *, limit: int, directory: Path, settings: EdgeSettings) -> dict[str, Any]:
    """What the edge recommends to a user.

    Raises:
        UnavailableError: it does not run.
        BadInputError: it refuses the question.
    """
    with _client(settings, read_key(directory)) as client:
        return _answer(client, "POST", "/v1/recommendations", {"user": user, "limit": limit})


def experiments(*, directory: Path, settings: EdgeSettings) -> list[dict[str, Any]]:
    """All experiments of the edge, with their figures.

    Raises:
        UnavailableError: it does not run.
        BadInputError: it refuses the question.
    """
    with _client(settings, read_key(directory)) as client:
        found: list[dict[str, Any]] = _answer(client, "GET", "/v1/experiments", None)["experiments"]
        return found


def erase(person: dict[str, str], *, directory: Path, settings: EdgeSettings) -> dict[str, Any]:
    """Have a user or a visitor deleted.

    Raises:
        UnavailableError: the edge does not run.
        BadInputError: it refuses.
    """
    with _client(settings, "") as client:
        _answer(client, "GET", "/healthz", None)
    with _client(settings, read_key(directory)) as client:
        client.timeout = httpx.Timeout(_ERASING_SECONDS)
        return _answer(client, "POST", "/v1/users/erase", person)


def health(settings: EdgeSettings) -> dict[str, Any]:
    """What the edge says of itself.

    Raises:
        UnavailableError: it does not run.
    """
    with _client(settings, "") as client:
        return _answer(client, "GET", "/readyz", None)


def as_text(answer: dict[str, Any]) -> str:
    """An answer for people."""
    head = f"release {answer['release'] or 'none yet'}"
    if answer.get("degraded"):
        head += f", degraded: {', '.join(answer.get('reasons', []))}"
    lines = [f"{row['score']:9.4f}  {row['item']:>12}  {row.get('title') or ''}".rstrip() for row in answer["items"]]
    return "\n".join([head, *lines])


def _client(settings: EdgeSettings, key: str) -> httpx.Client:
    url = f"http://{settings.serving.host}:{settings.serving.port}"
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=False)


def _answer(client: httpx.Client, method: str, path: str, body: object) -> dict[str, Any]:
    try:
        response = client.request(method, path, json=body)
    except httpx.TransportError as error:
        raise UnavailableError(f"no edge answers at {client.base_url}", advice="hanse-edge serve") from error
    try:
        answer: dict[str, Any] = response.json()
    except ValueError as error:
        raise BadInputError(
            f"what answers at {client.base_url} is no edge", advice="set serving.port in edge.toml"
        ) from error
    if not response.is_success:
        raise BadInputError(f"the edge refuses: {answer.get('detail') or answer.get('title') or response.status_code}")
    return answer
