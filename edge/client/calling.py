"""One call over HTTP: the key, the time it may take, what is tried again, and errors with the edge's own words."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Literal

import httpx

from protocol.errors import FederationError

_LONGEST_WAIT = 5.0
_FIRST_WAIT = 0.1
Again = Literal["always", "unless lost", "never"]
_NOTHING_DONE = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class EdgeError(FederationError):
    """The edge does not answer, or says no.

    Attributes:
        status: of the HTTP answer; None: there was none.
        detail: the edge's own words, or why there was no answer.
        retry_after: seconds after which it may be asked again; None: it said nothing of that.
    """

    def __init__(self, detail: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(f"{status}: {detail}" if status is not None else detail)
        self.detail, self.status, self.retry_after = detail, status, retry_after


class Caller:
    """Asks one edge."""

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        timeout: float,
        retries: int,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=timeout, transport=transport, trust_env=False, follow_redirects=False
        )
        self._retries, self._sleep = retries, sleep

    def close(self) -> None:
        self._http.close()

    def ask(self, method: str, path: str, *, again: Again = "always", **request: Any) -> httpx.Response:
        """Ask, and ask again where that is safe.

        Args:
            again: `always`: doing it twice does no more than doing it once. `unless lost`: only where it never arrived,
                or was refused for want of room. `never`: the body can be read only once.

        Raises:
            EdgeError: no answer, or a problem.
        """
        left = 0 if again == "never" else self._retries
        while True:
            try:
                response = self._http.request(method, path, **request)
            except httpx.RequestError as error:
                if not left or (again != "always" and not isinstance(error, _NOTHING_DONE)):
                    raise self._silent(error) from error
                wait = _FIRST_WAIT * 2 ** (self._retries - left)
            else:
                if response.is_success:
                    return response
                refusal = _error(response)
                wait = refusal.retry_after or _FIRST_WAIT
                if not left or response.status_code != HTTPStatus.TOO_MANY_REQUESTS or wait > _LONGEST_WAIT:
                    raise refusal
            self._sleep(wait * random.uniform(1, 1.5))  # noqa: S311 - only keeps callers from coming all at once
            left -= 1

    def ask_json(self, method: str, path: str, *, again: Again, **request: Any) -> Any:
        """Likewise, and read the answer."""
        response = self.ask(method, path, again=again, **request)
        try:
            return response.json()
        except ValueError as error:
            raise _error(response) from error

    @contextmanager
    def lines(self, method: str, path: str, **request: Any) -> Iterator[Iterable[str]]:
        """An answer that comes line by line.

        Raises:
            EdgeError: no answer, or a problem.
        """
        try:
            with self._http.stream(method, path, **request) as response:
                if not response.is_success:
                    response.read()
                    raise _error(response)
                yield response.iter_lines()
        except httpx.RequestError as error:
            raise self._silent(error) from error

    def _silent(self, error: httpx.RequestError) -> EdgeError:
        return EdgeError(f"{self._http.base_url} does not answer: {error or type(error).__name__}")


def _error(response: httpx.Response) -> EdgeError:
    try:
        said: Mapping[str, Any] = response.json()
        detail = str(said["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"what answers at {response.url.copy_with(path='/')} is no edge"
    after = response.headers.get("retry-after", "")
    return EdgeError(detail, status=response.status_code, retry_after=float(after) if after.isdigit() else None)
