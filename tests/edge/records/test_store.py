"""The books of a site: nothing written is lost, nothing is written twice, and damage is told, not made worse."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest
import sqlite_utils

from edge.records.events import Event, EventType, Item
from edge.records.store import Store
from protocol.errors import BadInputError, NoSpaceError, UnavailableError

BEGIN = 1_600_000_000_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books" / "store.db"


@pytest.fixture
def store(path):
    with Store.open(path) as opened:
        yield opened


def event(number, *, user="ada", item="tea", kind=EventType.PURCHASE, time_ms=None):
    return Event(
        event_id=f"e{number}",
        type=kind,
        user=user,
        item=item,
        time_ms=BEGIN + number if time_ms is None else time_ms,
    )


def test_the_same_event_twice_is_one_event(store):
    assert store.add_events([event(1), event(1), event(2)]).duplicates == 1
    outcome = store.add_events([event(2), event(3)])
    assert (outcome.added, outcome.duplicates) == (1, 1)
    assert store.event_count() == 3
    assert store.purchase_counts("ada")["tea"].lines == 3


def test_history_is_the_newest_and_reads_oldest_first(store):
    store.add_events([event(number, item=f"i{number}") for number in (3, 1, 2, 5, 4)])
    assert store.history("ada", limit=3) == ["i3", "i4", "i5"]
    assert store.history("nobody", limit=3) == []


def test_a_late_event_takes_its_place_in_time(store):
    store.add_events([event(10, item="new")])
    store.add_events([event(1, item="old")])
    assert store.history("ada", limit=5) == ["old", "new"]


def test_one_basket_keeps_the_order_in_which_it_was_rung_up(store):
    basket = ["tea", "apple", "zebra", "milk"]
    store.add_events([event(n, item=item, time_ms=BEGIN) for n, item in enumerate(basket)])
    assert store.history("ada", limit=4) == basket
    assert [store.item_names()[key] for key in store.behaviour().item] == basket


def test_only_what_a_user_wanted_is_history(store):
    store.add_events([event(number, item=kind.value, kind=kind) for number, kind in enumerate(EventType)])
    assert store.history("ada", limit=99) == ["view", "click", "add_to_cart", "purchase"]
    assert store.past("ada", limit=99).purchased.tolist() == [False, False, False, True]
    assert store.event_count() == len(EventType)


def test_baskets_are_distinct_times(store):
    store.add_events([event(1, time_ms=BEGIN), event(2, time_ms=BEGIN), event(3, time_ms=BEGIN + 9)])
    count = store.purchase_counts("ada")["tea"]
    assert (count.lines, count.baskets, count.last_ms) == (3, 2, BEGIN + 9)


def test_behaviour_is_sorted_by_user_and_time(store):
    numbers = np.random.default_rng(1).permutation(500).tolist()
    store.add_events([event(n, user=f"u{n % 7}", item=f"i{n % 31}") for n in numbers])
    columns = store.behaviour()
    order = np.lexsort((columns.time_ms, columns.user))
    assert (order == np.arange(500)).all()
    assert set(store.item_names().values()) == {f"i{n}" for n in range(31)}


def test_a_search_without_an_item_is_kept_and_recommends_nothing(store):
    search = Event(event_id="s", type=EventType.SEARCH, user="ada", item=None, time_ms=BEGIN, query="tea")
    store.add_events([search])
    assert (store.event_count(), store.history("ada", limit=5)) == (1, [])


def test_popularity_counts_purchases_once(store):
    store.add_events([event(1), event(2), event(3, kind=EventType.VIEW), event(4, item="fish")])
    store.add_events([event(1), event(4, item="fish")])
    names = store.item_names()
    assert {names[key]: count for key, count in store.popularity().items()} == {"tea": 2, "fish": 1}


def test_listing_an_item_again_replaces_it(store):
    store.add_events([event(1)])
    assert store.item("tea") is None
    store.put_items([Item(item="tea", title="Tea", category="drinks", price=2.5, stock=3, attributes={"green": True})])
    store.put_items([Item(item="tea", title="Green tea")])
    assert store.item("tea") == Item(item="tea", title="Green tea")
    assert [item.item for _, item in store.items()] == ["tea"]
    assert store.unlisted(["tea", "ghost"]) == {"ghost"}


def test_history_is_one_read_of_a_covering_index(store):
    statements = []
    reader = store._reader()
    reader.set_trace_callback(statements.append)
    store.past("ada", limit=50)
    reader.set_trace_callback(None)
    plan = " ".join(row[3] for row in reader.execute(f"EXPLAIN QUERY PLAN {statements[-1]}"))
    assert "USING COVERING INDEX events_history" in plan
    assert "TEMP B-TREE" not in plan


def test_a_reader_never_waits_for_the_writer(store):
    store.add_events([event(1)])
    with store.writing() as db:
        db.execute("INSERT INTO users (name) VALUES ('half written')")
        assert store.history("ada", limit=1) == ["tea"]
        assert not store.user_known("half written")


def test_a_failed_batch_leaves_nothing_behind(store):
    impossible = Event(event_id="x", type=EventType.VIEW, user="eve", item="y", time_ms=2**70)
    with pytest.raises(OverflowError):
        store.add_events([event(1), impossible])
    assert store.event_count() == 0
    assert not store.user_known("ada")
    store.add_events([event(1)])


def test_threads_may_write_at_once(store):
    threads = [
        threading.Thread(target=lambda t=t: [store.add_events([event(100 * t + n)]) for n in range(20)])
        for t in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.event_count() == 80


WRITER = """
import sys
from pathlib import Path
from edge.records.events import Event, EventType
from edge.records.store import Store

store = Store.open(Path(sys.argv[1]), durability=sys.argv[2])
for batch in range(10**6):
    store.add_events(
        Event(event_id=f"{batch}-{n}", type=EventType.PURCHASE, user=f"u{n}", item=f"i{batch}", time_ms=10**12)
        for n in range(50)
    )
    print(batch, flush=True)
"""


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_kill_9_loses_no_committed_event(path, durability):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), durability], stdout=subprocess.PIPE, text=True)
    for line in writer.stdout:
        if line.strip() == "30":
            os.kill(writer.pid, signal.SIGKILL)
            break
    rest = writer.stdout.read().split()
    writer.wait()
    writer.stdout.close()
    confirmed = int(rest[-1] if rest else 30) + 1
    with Store.open(path) as store:
        assert store.event_count() >= confirmed * 50
        assert store.event_count() % 50 == 0
        assert len(store.behaviour().user) == store.event_count() == sum(store.popularity().values())


def written(path):
    with Store.open(path) as store:
        store.add_events([event(number, user=f"u{number % 50}") for number in range(3000)])
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["half", "one page", "nothing", "garbage", "a text", "header only"])
def test_damaged_store_is_told_and_left_as_it_is(path, damage):
    whole = written(path)
    damaged = {
        "half": whole[: len(whole) // 2],
        "one page": whole[:4096],
        "nothing": b"",
        "garbage": os.urandom(9000),
        "a text": b"user,item,time\n" * 50,
        "header only": whole[:60],
    }[damage]
    path.write_bytes(damaged)
    with pytest.raises(BadInputError) as refused:
        Store.open(path)
    assert str(path) in refused.value.line()
    assert "backup" in refused.value.line()
    assert ("has been cut" in refused.value.line()) == (damage in {"half", "one page"})
    assert "\n" not in refused.value.line()
    assert path.read_bytes() == damaged


def test_damage_inside_is_told_when_it_is_met(path):
    whole = bytearray(written(path))
    whole[8192:-4096] = os.urandom(len(whole) - 8192 - 4096)
    path.write_bytes(whole)
    with pytest.raises(BadInputError, match="damaged"), Store.open(path) as store:
        store.behaviour()


def test_the_database_of_somebody_else_is_not_touched(path):
    path.parent.mkdir()
    other = sqlite_utils.Database(path)
    other["notes"].insert({"text": "not yours"})
    other.close()
    before = path.read_bytes()
    with pytest.raises(BadInputError, match="not the store of an edge"):
        Store.open(path)
    assert path.read_bytes() == before


def test_the_store_of_a_newer_edge_is_not_touched(path):
    written(path)
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA user_version=99")
    raw.close()
    with pytest.raises(BadInputError, match="upgrade"):
        raise_line(path)


def raise_line(path):
    try:
        Store.open(path)
    except BadInputError as error:
        raise BadInputError(error.line()) from error


def test_full_disk_writes_nothing_by_halves(store):
    store.add_events([event(1)])
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(NoSpaceError, match="full"):
        store.add_events([event(number, user="u" * 200, item=f"i{number}" * 20) for number in range(2, 5000)])
    assert store.event_count() == 1
    store._writer.execute("PRAGMA max_page_count=1000000")
    assert store.add_events([event(2)]).added == 1


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UnavailableError, match="cannot be opened"):
        Store.open(tmp_path / "file" / "store.db")


def test_those_who_make_the_store_at_once_share_it(path):
    barrier = threading.Barrier(4)
    problems = []

    def open_and_write(number):
        barrier.wait()
        try:
            with Store.open(path) as store:
                store.add_events([event(number)])
        except Exception as error:  # noqa: BLE001 - the test reports it
            problems.append(error)

    threads = [threading.Thread(target=open_and_write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    with Store.open(path) as store:
        assert store.event_count() == 4
    assert sorted(file.name for file in path.parent.iterdir()) == ["store.db"]


def test_commits_of_another_process_are_noticed(store, path):
    before = store.foreign_commits()
    store.add_events([event(1)])
    assert store.foreign_commits() == before
    with Store.open(path) as other:
        other.add_events([event(2)])
    assert store.foreign_commits() != before
