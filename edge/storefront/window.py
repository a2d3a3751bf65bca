"""What one visitor of the page sees at the moment: who they play, what they look for, and what the edge said of it.

Everything is asked over the edge's own HTTP API, as a shop would; only the names of users to play are read from the
books, which no route gives out.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from edge.records.store import Store
from protocol.errors import FederationError, UnavailableError

STRANGER: Final = "a stranger"
SHELF: Final = 8
"""Items in a row of recommendations."""
_PAGE = 24
_NEWEST_USERS = """
    SELECT DISTINCT users.name FROM (SELECT user FROM events ORDER BY id DESC LIMIT 20000) AS newest
    JOIN users ON users.id = newest.user WHERE unicode(users.name) > 31 LIMIT 200"""  # 31 begins a visitor's name
_FACETS: Final = ("category", "brand")
_FIELDS: Final = ["category", "brand", "price"]
_TIMEOUT_SECONDS = 10.0


class RefusedError(FederationError):
    """The edge does not answer this; its own words say why."""


class Counter:
    """Asks the edge."""

    def __init__(self, url: str, key: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=_TIMEOUT_SECONDS, trust_env=False
        )

    async def ask(self, path: str, **body: Any) -> dict[str, Any]:
        """One question.

        Raises:
            UnavailableError: the edge does not run.
            RefusedError: it answers with a problem.
        """
        asked = {name: value for name, value in body.items() if value is not None}
        try:
            response = await self._client.post(path, json=asked)
        except httpx.TransportError as error:
            raise UnavailableError("the edge does not answer", advice="hanse-edge serve") from error
        answer: dict[str, Any] = response.json()
        if not response.is_success:
            raise RefusedError(str(answer.get("detail") or answer.get("title") or response.status_code))
        return answer

    async def leave(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def users_of(store: Path) -> list[str]:
    """Names to play: of the users with the newest events.

    Raises:
        BadInputError: the store is damaged.
    """
    with closing(Store.open(store)) as books, books.reading() as db:
        return [str(name) for (name,) in db.execute(_NEWEST_USERS)]


@dataclass(slots=True, kw_only=True)
class Window:
    """One open page.

    Attributes:
        user: who is played; `STRANGER`: nobody the edge knows.
        query: what is searched for; empty: nothing.
        chosen: facet -> values that are ticked.
        item: whose page is open; empty: none.
        answer: the newest answer to the main question, for the line that says who answered.
        seconds: how long it took.
    """

    counter: Counter
    user: str = STRANGER
    session: str = ""
    query: str = ""
    sort: str = "relevance"
    chosen: dict[str, set[str]] = field(default_factory=dict)
    item: str = ""
    answer: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def who(self) -> dict[str, str]:
        """The user, or the anonymous visit."""
        return {"session": self.session} if self.user == STRANGER else {"user": self.user}

    async def for_you(self) -> list[dict[str, Any]]:
        """Recommendations for the home page."""
        return await self._main("/v1/recommendations", **self.who(), scenario="home", limit=SHELF, fields=_FIELDS)

    async def trending(self) -> list[dict[str, Any]]:
        return await self._items("/v1/trending", limit=SHELF, fields=_FIELDS)

    async def found(self) -> dict[str, Any]:
        """The results of the search, with their facets."""
        ticked = {name: sorted(values) for name, values in self.chosen.items() if values}
        await self._main(
            "/v1/search",
            query=self.query,
            **self.who(),
            filter=ticked or None,
            facets=list(_FACETS),
            sort=self.sort,
            limit=_PAGE,
            highlight=True,
        )
        return dict(self.answer)

    async def suggestions(self, text: str) -> list[str]:
        """How a query may go on."""
        answer = await self.counter.ask("/v1/suggest", query=text, limit=SHELF)
        return [str(one["text"]) for one in answer["suggestions"]]

    async def similar(self) -> list[dict[str, Any]]:
        return await self._items("/v1/similar", item=self.item, limit=SHELF, fields=_FIELDS)

    async def related(self) -> list[dict[str, Any]]:
        return await self._items("/v1/related", item=self.item, limit=SHELF, fields=_FIELDS)

    async def why(self, item: str) -> dict[str, Any]:
        """What moved an item up."""
        answer = await self.counter.ask("/v1/explanations", **self.who(), item=item)
        explained: dict[str, Any] = next(iter(answer.get("items", [])), {})
        return explained

    async def about(self, item: str) -> dict[str, Any]:
        """What the shop says of an item."""
        answer = await self.counter.ask("/v1/items/read", items=[item])
        told: dict[str, Any] = next(iter(answer.get("items", [])), {"item": item})
        return told

    async def note(self, kind: str, *, item: str | None = None, query: str | None = None) -> None:
        """Something the visitor did."""
        answered = self.answer.get("rec_id")
        await self.counter.ask("/v1/events", type=kind, **self.who(), item=item, query=query, rec_id=answered)

    async def _items(self, path: str, **body: Any) -> list[dict[str, Any]]:
        return _flat(await self.counter.ask(path, **body))

    async def _main(self, path: str, **body: Any) -> list[dict[str, Any]]:
        began = time.perf_counter()
        self.answer = await self.counter.ask(path, **body)
        self.seconds = time.perf_counter() - began
        return _flat(self.answer)


def _flat(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Items with what is told of them on one level."""
    return [{**item, **(item.get("fields") or {})} for item in answer["items"]]


def gather(*questions: Any) -> Any:
    """Several questions at the same time."""
    return asyncio.gather(*questions)


def names(users: Sequence[str]) -> list[str]:
    """What the switcher offers."""
    return [STRANGER, *users]
