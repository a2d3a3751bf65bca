"""What is older than a site wants to keep goes, nothing else does, and nobody waits for it."""

import asyncio
import threading
from contextlib import suppress

import pytest

from edge.records import retention
from edge.records.events import Event, EventType
from edge.records.store import Store

DAY = 86_400_000
NOW = 1_795_000_000_000


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store.db", durability="normal") as opened:
        yield opened


def event(number, *, age, user="ada", session=None, kind=EventType.PURCHASE):
    item = None if kind is EventType.SEARCH else f"i{number % 5}"
    return Event(event_id=f"e{number}", type=kind, user=user, item=item, time_ms=NOW - age * DAY, session=session)


def test_old_events_go_and_counts_follow(store):
    store.add_events([event(n, age=n) for n in range(1_500)])
    assert retention.sweep(store, before_ms=NOW - 365 * DAY) == 1_500 - 366
    assert store.event_count() == 366
    assert sum(store.popularity().values()) == 366
    assert store.past("ada", limit=9_999).time_ms.min() == NOW - 365 * DAY
    assert retention.sweep(store, before_ms=NOW - 365 * DAY) == 0


def test_whoever_has_nothing_left_is_forgotten_and_others_are_not(store):
    store.add_events(
        [
            event(1, age=100, user="old"),
            event(2, age=100, user=None, session="visit"),
            event(3, age=100, user="both"),
            event(4, age=1, user="both", kind=EventType.SEARCH),
            event(5, age=1, user="new"),
        ]
    )
    store.merge("merged", "old")
    store.merge("idle", "quiet")
    retention.sweep(store, before_ms=NOW - 50 * DAY)
    assert [store.user_known(name) for name in ("old", "both", "new", "quiet")] == [False, True, True, True]
    with store.reading() as db:
        assert db.execute("SELECT session FROM visits").fetchall() == [("idle",)]
        assert db.execute("SELECT count(*) FROM users").fetchone()[0] == 3


def test_keys_of_what_grew_too_old_are_not_given_again(store):
    store.add_events([event(1, age=100, user="old")])
    (last,) = store.events_after(0, 9)
    retention.sweep(store, before_ms=NOW)
    store.add_events([event(2, age=0, user="new")])
    (fresh,) = store.events_after(last.key, 9)
    assert fresh.user != last.user


def test_a_pass_can_be_ended_and_goes_on_later(store):
    store.add_events([event(n, age=100) for n in range(12_000)])
    turns = iter([False, False, True])
    assert retention.sweep(store, before_ms=NOW, pause=lambda: next(turns)) == 1_000
    assert store.event_count() == 11_000
    assert retention.sweep(store, before_ms=NOW) == 11_000


def test_events_are_written_between_the_steps_of_a_pass(store):
    store.add_events([event(n, age=100) for n in range(3_000)])
    written = []

    def pause():
        worker = threading.Thread(
            target=lambda: written.append(store.add_events([event(10_000 + len(written), age=0)]))
        )
        worker.start()
        worker.join()
        return False

    assert retention.sweep(store, before_ms=NOW - DAY, pause=pause) == 3_000
    assert len(written) == 6
    assert store.event_count() == 6


def test_an_edge_that_runs_deletes_what_is_too_old_and_says_how_much(store):
    store.add_events([event(n, age=age) for n, age in enumerate([1, 99, 100, 101, 400])])
    told = []

    async def run():
        ready = asyncio.Event()

        def deleted(count):
            told.append(count)
            ready.set()

        task = asyncio.create_task(retention.watch(store, days=100, now_ms=lambda: NOW, deleted=deleted))
        await asyncio.wait_for(ready.wait(), 30)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert told == [2]
    assert sorted(store.past("ada", limit=9).time_ms.tolist()) == [NOW - age * DAY for age in (100, 99, 1)]


def test_without_a_setting_nothing_is_deleted(store):
    store.add_events([event(1, age=9_000)])

    async def run():
        watch = retention.watch(store, days=None, now_ms=lambda: NOW, deleted=pytest.fail, every=0.001)
        with suppress(TimeoutError):
            await asyncio.wait_for(watch, 0.2)

    asyncio.run(run())
    assert store.event_count() == 1
