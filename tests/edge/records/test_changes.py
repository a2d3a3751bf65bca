"""Those who follow the books see everything once, in order, and nothing is taken for something else."""

import threading

import pytest

from edge.records import changes
from edge.records.events import Event, EventType, Item
from edge.records.store import Store

BEGIN = 1_600_000_000_000


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store.db") as opened:
        yield opened


def event(number, *, user="ada", item="tea", **rest):
    return Event(event_id=f"e{number}", type=EventType.PURCHASE, user=user, item=item, time_ms=BEGIN - number, **rest)


def test_a_follower_sees_every_event_once_in_order_of_arrival(store):
    store.add_events([event(1), event(2)])
    store.add_events([event(2), event(3, rec_id="r", session="s", context={"page": "home"})])
    seen, after = [], 0
    while batch := store.events_after(after, 2):
        seen += batch
        after = batch[-1].key
    assert [one.time_ms for one in seen] == [BEGIN - 1, BEGIN - 2, BEGIN - 3]
    assert (seen[2].rec_id, seen[2].session, seen[2].context) == ("r", "s", {"page": "home"})
    assert store.events_after(after, 2) == []


def test_a_search_is_followed_without_an_item(store):
    store.add_events(
        [Event(event_id="s", type=EventType.SEARCH, user="ada", item=None, time_ms=BEGIN, query="green tea")]
    )
    (seen,) = store.events_after(0, 10)
    assert (seen.type, seen.item, seen.query) == (EventType.SEARCH, None, "green tea")


def test_followers_that_write_while_events_arrive_miss_none(store):
    derived = []

    def follow():
        after = 0
        while len(derived) < 200:
            with store.writing() as db:
                batch = changes.events_after(db, after, 7)
                after = batch[-1].key if batch else after
            derived.extend(one.time_ms for one in batch)

    threads = [
        threading.Thread(target=lambda t=t: [store.add_events([event(100 * t + n)]) for n in range(100)])
        for t in range(2)
    ]
    follower = threading.Thread(target=follow)
    for thread in (*threads, follower):
        thread.start()
    for thread in (*threads, follower):
        thread.join()
    assert len(set(derived)) == len(derived) == 200


def test_every_change_of_an_item_is_seen_after_the_mark_before_it(store):
    store.put_items([Item(item="tea", price=1.0), Item(item="milk")])
    mark = store.items_mark()
    assert store.items_after(mark) == []
    store.put_items([Item(item="tea", price=2.0)])
    assert [(item.item, item.price, listed) for _, item, listed in store.items_after(mark)] == [("tea", 2.0, True)]
    assert {item.item for _, item, _ in store.items_after(0)} == {"tea", "milk"}


def test_another_process_sees_the_change_too(store, tmp_path):
    mark = store.items_mark()
    with Store.open(tmp_path / "store.db") as other:
        other.put_items([Item(item="tea")])
    assert [item.item for _, item, _ in store.items_after(mark)] == ["tea"]
