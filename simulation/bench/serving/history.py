"""How long it takes to read a user's last events, in a store as large as a shop's after years.

The store is made quickly: rows in the order of their keys, with the triggers and indexes of the real schema put back,
and the counts written once, when all rows are in. Then users are drawn by chance and their history is read as serving
does it.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge.records.store import Store

EVENTS_OF_A_USER: Final = 100
ITEMS: Final = 50_000
LINES: Final = 50
READS: Final = 4_000
_BEGIN_MS = 1_600_000_000_000
_PIECE = 200_000
_ADD = "INSERT INTO events (event_id, type, user, item, time_ms, quantity, session) VALUES (?, ?, ?, ?, ?, 1, ?)"
_INDEXES = (
    "SELECT type, name, sql FROM sqlite_master WHERE tbl_name = 'events' AND type IN ('index', 'trigger') AND sql > ''"
)
_COUNT = "INSERT INTO counts SELECT type, item, count(*) FROM events WHERE item IS NOT NULL GROUP BY type, item"


def measure(directory: Path, *, events: int) -> dict[str, float]:
    """Make a store of so many events and read histories from it.

    Args:
        events: at least 1,000; 10 million take two minutes and 2 GB.

    Returns:
        history_p50_us and history_p99_us, of `LINES` events of a random user; bytes_per_event; events.
    """
    path = directory / "history.db"
    users = max(events // EVENTS_OF_A_USER, 1)
    fill(path, events=events, users=users)
    with Store.open(path) as store:
        taken = _reads(store, users=users)
        assert store.event_count() == events
    return {
        "history_p50_us": float(np.percentile(taken, 50)),
        "history_p99_us": float(np.percentile(taken, 99)),
        "bytes_per_event": path.stat().st_size / events,
        "events": events,
    }


def fill(path: Path, *, events: int, users: int) -> None:
    """A store in its real shape with events of random users in it."""
    Store.open(path).close()
    rng = np.random.default_rng(20_261_121)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for pragma in ("synchronous=OFF", "journal_mode=OFF", "cache_size=-262144", "temp_store=MEMORY"):
            db.execute(f"PRAGMA {pragma}")
        kept = db.execute(_INDEXES).fetchall()
        for kind, name, _ in kept:
            db.execute(f"DROP {kind} {name}")
        db.execute("BEGIN")
        db.executemany("INSERT INTO users (id, name) VALUES (?, ?)", ((n, f"user-{n}") for n in range(1, users + 1)))
        db.executemany("INSERT INTO items (id, name) VALUES (?, ?)", ((n, f"item-{n}") for n in range(1, ITEMS + 1)))
        for first in range(0, events, _PIECE):
            db.executemany(_ADD, _rows(rng, first, min(_PIECE, events - first), users=users))
        db.execute(_COUNT)
        for _, _, statement in kept:
            db.execute(statement)
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode=WAL")


def _rows(rng: np.random.Generator, first: int, count: int, *, users: int) -> Iterator[tuple[Any, ...]]:
    who = rng.integers(1, users + 1, count).tolist()
    what = rng.integers(1, ITEMS + 1, count).tolist()
    kind = rng.choice(4, count, p=(0.7, 0.15, 0.05, 0.1)).tolist()
    for n in range(count):
        key = first + n
        yield f"event-{key}", kind[n] + 1, who[n], what[n], _BEGIN_MS + key * 10, f"session-{key // 8}"


def _reads(store: Store, *, users: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """float64[n], µs a read."""
    drawn = [f"user-{n}" for n in np.random.default_rng(7).integers(1, users + 1, READS)]
    taken = np.empty(READS)
    for place, user in enumerate(drawn):
        began = time.perf_counter()
        past = store.past(user, limit=LINES)
        taken[place] = (time.perf_counter() - began) * 1e6
        assert len(past.item) <= LINES
    return taken
