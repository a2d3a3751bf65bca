"""What one visitor of the page sees at the moment: who they play, what they look for, and what the edge said of it.

Everything is asked with the client that a shop would take (`edge.client`); only the names of users to play are read
from the books, which no route gives out.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, ParamSpec, TypedDict, TypeVar

from edge.client import Edge
from edge.records.store import Store

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer", bound=Mapping[str, Any])

STRANGER: Final = "a stranger"
SHELF: Final = 8
"""Items in a row of recommendations."""
_PAGE = 24
_NEWEST_USERS = """
    SELECT DISTINCT users.name FROM (SELECT user FROM events ORDER BY id DESC LIMIT 20000) AS newest
    JOIN users ON users.id = newest.user WHERE unicode(users.name) > 31 LIMIT 200"""  # 31 begins a visitor's name
_FACETS: Final = ("category", "brand")
_FIELDS: Final = ["category", "brand", "price"]


class Who(TypedDict, total=False):
    """Who asks: one of the two."""

    user: str
    session: str


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
        edge: it is asked in threads, so that the page goes on.
        user: who is played; `STRANGER`: nobody the edge knows.
        query: what is searched for; empty: nothing.
        chosen: facet -> values that are ticked.
        item: whose page is open; empty: none.
        answer: the newest answer to the main question, for the line that says who answered.
        seconds: how long it took.
    """

    edge: Edge
    user: str = STRANGER
    session: str = ""
    query: str = ""
    sort: str = "relevance"
    chosen: dict[str, set[str]] = field(default_factory=dict)
    item: str = ""
    answer: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def who(self) -> Who:
        """The user, or the anonymous visit."""
        return {"session": self.session} if self.user == STRANGER else {"user": self.user}

    async def for_you(self) -> list[dict[str, Any]]:
        """Recommendations for the home page."""
        await self._main(self.edge.recommend, **self.who(), scenario="home", limit=SHELF, fields=_FIELDS)
        return _flat(self.answer)

    async def trending(self) -> list[dict[str, Any]]:
        return _flat(await asyncio.to_thread(self.edge.trending, limit=SHELF, fields=_FIELDS))

    async def found(self) -> dict[str, Any]:
        """The results of the search, with their facets."""
        ticked = {name: sorted(values) for name, values in self.chosen.items() if values}
        await self._main(
            self.edge.search,
            self.query,
            **self.who(),
            filter=ticked or None,
            facets=_FACETS,
            sort=self.sort,
            limit=_PAGE,
            highlight=True,
        )
        return dict(self.answer)

    async def suggestions(self, text: str) -> list[str]:
        """How a query may go on."""
        answer = await asyncio.to_thread(self.edge.suggest, text, limit=SHELF)
        return [one["text"] for one in answer["suggestions"]]

    async def similar(self) -> list[dict[str, Any]]:
        return _flat(await asyncio.to_thread(self.edge.similar, self.item, limit=SHELF, fields=_FIELDS))

    async def related(self) -> list[dict[str, Any]]:
        return _flat(await asyncio.to_thread(self.edge.related, self.item, limit=SHELF, fields=_FIELDS))

    async def why(self, item: str) -> dict[str, Any]:
        """What moved an item up."""
        answer = await asyncio.to_thread(self.edge.explain, item, **self.who())
        return dict(next(iter(answer["items"]), {}))

    async def about(self, item: str) -> dict[str, Any]:
        """What the shop says of an item."""
        answer = await asyncio.to_thread(self.edge.read_items, [item])
        return dict(next(iter(answer["items"]), {"item": item}))

    async def note(self, kind: str, *, item: str | None = None, query: str | None = None) -> None:
        """Something the visitor did."""
        answered = self.answer.get("rec_id")
        await asyncio.to_thread(self.edge.add_event, kind, **self.who(), item=item, query=query, rec_id=answered)

    async def _main(self, ask: Callable[_Asked, _Answer], *args: _Asked.args, **asked: _Asked.kwargs) -> None:
        began = time.perf_counter()
        self.answer = await asyncio.to_thread(ask, *args, **asked)
        self.seconds = time.perf_counter() - began


def _flat(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Items with what is told of them on one level."""
    return [{**item, **(item.get("fields") or {})} for item in answer["items"]]


def gather(*questions: Any) -> Any:
    """Several questions at the same time."""
    return asyncio.gather(*questions)


def names(users: Sequence[str]) -> list[str]:
    """What the switcher offers."""
    return [STRANGER, *users]
