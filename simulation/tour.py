"""Goes through every door of one running edge, as its shop would, on real data, and looks at what comes out.

Whatever the edge's own OpenAPI names is asked at least once; what is changed on the way is put back.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx

from edge.client import Edge
from protocol.errors import FederationError
from simulation.datasets import SiteData
from simulation.federation import Site

_SOON_SECONDS: Final = 20.0
_NAME: Final = "tour"
_DAY_MS: Final = 86_400_000


class WrongAnswerError(FederationError):
    """An edge answered what no shop would expect."""


class _Noting(httpx.HTTPTransport):
    """Remembers what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[tuple[str, str]] = set()
        self._turn = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self._turn:
            self.asked.add((request.method.lower(), request.url.path))
        return super().handle_request(request)


def walk(site: Site, data: SiteData) -> dict[str, Any]:
    """Ask everything.

    Returns:
        how many operations there are, and samples of what was answered.

    Raises:
        WrongAnswerError: an answer is not what it should be, or an operation was not asked.
    """
    noting = _Noting()
    with Edge(site.url, site.key, transport=noting) as edge:
        tour = _Tour(edge, data)
        for step in tour.steps():
            step()
        paths = edge.openapi()["paths"]
    offered = {(method, path) for path, methods in paths.items() for method in methods}
    missed = sorted(f"{method.upper()} {path}" for method, path in offered - noting.asked)
    if missed:
        raise WrongAnswerError(f"the tour does not ask {', '.join(missed)}")
    return {"operations": len(offered), "samples": tour.samples}


class _Tour:
    def __init__(self, edge: Edge, data: SiteData) -> None:
        self._edge = edge
        self._user = str(data.events["user"].mode()[0])  # who has done most here
        self._item = str(data.events["item"][0])
        self._category = str(edge.read_items([self._item])["items"][0]["category"])
        self.samples: dict[str, Any] = {}

    def steps(self) -> Iterator[Callable[[], None]]:
        """In an order in which each finds what it needs."""
        yield from (self._health, self._recommendations, self._reasons, self._neighbours, self._search, self._synonyms)
        yield from (self._items, self._visitor, self._promotion, self._scenario, self._experiment, self._reading)

    def _health(self) -> None:
        _expect(self._edge.alive()["status"] == "ok", "it is alive")
        _expect(self._edge.ready()["ready"], "it is ready")
        _expect("hanse_edge_requests_total" in self._edge.metrics(), "its metrics count requests")
        _expect("/v1/recommendations" in self._edge.docs(), "its page describes its routes")

    def _recommendations(self) -> None:
        for scenario in ("home", "product", "basket", "email"):
            there = [self._item] if scenario in {"product", "basket"} else []
            answer = self._edge.recommend(user=self._user, scenario=scenario, items=there, limit=5)
            _expect(len(answer["items"]) == 5, f"scenario {scenario} has five items")  # noqa: PLR2004
            _expect(self._item not in _names(answer) or not there, f"{scenario} leaves out what is there already")
        same = self._edge.recommend(user=self._user, filter={"category": [self._category]}, fields=["category"])
        _expect(_kinds(same) == {self._category}, "a filter holds")
        _soon(lambda: self._edge.recommend(history=[self._item])["rung"] == "sequence", "the model reads")
        home = self._edge.recommend(user=self._user, limit=3)
        self.samples["recommendations"] = [item["title"] for item in home["items"]]

    def _reasons(self) -> None:
        best = self._edge.recommend(user=self._user, limit=1)["items"][0]["item"]
        told = self._edge.explain(best, user=self._user)["items"][0]
        _expect(bool(told["because"] or told["voices"]), "an item that is recommended has reasons")
        self.samples["why"] = [reason["text"] for reason in [*told["because"], *told["voices"]][:3]]

    def _neighbours(self) -> None:
        _expect(self._item not in _names(self._edge.similar(self._item, limit=5)), "nothing is similar to itself")
        related = self._edge.related(self._item, kind="bought", limit=5)
        _expect(bool(related["items"]), "something goes with an item")
        trending = self._edge.trending(limit=5)
        _expect(_names(self._edge.trending_in(limit=5)) == _names(trending), "GET and POST say the same")
        self.samples["goes_with_it"] = [item["title"] for item in related["items"][:3]]

    def _search(self) -> None:
        title = self._edge.read_items([self._item])["items"][0]["title"]
        word = max(title.split(), key=len)
        found = self._edge.search(word, user=self._user, facets=["category", "brand", "price"], highlight=True)
        _expect(found["hits"] > 0 and bool(found["facets"]["category"]), f"{word} is found, with facets")
        typo = word[:2] + word[3:] if len(word) > 5 else word  # noqa: PLR2004
        _expect(bool(self._edge.search(typo)["items"]), f"{typo} is understood")
        _expect(bool(self._edge.suggest(word[:3])["suggestions"]), f"{word[:3]} is completed")
        _expect(self._edge.search_index()["whole"], "the index is whole")
        self._edge.rebuild_search()
        _expect(self._edge.search(word)["hits"] > 0, "a rebuild takes nothing away meanwhile")
        _soon(lambda: not self._edge.search_index()["building"], "the rebuild ends")
        self.samples["search"] = {"query": word, "hits": found["hits"], "first": found["items"][0]["title"]}

    def _synonyms(self) -> None:
        self._edge.put_synonyms({"name": _NAME, "same": ["zzzunknown", self._word()]})
        _soon(lambda: self._edge.search("zzzunknown")["hits"] > 0, "a synonym is found")
        _expect(_NAME in self._edge.synonyms()["synonyms"], "synonyms are listed")
        self._edge.remove_synonyms(_NAME)

    def _word(self) -> str:
        title: str = self._edge.read_items([self._item])["items"][0]["title"]
        return max(title.split(), key=len).lower()

    def _items(self) -> None:
        fresh = {"item": "tour-tea", "title": "Zymurgic tourmaline tea", "price": 4.5, "stock": 2, "category": "tour"}
        _expect(self._edge.put_items([fresh])["changed"] == 1, "an item is listed")
        _soon(lambda: self._edge.search("zymurgic")["hits"] == 1, "a new item is found")
        self._edge.patch_items([{"item": "tour-tea", "price": 3.5}])
        _expect(self._edge.read_items(["tour-tea"])["items"][0]["price"] == 3.5, "its price is changed")  # noqa: PLR2004
        self._edge.remove_items(["tour-tea"])
        _soon(lambda: self._edge.search("zymurgic")["hits"] == 0, "an item that is gone is not found")

    def _visitor(self) -> None:
        """An anonymous visit becomes a user, and is forgotten."""
        visit, user = f"tour-visit-{time.time_ns()}", f"tour-user-{time.time_ns()}"
        answer = self._edge.recommend(session=visit, limit=3)
        added = self._edge.add_event("view", session=visit, item=self._item, rec_id=answer["rec_id"])
        _expect(added["added"] == 1, "an event is written")
        self._edge.stream_events([{"event_id": visit, "type": "search", "session": visit, "query": "tea"}])
        _expect(self._edge.merge(session=visit, user=user)["moved"] == 2, "a visit becomes a user's")  # noqa: PLR2004
        _expect(self._edge.recommend(user=user)["rung"] != "popularity", "what was seen before counts")
        _expect(len(list(self._edge.export(user=user))) > 1, "a user gets what is known of them")
        _expect(self._edge.erase(user=user)["events"] == 2, "a user is erased")  # noqa: PLR2004
        _expect("unknown_user" in self._edge.recommend(user=user)["reasons"], "and is unknown at once")

    def _promotion(self) -> None:
        week = {"start": _iso(-1), "end": _iso(6)}
        self._edge.put_promotion({"name": _NAME, "title": "A tour", "items": [self._item], **week})
        _soon(lambda: _NAME in str(self._edge.promotions_for(user=self._user)["promotions"]), "a campaign is offered")
        _expect(_NAME in str(self._edge.promotions()), "campaigns are listed")
        self._edge.remove_promotion(_NAME)

    def _scenario(self) -> None:
        self._edge.put_scenario({"name": _NAME, "filter": {"category": [self._category]}})
        answer = self._edge.recommend(user=self._user, scenario=_NAME, fields=["category"])
        _expect(_kinds(answer) == {self._category}, "a scenario's own filter holds")
        _expect(_NAME in [scenario["name"] for scenario in self._edge.scenarios()["scenarios"]], "scenarios are listed")
        self._edge.remove_scenario(_NAME)

    def _experiment(self) -> None:
        arms = [{"name": "control", "share": 0.5}, {"name": "votes", "share": 0.5, "what": {"fusion": "votes"}}]
        self._edge.put_experiment({"name": _NAME, "arms": arms, "run": True})
        _soon(lambda: bool(self._edge.recommend(user=self._user)["arm"]), "an arm answers")
        _soon(lambda: _NAME in str(self._edge.experiments()), "experiments are listed")
        self.samples["arm"] = self._edge.recommend(user=self._user)["arm"]
        self._edge.stop_experiment(_NAME)
        self._edge.remove_experiment(_NAME)

    def _reading(self) -> None:
        page = self._edge.read_events(user=self._user, limit=2)
        _expect(len(page["events"]) == 2 and page["more"], "events are read back page by page")  # noqa: PLR2004


def _names(answer: Any) -> list[str]:
    return [item["item"] for item in answer["items"]]


def _kinds(answer: Any) -> set[str]:
    return {item["fields"]["category"] for item in answer["items"]}


def _iso(days: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + days * _DAY_MS / 1000))


def _expect(holds: object, what: str) -> None:
    if not holds:
        raise WrongAnswerError(f"it does not hold that {what}")


def _soon(ready: Callable[[], bool], what: str) -> None:
    """What an edge does in the background it does within a second; on a busy machine within some."""
    deadline = time.monotonic() + _SOON_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise WrongAnswerError(f"it does not come to hold that {what}")
        time.sleep(0.1)
