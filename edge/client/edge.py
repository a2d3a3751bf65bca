"""The edge as a shop's program sees it: one method an operation, named arguments, typed answers.

    with Edge("http://127.0.0.1:8080", key) as edge:
        edge.add_event("view", user="ada", item="i1")
        for item in edge.recommend(user="ada", limit=5)["items"]: ...

Arguments mean what `/docs` says of the fields of the same name; what is left out is not sent.
"""

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, cast

import httpx

from edge.client import answers
from edge.client.calling import Again, Caller

Fields = Mapping[str, Any]
Answer = TypeVar("Answer")
_EVENT_ID_BYTES = 12


class Edge:
    """One edge's query service."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 10.0,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Connect when first asked.

        Args:
            url: such as `http://127.0.0.1:8080`.
            key: an API key with the scopes of what will be asked.
            timeout: seconds for connecting, and for each silence of the other side.
            retries: how often something is asked again that is safe to ask again.
            transport: another way than sockets, for tests.
        """
        self._caller = Caller(url, key, timeout=timeout, retries=retries, transport=transport)

    def close(self) -> None:
        """Close the connections."""
        self._caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def recommend(
        self,
        *,
        user: str | None = None,
        session: str | None = None,
        history: Sequence[str] | None = None,
        limit: int = 10,
        scenario: str | None = None,
        filter: Fields | None = None,  # noqa: A002 - the field's name
        exclude: Sequence[str] = (),
        fields: Sequence[str] = (),
        items: Sequence[str] = (),
        context: Fields | None = None,
        timeout_ms: float | None = None,
        propensity: bool | None = None,
    ) -> answers.Recommendations:
        """Items for a user, a session or a history."""
        body = _said(locals())
        return self._ask(answers.Recommendations, "POST", "/v1/recommendations", body)

    def promotions_for(
        self,
        *,
        user: str | None = None,
        session: str | None = None,
        history: Sequence[str] | None = None,
        limit: int = 3,
        scenario: str | None = None,
        items: Sequence[str] = (),
        context: Fields | None = None,
        timeout_ms: float | None = None,
    ) -> answers.Campaigns:
        """Campaigns for a user, a session or a history."""
        body = _said(locals())
        return self._ask(answers.Campaigns, "POST", "/v1/recommendations/promotions", body)

    def similar(
        self,
        item: str,
        *,
        limit: int = 10,
        filter: Fields | None = None,  # noqa: A002
        exclude: Sequence[str] = (),
        fields: Sequence[str] = (),
    ) -> answers.Recommendations:
        """Items like one item."""
        body = _said(locals())
        return self._ask(answers.Recommendations, "POST", "/v1/similar", body)

    def related(
        self,
        item: str | None = None,
        *,
        items: Sequence[str] = (),
        kind: Literal["bought", "viewed", "any"] | None = None,
        limit: int = 10,
        filter: Fields | None = None,  # noqa: A002
        exclude: Sequence[str] = (),
        fields: Sequence[str] = (),
    ) -> answers.Recommendations:
        """Items that are bought or viewed together with one item, or with several."""
        body = _said(locals())
        return self._ask(answers.Recommendations, "POST", "/v1/related", body)

    def trending(
        self,
        *,
        limit: int = 10,
        filter: Fields | None = None,  # noqa: A002
        exclude: Sequence[str] = (),
        fields: Sequence[str] = (),
    ) -> answers.Trending:
        """Items that are wanted now more than usual."""
        body = _said(locals())
        return self._ask(answers.Trending, "POST", "/v1/trending", body)

    def trending_in(self, *category: str, limit: int = 10) -> answers.Trending:
        """The same by GET, which a cache on the way may keep."""
        asked = {"limit": limit, "category": list(category)}
        return self._ask(answers.Trending, "GET", "/v1/trending", params=asked)

    def explain(
        self,
        item: str | None = None,
        *,
        items: Sequence[str] = (),
        user: str | None = None,
        session: str | None = None,
        history: Sequence[str] | None = None,
        context: Fields | None = None,
        limit: int | None = None,
    ) -> answers.Explanations:
        """Why these items, for a user, a session or a history."""
        body = _said(locals())
        return self._ask(answers.Explanations, "POST", "/v1/explanations", body)

    def search(
        self,
        query: str = "",
        *,
        user: str | None = None,
        session: str | None = None,
        filter: Fields | None = None,  # noqa: A002
        facets: Sequence[str] = (),
        fields: Sequence[str] = (),
        sort: str | None = None,
        limit: int = 10,
        offset: int | None = None,
        highlight: bool | None = None,
        semantic: Literal["auto", "off"] | None = None,
        timeout_ms: float | None = None,
    ) -> answers.Found:
        """Items for what was typed."""
        body = _said(locals())
        return self._ask(answers.Found, "POST", "/v1/search", body)

    def suggest(self, query: str, *, limit: int | None = None, items: int | None = None) -> answers.Suggestions:
        """What may be about to be typed, and items that it already finds."""
        body = _said(locals())
        return self._ask(answers.Suggestions, "POST", "/v1/suggest", body)

    def add_event(
        self,
        type: str,  # noqa: A002
        *,
        user: str | None = None,
        session: str | None = None,
        item: str | None = None,
        event_id: str | None = None,
        time: str | int | None = None,
        quantity: float | None = None,
        rec_id: str | None = None,
        query: str | None = None,
        context: Fields | None = None,
    ) -> answers.Added:
        """Write one event. It gets an `event_id` here, so that sending it again after a lost answer is harmless."""
        return self.add_events([_said(locals())])

    def add_events(self, events: Iterable[Fields]) -> answers.Added:
        """Write several events together or not at all, 10,000 at most; each gets an `event_id` if it has none."""
        body = {"events": [{"event_id": secrets.token_urlsafe(_EVENT_ID_BYTES), **event} for event in events]}
        return self._ask(answers.Added, "POST", "/v1/events", body)

    def stream_events(self, events: Iterable[Fields]) -> answers.Streamed:
        """Write any number of events as they come; those that cannot be taken are named in the answer."""
        lines = (json.dumps(event).encode() + b"\n" for event in events)
        headers = {"Content-Type": "application/x-ndjson"}
        return self._ask(answers.Streamed, "POST", "/v1/events/stream", again="never", content=lines, headers=headers)

    def read_events(
        self, *, user: str | None = None, session: str | None = None, after: str | None = None, limit: int | None = None
    ) -> answers.EventsPage:
        """Read events back in order of arrival: all, or a user's, or a session's."""
        body = _said(locals())
        return self._ask(answers.EventsPage, "POST", "/v1/events/read", body)

    def put_items(self, items: Iterable[Fields]) -> answers.Changed:
        """List items, or list them anew."""
        return self._ask(answers.Changed, "POST", "/v1/items", {"items": list(items)})

    def patch_items(self, items: Iterable[Fields]) -> answers.Changed:
        """Change some fields of listed items, such as price and stock."""
        return self._ask(answers.Changed, "PATCH", "/v1/items", {"items": list(items)})

    def remove_items(self, items: Iterable[str]) -> answers.Changed:
        """Take items off the list; what was done with them stays known."""
        return self._ask(answers.Changed, "POST", "/v1/items/remove", {"items": list(items)}, again="unless lost")

    def read_items(
        self, items: Sequence[str] | None = None, *, after: str | None = None, limit: int | None = None
    ) -> answers.ItemsPage:
        """Read items back: these, or all in turn."""
        body = _said(locals())
        return self._ask(answers.ItemsPage, "POST", "/v1/items/read", body)

    def merge(self, *, session: str, user: str) -> answers.Merged:
        """What was done in this session was done by this user."""
        return self._ask(answers.Merged, "POST", "/v1/sessions/merge", {"session": session, "user": user})

    def erase(self, *, user: str | None = None, session: str | None = None) -> answers.Erased:
        """Forget somebody."""
        body = _said(locals())
        return self._ask(answers.Erased, "POST", "/v1/users/erase", body)

    def export(self, *, user: str | None = None, session: str | None = None) -> Iterator[dict[str, Any]]:
        """All that is known of somebody: who it is and their sessions, then one event after the other."""
        body = _said(locals())
        with self._caller.lines("POST", "/v1/users/export", json=body) as lines:
            for line in lines:
                yield json.loads(line)

    def synonyms(self) -> answers.Synonyms:
        """All synonyms that were set."""
        return self._ask(answers.Synonyms, "GET", "/v1/synonyms")

    def put_synonyms(self, synonyms: Fields) -> answers.Named:
        """Set synonyms: `{"name": …, "same": […]}`, or `{"name": …, "from": …, "to": […]}`."""
        return self._ask(answers.Named, "POST", "/v1/synonyms", dict(synonyms))

    def remove_synonyms(self, name: str) -> answers.Named:
        """Take synonyms back."""
        return self._ask(answers.Named, "POST", "/v1/synonyms/remove", {"name": name}, again="unless lost")

    def search_index(self) -> answers.Index:
        """The index that is searched."""
        return self._ask(answers.Index, "GET", "/v1/search/index")

    def rebuild_search(self) -> answers.Index:
        """Build the index anew beside the one that is searched."""
        return self._ask(answers.Index, "POST", "/v1/search/rebuild")

    def scenarios(self) -> answers.Scenarios:
        """All scenarios."""
        return self._ask(answers.Scenarios, "GET", "/v1/scenarios")

    def put_scenario(self, scenario: Fields) -> answers.DocumentSet:
        """Set a scenario."""
        return self._ask(answers.DocumentSet, "POST", "/v1/scenarios", dict(scenario))

    def remove_scenario(self, name: str) -> answers.ScenarioRemoved:
        """Take a scenario back."""
        return self._ask(answers.ScenarioRemoved, "POST", "/v1/scenarios/remove", {"name": name}, again="unless lost")

    def promotions(self) -> answers.Promotions:
        """All promotions."""
        return self._ask(answers.Promotions, "GET", "/v1/promotions")

    def put_promotion(self, promotion: Fields) -> answers.DocumentSet:
        """Set a promotion."""
        return self._ask(answers.DocumentSet, "POST", "/v1/promotions", dict(promotion))

    def remove_promotion(self, name: str) -> answers.Named:
        """Take a promotion back."""
        return self._ask(answers.Named, "POST", "/v1/promotions/remove", {"name": name}, again="unless lost")

    def experiments(self) -> answers.Experiments:
        """All experiments, and what came of them."""
        return self._ask(answers.Experiments, "GET", "/v1/experiments")

    def put_experiment(self, experiment: Fields) -> answers.ExperimentSet:
        """Set an experiment, and start it with `run`."""
        return self._ask(answers.ExperimentSet, "POST", "/v1/experiments", dict(experiment))

    def stop_experiment(self, name: str) -> answers.ExperimentSet:
        """Stop an experiment."""
        return self._ask(answers.ExperimentSet, "POST", "/v1/experiments/stop", {"name": name})

    def remove_experiment(self, name: str) -> answers.Named:
        """Remove an experiment and its figures."""
        return self._ask(answers.Named, "POST", "/v1/experiments/remove", {"name": name}, again="unless lost")

    def alive(self) -> dict[str, Any]:
        """The process answers."""
        return self._ask(dict[str, Any], "GET", "/healthz")

    def ready(self) -> dict[str, Any]:
        """It can answer, and from which release."""
        return self._ask(dict[str, Any], "GET", "/readyz")

    def metrics(self) -> str:
        """Prometheus text."""
        return self._caller.ask("GET", "/metrics").text

    def openapi(self) -> dict[str, Any]:
        """What the service says of itself."""
        return self._ask(dict[str, Any], "GET", "/openapi.json")

    def docs(self) -> str:
        """The same as a page."""
        return self._caller.ask("GET", "/docs").text

    def _ask(
        self,
        _: type[Answer],
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        again: Again = "always",
        **request: Any,
    ) -> Answer:
        if body is not None:
            request["json"] = body
        return cast("Answer", self._caller.ask_json(method, path, again=again, **request))


def _said(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that somebody gave, as a body."""
    return {name: value for name, value in given.items() if name != "self" and value is not None and value != ()}
