"""A real `hanse-edge serve`, killed at the worst moment."""

import signal
import sqlite3

import pytest

from edge.records.store import Store


def bought(folder):
    with sqlite3.connect(folder / "store.db") as db:
        rows = db.execute("SELECT count(*), count(DISTINCT event_id) FROM events").fetchone()
    db.close()
    return rows


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "edge"
    made.mkdir()
    Store.open(made / "store.db").close()
    return made


@pytest.fixture
def edge(folder, broker, till):
    process = till.Process(folder, broker)
    yield process
    process.end(signal.SIGKILL)


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_killed_between_receipt_and_commit_it_loses_nothing_and_counts_nothing_twice(folder, till, broker, edge):
    edge.start()
    holder = sqlite3.connect(folder / "store.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")  # the edge's commit waits for this
    broker.publish(till.event("eva", time=till.NOW), till.event("ben", event_id="e2"), b"no event")
    # The last is refused without the store, so when it is acknowledged the others have come as far as the commit.
    till.waited(lambda: "Received PUBACK from hanse-edge-luebeck" in broker.log())
    assert broker.log().count("Received PUBACK from hanse-edge-luebeck") == 1
    edge.end(signal.SIGKILL)
    holder.execute("ROLLBACK")
    holder.close()
    assert bought(folder) == (0, 0)
    edge.start()
    till.waited(lambda: bought(folder) == (2, 2))
    edge.end(signal.SIGKILL)  # after the commit: they may come once more
    edge.start()
    broker.publish(till.event("cora"))
    till.waited(lambda: bought(folder) == (3, 3))
    assert edge.end() == 0
