"""The list of items as a shop keeps it: changed in part, all or nothing, and seen by those who follow."""

import threading

import pytest

from edge.records.events import Item
from edge.records.store import Store
from tests.edge.api.till import Till


@pytest.fixture
def till(make_service):
    return Till(make_service())


def patch(till, body):
    return till.send("/v1/items", body, method="PATCH")


def names(answer):
    return [one["item"] for one in answer.json()["items"]]


def test_one_item_and_several_are_listed(till):
    assert till.send("/v1/items", {"item": 7, "title": "Seven", "attributes": {"organic": True}}).json() == {
        "changed": 1
    }
    assert till.send("/v1/items", {"items": [{"item": "a", "price": 1}, {"item": "b", "stock": 0}]}).json() == {
        "changed": 2
    }
    seven, a = till.send("/v1/items/read", {"items": [7, "a"]}).json()["items"]
    assert (seven["title"], seven["attributes"], a["price"], a["stock"]) == ("Seven", {"organic": True}, 1.0, None)


def test_the_day_an_item_was_new_stays(till, stocked):
    till.send("/v1/items", {"item": "new"})
    added = stocked.item("new").added_ms
    till.service.now_ms = lambda: added + 10**9
    till.send("/v1/items", {"item": "new", "title": "Not so new"})
    patch(till, {"item": "new", "price": 2})
    assert added is not None
    assert stocked.item("new").added_ms == added


def test_a_change_of_price_and_stock_leaves_the_rest(till, stocked):
    till.send("/v1/items", {"item": "tea", "title": "Tea", "price": 2, "stock": 3, "attributes": {"a": 1, "b": [2]}})
    patch(till, {"item": "tea", "price": 1.5, "stock": None, "attributes": {"b": None, "c": {"d": "e"}}})
    found = stocked.item("tea")
    assert (found.title, found.price, found.stock, found.attributes) == ("Tea", 1.5, None, {"a": 1, "c": {"d": "e"}})


def test_followers_see_a_change_and_nothing_else(till, stocked):
    mark = stocked.items_mark()
    patch(till, {"items": [{"item": "i1", "price": 9}, {"item": "i2", "stock": 0}]})
    assert [(item.item, item.price, item.stock) for _, item, _ in stocked.items_after(mark)] == [
        ("i1", 9.0, None),
        ("i2", None, 0),
    ]


def test_an_unknown_item_is_named_and_nothing_is_changed(till, stocked):
    mark = stocked.items_mark()
    for answer in (
        patch(till, {"items": [{"item": "i1", "price": 9}, {"item": "ghost", "price": 1}]}),
        till.send("/v1/items/remove", {"items": ["i1", "ghost"]}),
    ):
        assert answer.status_code == 404
        assert "ghost is not listed" in answer.json()["detail"]
    assert stocked.item("i1").price is None
    assert stocked.items_mark() == mark


def test_an_item_that_is_taken_off_is_not_offered_and_its_past_stays(till, stocked):
    mark = stocked.items_mark()
    assert till.send("/v1/items/remove", {"items": ["i7"]}).json() == {"changed": 1}
    assert [(item.item, listed) for _, item, listed in stocked.items_after(mark)] == [("i7", False)]
    assert "i7" not in names(till.send("/v1/items/read", {"limit": 100}))
    refused = till.send("/v1/events", {"type": "view", "user": "ada", "item": "i7"})
    assert "i7 is not listed" in refused.json()["detail"]
    assert stocked.history("u1", limit=9)[0] == "i7"


def test_the_next_answer_knows_a_change(till):
    def offered():
        answer = till.send("/v1/recommendations", {"user": "ada", "limit": 13}).json()
        return {one["item"] for one in answer["items"]}

    assert {"i7", "own-pie"} <= offered()
    patch(till, {"item": "i7", "stock": 0})
    assert "i7" not in offered()
    patch(till, {"item": "i7", "stock": 1})
    till.send("/v1/items/remove", {"items": ["own-pie"]})
    till.send("/v1/items", {"item": "own-tart", "category": "pie"})
    assert offered() & {"i7", "own-pie", "own-tart"} == {"i7", "own-tart"}


def test_taking_the_last_item_off_does_not_offer_all_of_them_again(till, stocked):
    every = names(till.send("/v1/items/read", {"limit": 100}))
    till.send("/v1/items/remove", {"items": every})
    assert stocked.has_items()
    assert till.send("/v1/events", {"type": "view", "user": "ada", "item": "i1"}).status_code == 422


def test_pages_hold_every_item_once_while_items_are_listed(till):
    seen, after, more = [], None, True
    while more:
        answer = till.send("/v1/items/read", {"limit": 4, "after": after}).json()
        seen += [one["item"] for one in answer["items"]]
        after, more = answer["next"], answer["more"]
        if len(seen) < 9:
            till.send("/v1/items", {"item": f"late-{len(seen)}"})
    assert len(seen) == len(set(seen)) == 15


def test_what_is_asked_for_and_not_listed_is_named(till):
    answer = till.send("/v1/items/read", {"items": ["i2", "ghost", "i1", "i2"]}).json()
    assert ([one["item"] for one in answer["items"]], answer["missing"]) == (["i2", "i1"], ["ghost"])


@pytest.mark.parametrize(
    "fault",
    [
        {"price": -1},
        {"price": "dear"},
        {"stock": 1.5},
        {"stock": -1},
        {"stock": 2**53},
        {"title": "x" * 1001},
        {"title": None},
        {"title": "a\x00b"},
        {"item": ""},
        {"colour": "red"},
        {"attributes": []},
        {"attributes": {"": 1}},
        {"attributes": {"a\nb": 1}},
        {"attributes": {"deep": [[[[[1]]]]]}},
        {"attributes": {"long": "x" * 20_000}},
    ],
)
def test_what_cannot_be_sold_is_refused_and_nothing_is_written(till, stocked, fault):
    mark = stocked.items_mark()
    good, bad = {"item": "i1", "price": 5}, {"item": "i2", **fault}
    for send in (lambda body: till.send("/v1/items", body), lambda body: patch(till, body)):
        for body in (bad, {"items": [good, bad]}):
            answer = send(body)
            assert answer.status_code in {422, 404} if fault == {"item": ""} else answer.status_code == 422
            assert "\n" not in answer.json()["detail"]
    assert stocked.items_mark() == mark


def test_changes_at_the_same_time_are_all_kept(store):
    store.put_items([Item(item="tea", attributes={})])

    def change(worker):
        with Store.open(store.path) as own:
            for number in range(30):
                own.patch_items([("tea", {"attributes": {f"{worker}-{number}": number}})])

    threads = [threading.Thread(target=change, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.item("tea").attributes) == 90
