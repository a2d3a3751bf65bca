"""A visitor who logs in keeps what they looked at, and a user who wants to be forgotten is forgotten."""

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter

import pytest

from edge.records.events import Event, EventType
from edge.records.store import Store
from protocol.errors import BadInputError

BEGIN = 1_600_000_000_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture
def store(path):
    with Store.open(path, durability="normal") as opened:
        yield opened


def event(number, *, user=None, session=None, item="tea", kind=EventType.VIEW, query=None):
    return Event(
        event_id=f"e{number}",
        type=kind,
        user=user,
        session=session,
        item=item,
        time_ms=BEGIN + number,
        query=query,
    )


def items_of(store, past):
    names = store.item_names()
    return [names[key] for key in past.item.tolist()]


def test_a_visitor_has_a_past_and_is_no_user(store):
    store.add_events([event(1, session="s1", item="a"), event(2, session="s1", item="b"), event(3, session="s2")])
    assert items_of(store, store.past_of_session("s1", limit=9)) == ["a", "b"]
    assert store.past("s1", limit=9).item.tolist() == []
    assert not store.user_known("s1")


def test_a_visitor_that_logs_in_keeps_what_was_looked_at(store):
    store.add_events(
        [event(1, session="s1", item="a"), event(2, user="ada", item="b"), event(3, session="s1", item="c")]
    )
    search = event(4, session="s1", item=None, kind=EventType.SEARCH, query="x")
    store.add_events([search])
    assert store.merge("s1", "ada") == 3
    assert store.history("ada", limit=9) == ["a", "b", "c"]
    assert items_of(store, store.past_of_session("s1", limit=9)) == ["a", "b", "c"]
    assert len({one.user for one in store.events_after(0, 9)}) == 1


def test_merging_again_changes_nothing(store):
    store.add_events([event(1, session="s1")])
    assert (store.merge("s1", "ada"), store.merge("s1", "ada")) == (1, 0)
    assert store.history("ada", limit=9) == ["tea"]


def test_what_the_session_does_later_is_the_users(store):
    store.add_events([event(1, session="s1", item="a")])
    store.merge("s1", "ada")
    store.add_events([event(2, session="s1", item="b")])
    assert store.history("ada", limit=9) == ["a", "b"]


def test_a_session_of_one_user_is_not_taken_by_another(store):
    store.add_events([event(1, session="s1")])
    store.merge("s1", "ada")
    with pytest.raises(BadInputError, match="another user"):
        store.merge("s1", "bob")
    assert (store.history("ada", limit=9), store.user_known("bob")) == (["tea"], False)


def test_a_session_can_be_merged_before_it_does_anything(store):
    assert store.merge("s1", "ada") == 0
    store.add_events([event(1, session="s1")])
    assert store.history("ada", limit=9) == ["tea"]


def test_an_importer_in_another_process_follows_a_merge(store, path):
    store.add_events([event(1, session="s1", item="a")])
    with Store.open(path) as other:
        other.merge("s1", "ada")
    store.add_events([event(2, session="s1", item="b")])
    assert store.history("ada", limit=9) == ["a", "b"]
    assert len({one.user for one in store.events_after(0, 9)}) == 1


def test_what_visitor_and_user_both_searched_for_counts_once(store):
    store.add_events([event(1, session="s1"), event(2, user="ada")])
    visitor, user = (one.user for one in store.events_after(0, 9))
    with store.writing() as db:
        db.execute("INSERT INTO searches VALUES ('tea', 5, 2, 1, 0), ('milk', 5, 1, 1, 0)")
        db.executemany("INSERT INTO search_users VALUES (?, ?)", [("tea", visitor), ("tea", user), ("milk", visitor)])
    store.merge("s1", "ada")
    with store.reading() as db:
        assert db.execute("SELECT query, users FROM searches ORDER BY 1").fetchall() == [("milk", 1), ("tea", 1)]
        assert db.execute("SELECT query, user FROM search_users ORDER BY 1").fetchall() == [
            ("milk", user),
            ("tea", user),
        ]


def filled(store):
    store.add_events([event(n, user=f"person-{n % 5}", item=f"i{n % 7}", kind=EventType.PURCHASE) for n in range(100)])
    store.add_events([event(100, session="visit-1", item="i1", kind=EventType.PURCHASE)])
    store.merge("visit-1", "person-3")
    store.add_events([event(101, user="person-3", item=None, kind=EventType.SEARCH, query="secret wish")])
    with store.writing() as db:
        key = db.execute("SELECT id FROM users WHERE name = 'person-3'").fetchone()[0]
        db.execute("INSERT INTO searches VALUES ('secret wish', 1, 1, 1, 0)")
        db.execute("INSERT INTO search_users VALUES ('secret wish', ?)", (key,))
        db.execute("INSERT INTO exposures VALUES ('x', 'a', ?, '', 1, 1)", (key,))
    return key


def test_a_user_is_gone_with_all_that_is_theirs(store, path):
    key = filled(store)
    erased = store.erase(user="person-3")
    assert (erased.known, erased.events, store.tidy()) == (True, 22, True)
    assert not store.user_known("person-3")
    assert (
        store.past("person-3", limit=9).item.tolist() == store.past_of_session("visit-1", limit=9).item.tolist() == []
    )
    assert key not in store.behaviour().user
    with store.reading() as db:
        for table in ("search_users", "exposures", "visits"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0
        assert db.execute("SELECT count(*) FROM searches").fetchone()[0] == 0
    assert sum(store.popularity().values()) == store.event_count() == 80
    raw = path.read_bytes()
    for trace in (b"person-3", b"visit-1", b"secret wish"):
        assert trace not in raw
    assert b"person-4" in raw
    assert path.with_name("store.db-wal").stat().st_size == 0


def test_erasing_an_unknown_user_says_so(store):
    assert not store.erase(user="nobody").known


def test_an_anonymous_visitor_can_be_erased(store, path):
    store.add_events([event(1, session="visit-77"), event(2, session="visit-78")])
    assert store.erase(session="visit-77").events == 1
    assert store.tidy()
    assert b"visit-77" not in path.read_bytes()
    assert len(store.past_of_session("visit-78", limit=9).item) == 1


def test_a_session_of_a_user_is_not_erased_alone(store):
    store.add_events([event(1, session="s1")])
    store.merge("s1", "ada")
    with pytest.raises(BadInputError, match="belongs to a user"):
        store.erase(session="s1")
    assert store.event_count() == 1


def test_what_was_derived_goes_in_the_same_transaction_or_nothing_goes(store):
    store.add_events([event(n, user="ada", item=f"i{n}") for n in range(3)])

    def fail(db, events):
        assert [one.time_ms for one in events] == [BEGIN, BEGIN + 1, BEGIN + 2]
        db.execute("INSERT INTO followers VALUES ('somebody', 1)")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.erase(user="ada", also=fail)
    assert len(store.history("ada", limit=9)) == 3
    with store.reading() as db:
        assert db.execute("SELECT count(*) FROM followers").fetchone()[0] == 0
    store.add_events([event(9, user="ada", item="i9")])
    assert len(store.history("ada", limit=9)) == 4


def test_the_key_of_somebody_erased_is_never_given_to_another(store):
    store.add_events([event(1, user="ada"), event(2, user="bob")])
    last = store.events_after(0, 9)[-1]
    store.erase(user="bob")
    store.add_events([event(3, user="eve")])
    fresh = store.events_after(0, 9)[-1]
    assert fresh.user > last.user
    assert fresh.key > last.key  # else those who follow the events would miss it


def test_somebody_erased_may_come_back_as_somebody_new(store):
    store.add_events([event(1, user="ada", item="old")])
    store.erase(user="ada")
    assert store.add_events([event(1, user="ada", item="new")]).added == 1
    assert store.history("ada", limit=9) == ["new"]


def test_no_copy_is_left_where_pages_were_split(store, path):
    rng = random.Random(3)
    names = [f"person-{rng.randrange(10**12):012d}" for _ in range(20_000)]
    for batch in range(100):
        store.add_events([event(1000 * batch + n, user=rng.choice(names)) for n in range(300)])
    with store._turn:
        store._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    found = Counter(re.findall(rb"person-\d{12}", path.read_bytes()))
    copied = [name.decode() for name, count in found.items() if count > 2]  # more than in the table and its index
    assert copied, "this SQLite leaves no copies: the search for them has become needless"
    for name in copied[:3]:
        store.erase(user=name)
        assert store.tidy()
        assert name.encode() not in path.read_bytes()


def test_a_name_that_an_item_has_too_is_not_looked_for_there(store, path):
    store.add_events([event(1, user="number-4711"), event(2, user="ada", item="number-4711")])
    store.erase(user="number-4711")
    assert store.tidy()
    assert path.read_bytes().count(b"number-4711") == 2  # the item, and its index


def test_what_a_long_read_holds_up_is_tidied_up_later(store, path):
    store.add_events([event(n, user=f"person-{n}") for n in range(100)])
    with sqlite3.connect(path) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM users").fetchone()
        store.erase(user="person-7")
        assert not store.tidy()
        reader.execute("COMMIT")
    reader.close()
    assert store.tidy()
    assert not re.search(rb"person-7[^0-9]", path.read_bytes())


def test_events_that_arrive_while_their_user_is_erased_are_whole(store):
    """An event is written before the erasure and is gone, or after it and belongs to somebody new."""
    stop = threading.Event()
    problems = []

    def write(worker):
        number = worker
        while not stop.is_set():
            number += 4
            try:
                store.add_events([event(number, user=f"u{number % 3}", session="s")])
                store.add_events([event(number + 2, session=f"v{number % 3}")])
            except Exception as error:  # noqa: BLE001 - the test reports it
                problems.append(error)

    workers = [threading.Thread(target=write, args=(n,)) for n in range(2)]
    for worker in workers:
        worker.start()
    for turn in range(60):
        store.erase(user=f"u{turn % 3}")
        if turn % 2:
            store.merge(f"v{turn % 3}", f"u{turn % 3}")
        else:
            store.erase(session=f"v{turn % 3}")
    stop.set()
    for worker in workers:
        worker.join()
    assert problems == []
    with store.reading() as db:
        assert db.execute("SELECT count(*) FROM events WHERE user NOT IN (SELECT id FROM users)").fetchone()[0] == 0
        assert db.execute("SELECT count(*) FROM visits WHERE user NOT IN (SELECT id FROM users)").fetchone()[0] == 0
    with store.reading() as db:
        assert db.execute("SELECT coalesce(sum(events), 0) FROM counts").fetchone()[0] == store.event_count()


ERASER = """
import sys
from pathlib import Path
from edge.records.store import Store

store = Store.open(Path(sys.argv[1]), durability="normal")
def also(db, events):
    db.execute("DELETE FROM searches")
    print("erasing", flush=True)
for number in range(1, 200):
    erased = store.erase(user=f"u{number}", also=also)
    print(f"u{number}", flush=True)
"""


@pytest.mark.parametrize("moment", [1, 2, 7, 30, 31])
def test_kill_9_while_erasing_leaves_all_or_nothing(path, moment):
    with Store.open(path, durability="normal") as store:
        for user in range(1, 200):
            store.add_events([event(1000 * user + n, user=f"u{user}", item=f"i{n}") for n in range(40)])
    eraser = subprocess.Popen([sys.executable, "-c", ERASER, str(path)], stdout=subprocess.PIPE, text=True)
    heard = []
    for line in eraser.stdout:
        heard.append(line.strip())
        if len(heard) == moment:
            os.kill(eraser.pid, signal.SIGKILL)
            break
    heard += eraser.stdout.read().split()
    eraser.wait()
    eraser.stdout.close()
    confirmed = {line for line in heard if line.startswith("u")}
    with Store.open(path) as store:
        left = {user: len(store.history(f"u{user}", limit=99)) for user in range(1, 200)}
        assert set(left.values()) <= {0, 40}
        assert all(left[int(user[1:])] == 0 for user in confirmed)
        assert sum(left.values()) == store.event_count()
        with store.reading() as db:
            assert all(
                db.execute("SELECT count(*) FROM users WHERE name = ?", (f"u{u}",)).fetchone()[0] == (n > 0)
                for u, n in left.items()
            )
