"""`/v1/events` against SQLite alone, in the same mode of durability and into the same tables.

Both sides take turns after a few writes: how long a disk takes differs by ten times from second to second.
"""

import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from edge.records import schema
from edge.records.events import EventType
from edge.records.schema import CODE
from simulation.bench.growth import Advance
from simulation.bench.serving import caller
from simulation.bench.serving.caller import Server
from simulation.bench.serving.server import SERVER_CORE, here
from simulation.bench.serving.shop import NOW_MS, Shop

_TYPES = (EventType.VIEW, EventType.CLICK, EventType.ADD_TO_CART, EventType.PURCHASE)
_IN_TURN = 20
_INSERT = "INSERT INTO events (event_id, type, user, item, time_ms, quantity) VALUES (?, ?, ?, ?, ?, ?)"

_Rows: TypeAlias = list[tuple[object, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is written.

    Attributes:
        rounds: every side once a round; the first does not count.
        singles: events of one request each, in each round.
        bulks: requests of `size` events each, in each round.
    """

    rounds: int = 7
    singles: int = 400
    bulks: int = 10
    size: int = 1_000


def steps(plan: Plan) -> int:
    """How often `measure` will call ``advance``."""
    return plan.rounds


def measure(shop: Shop, plan: Plan, *, scratch: Path, advance: Advance) -> dict[str, Any]:
    """Events per second of one client who waits for each answer, and of SQLite called directly.

    Returns:
        both rates of both kinds of writing, from the median of their times, and their ratios.
    """
    server = Server(port=shop.port, key=shop.key)
    waited: dict[str, list[float]] = {"single": [], "single_bare": [], "bulk": [], "bulk_bare": []}
    with _bare_store(shop, scratch / "bare.db") as bare, server.connected() as line:
        for turn in range(plan.rounds + 1):
            rows = _rows(shop, plan.singles, turn)
            once = _by_turns(line, bare, _singles(shop, server, plan, turn), _parts(rows, 1))
            if turn:  # the first does not count
                _note(waited, "single", once)
        # Last, since an edge is busy with what it derives from so many events for a while.
        for turn in range(plan.rounds + 1):
            rows = _rows(shop, plan.bulks * plan.size, turn + 1_000)
            once = _by_turns(line, bare, _bulks(shop, server, plan, turn), _parts(rows, plan.size))
            if turn:
                advance("events")
                _note(waited, "bulk", once)
    middle = {name: median(seconds) for name, seconds in waited.items()}
    sizes = {"single": 1, "single_bare": 1, "bulk": plan.size, "bulk_bare": plan.size}
    return {f"{name}_per_second": sizes[name] / seconds for name, seconds in middle.items()} | {
        "event_single_ratio": middle["single_bare"] / middle["single"],
        "event_bulk_ratio": middle["bulk_bare"] / middle["bulk"],
    }


def _events(shop: Shop, count: int, turn: int) -> list[dict[str, object]]:
    return [
        {
            "event_id": f"till-{turn}-{number}",
            "type": _TYPES[number % 4],
            "user": shop.user(number * 7 + turn),
            "item": f"i{(number * 31 + turn * 17) % shop.size.items + 1}",
            "time": NOW_MS + turn * 1_000_000 + number,
        }
        for number in range(count)
    ]


def _singles(shop: Shop, server: Server, plan: Plan, turn: int) -> list[bytes]:
    return [server.request("/v1/events", event) for event in _events(shop, plan.singles, turn)]


def _bulks(shop: Shop, server: Server, plan: Plan, turn: int) -> list[bytes]:
    events = _events(shop, plan.bulks * plan.size, turn + 1_000)
    parts = [events[start : start + plan.size] for start in range(0, len(events), plan.size)]
    return [server.request("/v1/events", {"events": part}) for part in parts]


def _by_turns(
    line: Any, db: sqlite3.Connection, requests: Sequence[bytes], parts: Sequence[_Rows]
) -> tuple[list[float], list[float]]:
    """Seconds of each request, and of each transaction of the same size."""
    ours, theirs = [], []
    for start in range(0, len(requests), _IN_TURN):
        turn = slice(start, start + _IN_TURN)
        with here():
            ours += caller.one_by_one(line, requests[turn])
        with here(SERVER_CORE):
            theirs += [_commit(db, rows) for rows in parts[turn]]
    return ours, theirs


def _bare_store(shop: Shop, path: Path) -> closing[sqlite3.Connection]:
    """A copy of the shop's books: the same tables, indexes and triggers, the same users and items in them."""
    with closing(sqlite3.connect(shop.directory / "store.db")) as source, closing(sqlite3.connect(path)) as copy:
        source.backup(copy)
    os.sync()  # or the first commits wait for all that was written just now
    return closing(schema.connect(path, durability="full"))


def _rows(shop: Shop, count: int, turn: int) -> _Rows:
    """What SQLite is given: ready tuples, with the keys in place of the names."""
    with closing(sqlite3.connect(shop.directory / "store.db")) as db:
        users = dict(db.execute("SELECT name, id FROM users"))
        items = dict(db.execute("SELECT name, id FROM items"))
    return [
        (
            event["event_id"],
            CODE[EventType(str(event["type"]))],
            users[event["user"]],
            items[event["item"]],
            event["time"],
            1.0,
        )
        for event in _events(shop, count, turn)
    ]


def _note(waited: dict[str, list[float]], name: str, once: tuple[list[float], list[float]]) -> None:
    waited[name] += once[0]
    waited[f"{name}_bare"] += once[1]


def _parts(rows: _Rows, size: int) -> list[_Rows]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _commit(db: sqlite3.Connection, rows: _Rows) -> float:
    """Seconds of one transaction."""
    began = time.perf_counter()
    db.execute("BEGIN IMMEDIATE")
    if len(rows) == 1:
        db.execute(_INSERT, rows[0])
    else:
        db.executemany(_INSERT, rows)
    db.execute("COMMIT")
    return time.perf_counter() - began
