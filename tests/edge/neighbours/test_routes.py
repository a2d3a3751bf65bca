"""Related, trending and explanations over HTTP, as a shop asks for them."""

import asyncio

import httpx
import pytest

from edge.api.app import build_app
from edge.neighbours.neighbours import Neighbours
from edge.records.events import Item
from edge.shop import Shop

NOW_MS = 1_795_000_000_000


class Page:
    """A shop's page, which asks the app itself; a handler that raises answers 500, as a server would."""

    def __init__(self, shop):
        self._transport = httpx.ASGITransport(build_app(shop, api_keys=None), raise_app_exceptions=False)

    def ask(self, method, path, **parts):
        async def ask():
            async with httpx.AsyncClient(transport=self._transport, base_url="http://edge") as client:
                return await client.request(method, path, **parts)

        return asyncio.run(ask())

    def post(self, path, **body):
        return self.ask("POST", path, json=body)

    def get(self, path, **params):
        return self.ask("GET", path, params=params)


@pytest.fixture
def page(make_service, stocked, diary, half_lives):
    """Everybody buys i1 with i2, and looks at i1 beside i3; i9 is new and wanted."""
    for number in range(8):
        stocked.add_events(diary.basket(f"w{number}", ["i1", "i2"], minute=-number))
        looks = [diary.event(f"x{number}", item, minute=-number, kind="view") for item in ("i1", "i3")]
        stocked.add_events(looks)
    for day in range(30):
        stocked.add_events([diary.event(f"y{n}", "i5", minute=-day * 1440 - n) for n in range(5)])
    stocked.add_events([diary.event(f"z{n}", "i9", minute=-n) for n in range(14)])
    service = make_service()
    neighbours = Neighbours(stocked, half_lives, now_ms=lambda: NOW_MS)
    neighbours.follow()
    service.recommender.listening.neighbours = neighbours
    return Page(Shop(service=service, neighbours=neighbours))


@pytest.fixture
def bare(make_service):
    """An edge that has followed nothing yet."""
    return Page(Shop(service=make_service()))


def names(response):
    assert response.status_code == 200, response.text
    return [entry["item"] for entry in response.json()["items"]]


def problem(response):
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert body["status"] == response.status_code
    return response.status_code


def test_bought_together_and_viewed_together_are_two_answers(page):
    bought = page.post("/v1/related", item="i1", kind="bought", limit=1)
    assert names(bought) == ["i2"]
    assert (bought.json()["rung"], bought.json()["degraded"]) == ("companions", False)
    assert bought.json()["rec_id"]
    assert names(page.post("/v1/related", item="i1", kind="viewed", limit=1)) == ["i3"]
    assert set(names(page.post("/v1/related", item="i1", limit=2))) == {"i2", "i3"}


def test_too_few_companions_are_filled_up_and_the_answer_says_so(page):
    answer = page.post("/v1/related", item="i1", kind="bought", limit=4)
    assert names(answer)[0] == "i2"
    assert len(set(names(answer))) == 4
    assert answer.json()["reasons"] == ["no_companions"]
    scores = [entry["score"] for entry in answer.json()["items"]]
    assert scores == sorted(scores, reverse=True)


def test_what_is_in_the_basket_is_not_named_again(page):
    assert "i2" not in names(page.post("/v1/related", items=["i1", "i2"], limit=5))


def test_a_filter_and_excluded_items_hold_for_related_and_trending(page):
    fish = {"i2", "i4", "i6", "i8", "i10", "i12"}
    asked = {"filter": {"category": ["fish"]}, "exclude": ["i2"]}
    assert set(names(page.post("/v1/related", item="i1", limit=5, **asked))) <= fish - {"i2"}
    assert set(names(page.post("/v1/trending", limit=5, **asked))) <= fish - {"i2"}


def test_what_is_rising_is_first_and_what_sells_every_day_follows(page):
    answer = page.post("/v1/trending", limit=3)
    assert names(answer)[0] == "i9"
    first = answer.json()["items"][0]
    assert first["rise"] > 2
    assert first["score"] > 0
    assert answer.json()["rung"] == "trending"


def test_trending_can_be_asked_without_a_body(page):
    assert names(page.get("/v1/trending", limit=2)) == names(page.post("/v1/trending", limit=2))
    assert set(names(page.get("/v1/trending", limit=5, category=["fish", "pie"]))) <= {
        *(f"i{row}" for row in range(2, 13, 2)),
        "own-pie",
    }


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": "many"}, {"user": "ada"}, {"limit": [1, 2]}])
def test_a_url_that_means_nothing_is_refused(page, params):
    response = page.get("/v1/trending", **params)
    assert response.status_code == 200 if params == {"limit": [1, 2]} else problem(response) == 422


def test_what_else_is_asked_for_of_each_item_is_told(page):
    for path, body in (("/v1/related", {"item": "i1"}), ("/v1/trending", {})):
        answer = page.post(path, limit=2, fields=["category"], **body)
        assert all(entry["fields"]["category"] in {"tea", "fish", "pie"} for entry in answer.json()["items"])
        assert problem(page.post(path, limit=2, fields=["shoe size"], **body)) == 422


def test_before_anything_happened_popularity_answers_and_says_so(bare):
    answer = bare.post("/v1/trending", limit=2)
    assert names(answer)[0] == "i7"
    assert (answer.json()["rung"], answer.json()["reasons"]) == ("popularity", ["no_trends"])
    related = bare.post("/v1/related", item="i1", limit=3)
    assert len(names(related)) == 3
    assert "no_companions" in related.json()["reasons"]
    assert bare.post("/v1/explanations", user="ada", item="i2").json()["items"][0]["because"]


def test_an_explanation_names_events_with_their_times(page):
    answer = page.post("/v1/explanations", user="ada", item="i2", limit=3)
    (told,) = answer.json()["items"]
    assert answer.json()["rung"] == "habits"
    assert len(told["because"]) == 3
    event = next(why for why in told["because"] if why["kind"] == "event")
    assert (event["item"], event["type"]) == ("i2", "purchase")
    assert event["time"].startswith("2026-")
    assert event["text"].startswith("You bought “Item i2” on 2026-")
    assert {why["kind"] for why in told["voices"]} >= {"habits", "popularity"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/related", {}),
        ("/v1/related", {"item": "i1", "items": ["i2"]}),
        ("/v1/related", {"item": "i1", "kind": "guessed"}),
        ("/v1/related", {"items": [f"i{n}" for n in range(21)]}),
        ("/v1/explanations", {"item": "i1"}),
        ("/v1/explanations", {"item": "i1", "user": "ada", "history": []}),
        ("/v1/explanations", {"user": "ada"}),
        ("/v1/explanations", {"user": "ada", "items": [f"i{n}" for n in range(11)]}),
        ("/v1/explanations", {"user": "ada", "item": "i1", "context": {"shoe": "9"}}),
        ("/v1/trending", {"limit": 101}),
        ("/v1/trending", {"where": "price < 2"}),
    ],
)
def test_a_body_that_means_nothing_is_refused_with_one_clear_line(page, path, body):
    assert problem(page.post(path, **body)) == 422


def test_an_item_that_nobody_knows_is_not_found(page):
    assert problem(page.post("/v1/related", item="unheard-of")) == 404
    assert problem(page.post("/v1/explanations", user="ada", item="unheard-of")) == 404


def test_a_strange_user_or_session_gets_an_explanation_all_the_same(page):
    for who in ({"user": "stranger"}, {"session": "s-77"}, {"history": ["nobody-knows-it"]}):
        told = page.post("/v1/explanations", items=["i1", "own-pie"], context={"region": "north"}, **who).json()[
            "items"
        ]
        assert [item["item"] for item in told] == ["i1", "own-pie"]


def test_no_user_stands_in_a_metric_and_the_follower_reports(make_service, stocked, half_lives, diary):
    service = make_service()

    def note(events, seconds):
        service.metrics.note_following("neighbours", events, seconds)

    neighbours = Neighbours(stocked, half_lives, now_ms=lambda: NOW_MS, note=note)
    stocked.put_items([Item(item="tea")])
    stocked.add_events(diary.basket("ada-the-user", ["tea", "i1"]))
    neighbours.start()
    while neighbours.behind():
        neighbours._end.wait(0.02)
    neighbours.stop()
    page = service.metrics.page().decode()
    assert 'hanse_edge_following_events_behind{book="neighbours"} 0.0' in page
    assert "ada-the-user" not in page
