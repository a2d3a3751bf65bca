"""Recommendations as a shop asks for them: filters, scenarios, fields, campaigns."""

import asyncio

import httpx
import pytest

from edge.api.app import build_app
from edge.records.events import Item
from edge.shop import Shop

DAY_MS = 86_400_000
NOW_MS = 1_795_000_000_000


class Counter:
    """The app without keys, as a shop's pages ask it."""

    def __init__(self, service):
        self.service = service
        self.app = build_app(Shop(service=service), api_keys=None)

    def ask(self, method, path, **parts):
        async def asking():
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
                return await client.request(method, path, **parts)

        return asyncio.run(asking())

    def post(self, path, **body):
        return self.ask("POST", path, json=body)

    def set(self, path, **body):
        answer = self.post(path, **body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def items(self, **body):
        answer = self.post("/v1/recommendations", **{"user": "ada", **body})
        assert answer.status_code == 200, answer.text
        return answer.json()["items"]

    def names(self, **body):
        return [item["item"] for item in self.items(**body)]


@pytest.fixture
def counter(make_service, load_release, stocked):
    stocked.put_items(
        [
            Item(
                item="own-cake",
                title="Cake",
                category="pie",
                brand="own",
                price=9.5,
                stock=2,
                attributes={"img": "/c.webp"},
            ),
            Item(item="own-tart", title="Tart", category="pie", brand="acme", price=4.1, stock=0),
        ]
    )
    return Counter(make_service(load_release(3)))


def refused(answer):
    assert answer.status_code == 422, answer.text
    assert "\n" not in answer.json()["detail"]
    return answer.json()["detail"]


def test_a_filter_with_everything_in_it(counter):
    wanted = {
        "category": ["pie", "tea"],
        "brand": ["own"],
        "price": {"min": 2, "max": 10},
        "in_stock": True,
        "attributes": {"img": ["/c.webp", "/d.webp"]},
        "where": 'price < 9.9 and not brand == "acme"',
    }
    assert counter.names(filter=wanted) == ["own-cake"]
    assert counter.names(filter={**wanted, "where": "price < 9"}) == []


def test_what_is_sold_out_is_not_recommended(counter):
    assert "own-tart" not in counter.names(filter={"category": ["pie"]})


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"where": "prize < 3"}, "no item has a prize"),
        ({"where": "__import__('os').system('true')"}, "Call may not stand in a condition"),
        ({"where": "price < 10**10**10"}, "BinOp may not stand in a condition"),
        ({"where": "(" * 500}, "too many nested parentheses"),
        ({"attributes": {"imge": "x"}}, "did you mean img?"),
        ({"colour": ["red"]}, "filter.colour"),
    ],
)
def test_a_wrong_filter_says_what_is_wrong(counter, wanted, told):
    for path, body in (("recommendations", {"user": "ada"}), ("similar", {"item": "i1"})):
        assert told in refused(counter.post(f"/v1/{path}", **body, filter=wanted))


def test_a_shop_needs_no_second_look_up(counter):
    fields = ["price", "brand", "category", "stock", "img"]
    first, *_ = counter.items(filter={"items": ["own-cake"]}, fields=fields)
    assert first["fields"] == {"price": 9.5, "brand": "own", "category": "pie", "stock": 2.0, "img": "/c.webp"}
    shared, *_ = counter.items(filter={"items": ["i2"]}, fields=fields)
    assert shared["fields"] == {"price": 1.5, "brand": "own", "category": "fish"}
    assert "no item has a prize" in refused(counter.post("/v1/recommendations", user="ada", fields=["prize"]))
    similar = counter.post("/v1/similar", item="i1", limit=2, fields=["price"]).json()["items"]
    assert [item["fields"] for item in similar] == [{"price": 1.5}] * 2


def test_a_list_of_ones_own_is_ranked(counter):
    listed = ["i11", "i7", "i2", "own-cake"]
    assert set(counter.names(filter={"items": listed})) == set(listed)
    assert counter.names(filter={"items": listed})[0] == "i2"  # what ada always buys


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": "ada", "history": []},
        {"session": "s1", "history": []},
        {"user": "ada", "timeout_ms": 0},
        {"user": "ada", "timeout_ms": 1e9},
        {"user": "ada", "context": {"weather": "rain"}},
        {"user": "ada", "context": {"region": "\x00"}},
        {"user": "ada", "scenario": "cellar"},
        {"user": "ada", "fields": ["x"] * 21},
        {"user": "ada", "items": ["x"] * 101},
    ],
)
def test_a_wrong_question_is_a_problem(counter, body):
    refused(counter.post("/v1/recommendations", **body))


@pytest.mark.parametrize(
    "who", [{"user": "ada"}, {"user": "ada", "session": "s1"}, {"session": "s1"}, {"history": ["i1"]}, {"history": []}]
)
def test_everybody_may_ask(counter, who):
    answer = counter.post("/v1/recommendations", **who, limit=2, context={"region": "north", "page": "/"})
    assert answer.status_code == 200
    assert len(answer.json()["items"]) == 2
    assert answer.json()["skipped"] == []


def test_a_basket_never_holds_what_it_offers(counter):
    assert not {"i2", "i7"} & set(counter.names(scenario="basket", items=["i2", "i7"], limit=12))


def test_what_was_bought_is_hidden_where_a_scenario_says_so(counter):
    assert counter.names(limit=1) == ["i2"]
    counter.set("/v1/scenarios", name="home", bought="hide")
    assert "i2" not in counter.names(limit=12)


def test_what_is_sold_out_leaves_a_scenario_at_once(counter, stocked):
    counter.set(
        "/v1/scenarios", name="home", filter={"category": ["pie"]}, rules=[{"do": "exclude", "items": ["own-pie"]}]
    )
    assert counter.names() == ["own-cake"]
    stocked.put_items([Item(item="own-cake", category="pie", stock=0), Item(item="own-tart", category="pie", stock=1)])
    counter.service.follow_items()
    assert counter.names() == ["own-tart"]


def test_an_item_in_view_draws_what_is_like_it(counter):
    """The toy model puts every item nearest to its neighbours by number."""
    counter.set("/v1/scenarios", name="product", anchor={"similar": 50})
    assert set(counter.names(history=[], user=None, scenario="product", items=["i6"], limit=2)) == {"i5", "i7"}


def test_an_email_shows_only_what_is_left_and_not_all_of_one_kind(counter):
    answer = counter.items(scenario="email", limit=12, fields=["category"])
    categories = [item["fields"]["category"] for item in answer]
    assert max(categories.count(each) for each in categories) <= 3


def test_a_scenario_is_obeyed_by_the_next_answer(counter):
    first = counter.names(limit=3)
    told = counter.set("/v1/scenarios", name="home", rules=[{"do": "pin", "items": ["i12", "i99"], "position": 2}])
    assert told == {"name": "home", "unknown": ["i99"]}
    pinned = counter.items(limit=3)
    assert [item["item"] for item in pinned] == [first[0], "i12", first[1]]
    assert pinned[1]["pinned"] is True
    assert "pinned" not in pinned[0]


def test_a_campaign_is_marked_in_the_answer(counter):
    counter.set("/v1/promotions", name="pie-week", filter={"category": ["pie"]}, placement={"positions": [2]})
    answer = counter.items(limit=3)
    assert [item.get("promotion") for item in answer] == [None, "pie-week", None]
    assert answer[1]["item"] in {"own-pie", "own-cake"}
    assert counter.names(limit=3, exclude=["own-pie", "own-cake"]) == counter.names(
        limit=3, scenario="plain", exclude=["own-pie", "own-cake"]
    )


def test_a_budget_of_impressions_is_kept(counter):
    counter.set("/v1/promotions", name="pie-week", items=["own-cake"], impressions=3)
    shown = [any("promotion" in item for item in counter.items()) for _ in range(5)]
    assert shown == [True, True, True, False, False]
    (listed,) = counter.ask("GET", "/v1/promotions").json()["promotions"]
    assert (listed["shown"], listed["running"]) == (3, False)


@pytest.mark.parametrize(
    ("audience", "meant"),
    [
        ({}, {"ada", "eve", "u1", "vic"}),
        ({"new_users": True}, {"eve", "vic"}),
        ({"interest": {"category": ["pie"], "did": "bought", "days": 90}}, {"u1"}),
        ({"interest": {"category": ["pie"], "did": "viewed", "days": 90}}, {"u1", "vic"}),
        ({"interest": {"category": ["pie"], "did": "viewed", "days": 60}}, set()),
        ({"interest": {"category": ["fish", "pie"], "days": 365}}, {"ada", "u1", "vic"}),
        ({"interest": {"category": ["pie"], "days": 365}, "new_users": True}, {"vic"}),
        ({"regions": ["north"]}, {"ada", "eve", "u1", "vic"}),
        ({"regions": ["south"]}, set()),
        ({"arm": "colours/b"}, set()),
    ],
)
def test_a_campaign_means_its_audience(counter, stocked, buy, audience, meant):
    """U1 bought a pie 80 days ago, vic looked at one, ada buys fish; nobody knows eve."""
    stocked.add_events([buy("vic", "own-pie", day=20, type="view")])
    counter.set("/v1/promotions", name="week", items=["own-cake"], audience=audience)
    asked = {user: counter.items(user=user, context={"region": "north"}) for user in ("ada", "eve", "u1", "vic")}
    assert {user for user, items in asked.items() if any("promotion" in item for item in items)} == meant


def test_a_campaign_runs_from_its_start_until_before_its_end(counter):
    for start, end, runs in [(0, 1, True), (1, 2, False), (-2, 0, False), (-2, 1, True)]:
        times = {"start": (NOW_MS + start * DAY_MS), "end": (NOW_MS + end * DAY_MS)}
        counter.set("/v1/promotions", name="week", items=["own-cake"], **times)
        assert any("promotion" in item for item in counter.items()) is runs


def test_the_best_campaign_for_a_user(counter):
    counter.set(
        "/v1/promotions", name="fish-week", title="Fish", filter={"category": ["fish"]}, data={"banner": "/f.png"}
    )
    counter.set("/v1/promotions", name="pie-week", items=["own-pie", "own-cake"])
    counter.set("/v1/promotions", name="elsewhere", items=["i2"], placement={"scenarios": ["email"]})
    answer = counter.post("/v1/recommendations/promotions", user="ada").json()
    best, other = answer["promotions"]
    assert (best["name"], best["title"], best["data"]) == ("fish-week", "Fish", {"banner": "/f.png"})
    assert best["items"][0]["item"] == "i2"
    assert len(best["items"]) == 5
    assert other["name"] == "pie-week"
    assert best["score"] > other["score"]
    assert answer["rec_id"]
    assert len(counter.post("/v1/recommendations/promotions", user="ada", limit=1).json()["promotions"]) == 1


def test_without_campaigns_there_is_none_to_recommend(counter):
    assert counter.post("/v1/recommendations/promotions", history=[]).json()["promotions"] == []


def test_a_newcomer_is_explored_once_the_site_reports_impressions(counter, stocked, buy):
    explores = {"positions": [2], "epsilon": 1, "impressions": 5}
    counter.set("/v1/scenarios", name="home", exploration=explores)
    assert all("explored" not in item for item in counter.items())  # nobody would learn from it
    stocked.add_events([buy("ada", "i1", day=day, type="impression") for day in range(3)])
    counter.service.arranging._newcomers._kept.clear()  # a minute later
    second = counter.items(propensity=True)[1]
    assert second["explored"] is True
    assert 0 < second["propensity"] < 1
    assert [item["propensity"] for item in counter.items(propensity=True, scenario="plain")] == [1.0] * 10
