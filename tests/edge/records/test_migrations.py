"""A store of an older edge is brought up to date whole or not at all, and nothing in it is lost."""

import sqlite3
import threading

import pytest

from edge.records import migrations
from edge.records.events import Item
from edge.records.store import Store

TABLES = {
    "searches": "query count users found time_ms",
    "search_users": "query user",
    "exposures": "experiment arm user session first_ms count",
    "arm_sums": "experiment arm metric units total squares hits",
    "followers": "name event",
    "documents": "kind name body",
    "visits": "session user",
}


@pytest.fixture
def old(tmp_path):
    """A store of schema 1 with an item and two events in it."""
    path = tmp_path / "store.db"
    with Store.open(tmp_path / "new.db"):
        pass
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA application_id=0x48414E53")
    db.execute("PRAGMA journal_mode=WAL")
    migrations._first_books(db)
    db.execute("PRAGMA user_version=1")
    db.execute("INSERT INTO users (name) VALUES ('ada')")
    db.execute("INSERT INTO items (name, listed, title, category, brand) VALUES ('tea', 1, 'Tea', '', '')")
    for number in (1, 2):
        db.execute(
            "INSERT INTO events (event_id, type, user, item, time_ms, quantity) VALUES (?, 4, 1, 1, ?, 1)",
            (f"e{number}", 10**12 + number),
        )
    db.close()
    return path


def shape(path):
    db = sqlite3.connect(path)
    try:
        return sorted(db.execute("SELECT type, name, tbl_name FROM sqlite_master")), db.execute(
            "PRAGMA user_version"
        ).fetchone()
    finally:
        db.close()


def test_an_old_store_keeps_what_is_in_it_and_gets_the_new_shape(old, tmp_path):
    with Store.open(old) as store:
        assert store.history("ada", limit=9) == ["tea", "tea"]
        assert store.item("tea") == Item(item="tea", title="Tea")
        assert [one.time_ms for one in store.events_after(0, 9)] == [10**12 + 1, 10**12 + 2]
    assert shape(old) == shape(tmp_path / "new.db")


@pytest.mark.parametrize("table", TABLES)
def test_those_who_derive_find_their_tables(old, table):
    with Store.open(old) as store, store.reading() as db:
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    assert columns == TABLES[table].split()


def test_a_step_that_fails_half_way_leaves_the_old_store(old, monkeypatch):
    before = shape(old)

    def half(connection):
        connection.execute("CREATE TABLE half (a)")
        raise KeyboardInterrupt

    monkeypatch.setattr(migrations, "STEPS", (migrations.STEPS[0], half))
    with pytest.raises(KeyboardInterrupt):
        Store.open(old)
    assert shape(old) == before


def test_processes_that_migrate_at_once_do_it_once(old, tmp_path):
    barrier, problems = threading.Barrier(4), []

    def open_it():
        barrier.wait()
        try:
            with Store.open(old) as store:
                assert store.event_count() == 2
        except Exception as error:  # noqa: BLE001 - the test reports it
            problems.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert shape(old) == shape(tmp_path / "new.db")


def test_counts_follow_what_is_deleted(old):
    with Store.open(old) as store:
        with store.writing() as db:
            db.execute("DELETE FROM events WHERE event_id = 'e1'")
        assert store.popularity() == {1: 1}
        with store.writing() as db:
            db.execute("DELETE FROM events")
            assert db.execute("SELECT * FROM counts").fetchall() == []
