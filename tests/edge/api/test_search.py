"""The search as a shop's own pages and their strangers meet it."""

import asyncio
import itertools

import httpx
import pytest

from edge.api.app import build_app
from edge.records.events import Item
from edge.search.searching import Search
from edge.shop import Shop


class Visitor:
    def __init__(self, shop):
        self.search = shop.search
        self._app = build_app(shop, api_keys=None)

    def ask(self, method, path, **parts):
        async def asking():
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
                return await client.request(method, path, **parts)

        return asyncio.run(asking())

    def post(self, path, body):
        return self.ask("POST", path, json=body)

    def find(self, **body):
        response = self.post("/v1/search", body)
        assert response.status_code == 200, response.text
        return response.json()


@pytest.fixture
def visitor(make_service, load_release, stocked, tmp_path):
    stocked.put_items(
        [
            Item(
                item="g",
                title="Green <b>tea</b>",
                category="tea",
                brand="acme",
                price=4.1,
                attributes={"organic": True},
            ),
            Item(item="k", title="Tea kettle", category="kitchen", brand="acme", price=29.99),
        ]
    )
    service = make_service(load_release(3))
    numbers = itertools.count(1)
    search = Search.open(
        tmp_path / "search",
        service,
        language="english",
        draw=lambda count: next(numbers).to_bytes(count, "big"),
        clock=lambda: 1000.0,
    )
    search.follower.step()
    search.look_again()
    yield Visitor(Shop(service=service, search=search))
    search.close()


def is_problem(response, status):
    body = response.json()
    return response.status_code == body["status"] == status and "\n" not in body["detail"] and body["detail"]


def test_an_answer_tells_all_that_a_page_needs(visitor):
    body = {"query": "green tea", "highlight": True, "facets": ["brand", "price"], "fields": ["organic"], "limit": 1}
    answer = visitor.find(**body)
    assert answer["items"] == [
        {
            "item": "g",
            "score": answer["items"][0]["score"],
            "title": "Green <b>tea</b>",
            "price": 4.1,
            "category": "tea",
            "brand": "acme",
            "highlight": "<mark>Green</mark> &lt;b&gt;<mark>tea</mark>&lt;/b&gt;",
            "fields": {"organic": True},
        }
    ]
    assert answer["facets"]["brand"] == [{"value": "acme", "count": 1}]
    assert sum(each["count"] for each in answer["facets"]["price"]) == 1
    assert (answer["hits"], answer["corrected"], answer["degraded"], answer["release"]) == (1, None, False, 3)
    assert len(answer["rec_id"]) == 22


def test_without_a_query_what_sells_best_comes_first(visitor):
    assert [item["item"] for item in visitor.find(limit=2)["items"]] == ["i7", "i2"]
    assert visitor.find(filter={"category": ["kitchen"]})["hits"] == 1


def test_pages_sorts_and_filters(visitor):
    assert visitor.find(query="tea", sort="price_desc", limit=2)["items"][0]["item"] == "k"
    assert visitor.find(query="tea", filter={"price": {"max": 5}, "brand": ["acme"]})["hits"] == 1
    assert visitor.find(query="tea", filter={"where": "organic == True"})["hits"] == 1
    first, second = (visitor.find(query="item", limit=5, offset=at)["items"] for at in (0, 5))
    assert not {item["item"] for item in first} & {item["item"] for item in second}
    assert visitor.find(query="item", offset=9_900)["items"] == []


def test_a_misspelt_query_is_answered_and_named(visitor):
    answer = visitor.find(query="kettel")
    assert (answer["corrected"], answer["items"][0]["item"]) == ("kettle", "k")


@pytest.mark.parametrize(
    "body",
    [
        {"query": 7},
        {"query": "x" * 1001},
        {"query": "tea", "limit": 0},
        {"query": "tea", "limit": 101},
        {"query": "tea", "offset": -1},
        {"query": "tea", "offset": 10_000},
        {"query": "tea", "sort": "random"},
        {"query": "tea", "facets": ["colour"]},
        {"query": "tea", "facets": ["brand"] * 11},
        {"query": "tea", "fields": ["colour"]},
        {"query": "tea", "filter": {"colour": "red"}},
        {"query": "tea", "filter": {"where": "price ="}},
        {"query": "tea", "filter": {"attributes": {"a\x00b": "c"}}},
        {"query": "tea", "semantic": "yes"},
        {"query": "tea", "timeout_ms": 0},
        {"qery": "tea"},
    ],
    ids=str,
)
def test_what_means_nothing_is_refused_in_one_line(visitor, body):
    assert is_problem(visitor.post("/v1/search", body), 422)


@pytest.mark.parametrize(
    "query", ["", " ", "\x00", "\x01\x02", "💚", "a" * 1000, "a " * 500, "茶" * 1000, "\u202etea", "-", "²"]
)
def test_whatever_is_typed_is_answered(visitor, query):
    assert visitor.find(query=query, highlight=True, facets=["brand"])["reasons"] == []
    assert visitor.post("/v1/suggest", {"query": query}).status_code == 200


def test_half_a_surrogate_pair_is_refused(visitor):
    response = visitor.ask(
        "POST", "/v1/search", content=b'{"query": "\\ud800"}', headers={"Content-Type": "application/json"}
    )
    assert response.status_code in {200, 422}


def test_the_user_decides_the_order_and_stands_in_no_answer(visitor):
    answer = visitor.post("/v1/search", {"query": "item", "user": "ada", "limit": 100})
    items = [item["item"] for item in answer.json()["items"]]
    nobody = [item["item"] for item in visitor.find(query="item", limit=100)["items"]]
    assert items.index("i2") < nobody.index("i2") or items[0] == "i2"
    assert "ada" not in answer.text


def test_suggestions(visitor):
    answer = visitor.post("/v1/suggest", {"query": "kitc", "items": 1}).json()
    assert answer["suggestions"] == [{"text": "kitchen", "kind": "category"}]
    assert [item["item"] for item in visitor.post("/v1/suggest", {"query": "gree"}).json()["items"]] == ["g"]
    assert visitor.post("/v1/suggest", {"query": "gree", "items": 0}).json()["items"] == []


def test_synonyms_are_set_listed_and_removed(visitor):
    assert visitor.find(query="boiler")["items"] == []
    for body in ({"name": "b", "same": ["boiler", "kettle"]}, {"name": "c", "from": "brew", "to": ["green tea"]}):
        assert visitor.post("/v1/synonyms", body).json() == {"name": body["name"]}
    assert visitor.find(query="boiler")["items"][0]["item"] == "k"
    assert visitor.find(query="brew")["items"][0]["item"] == "g"
    listed = visitor.ask("GET", "/v1/synonyms").json()["synonyms"]
    assert listed == {"b": {"same": ["boiler", "kettle"]}, "c": {"from": "brew", "to": ["green tea"]}}
    assert visitor.post("/v1/synonyms/remove", {"name": "b"}).status_code == 200
    assert visitor.find(query="boiler")["items"] == []
    assert is_problem(visitor.post("/v1/synonyms/remove", {"name": "b"}), 404)


@pytest.mark.parametrize(
    "body",
    [
        {"name": "a"},
        {"name": "a", "same": ["one"]},
        {"name": "a", "same": ["one", ""]},
        {"name": "a", "same": ["one", "two"], "to": ["three"]},
        {"name": "a", "from": "one"},
        {"name": "a", "from": "one two three four five six seven eight nine", "to": ["ten"]},
        {"name": "a", "same": [f"w{n}" for n in range(101)]},
        {"name": "", "same": ["one", "two"]},
    ],
    ids=str,
)
def test_synonyms_that_are_none_are_refused(visitor, body):
    assert is_problem(visitor.post("/v1/synonyms", body), 422)
    assert visitor.ask("GET", "/v1/synonyms").json()["synonyms"] == {}


def test_the_index_is_rebuilt_on_demand(visitor):
    before = visitor.ask("GET", "/v1/search/index").json()
    assert before == {"items": 15, "whole": True, "language": "english", "building": False}
    assert visitor.ask("POST", "/v1/search/rebuild").json()["building"]
    visitor.search.follower.step()
    assert visitor.ask("GET", "/v1/search/index").json() == before


def test_a_site_without_a_search_has_no_such_routes(make_service):
    assert Visitor(Shop(service=make_service())).post("/v1/search", {"query": "tea"}).status_code == 404
