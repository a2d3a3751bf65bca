"""`/v1/events` against SQLite alone, in the same mode of durability and into the same tables."""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from edge.records import schema
from edge.records.events import EventType
from edge.records.schema import CODE
from simulation.bench.growth import Advance
from simulation.bench.serving import caller
from simulation.bench.serving.caller import Server
from simulation.bench.serving.server import SERVER_CORE, here
from simulation.bench.serving.shop import NOW_MS, Shop

_TYPES = (EventType.VIEW, EventType.CLICK, EventType.ADD_TO_CART, EventType.PURCHASE)
_INSERT = "INSERT INTO events (event_id, type, user, item, time_ms, quantity) VALUES (?, ?, ?, ?, ?, ?)"


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
        both rates of both kinds of writing, and their ratios.
    """
    server = Server(port=shop.port, key=shop.key)
    rates: dict[str, list[float]] = {"single": [], "single_bare": [], "bulk": [], "bulk_bare": []}
    with _bare_store(shop, scratch / "bare.db") as bare, server.connected() as line:
        for turn in range(plan.rounds + 1):
            once = {
                "single": _posted(line, _singles(shop, server, plan, turn), events=plan.singles),
                "single_bare": _single_commits(bare, _rows(shop, plan.singles, turn)),
                "bulk": _posted(line, _bulks(shop, server, plan, turn), events=plan.bulks * plan.size),
                "bulk_bare": _bulk_commits(bare, _rows(shop, plan.bulks * plan.size, turn + 1_000), plan.size),
            }
            if turn:
                advance("events")
                for name, rate in once.items():
                    rates[name].append(rate)
    middle = {f"{name}_per_second": median(rate) for name, rate in rates.items()}
    return middle | {
        "event_single_ratio": _ratio(rates["single"], rates["single_bare"]),
        "event_bulk_ratio": _ratio(rates["bulk"], rates["bulk_bare"]),
    }


def _ratio(ours: Sequence[float], bare: Sequence[float]) -> float:
    return median(a / b for a, b in zip(ours, bare, strict=True))


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


def _posted(line: Any, requests: list[bytes], *, events: int) -> float:
    """Events per second."""
    with here():
        return events / sum(caller.one_by_one(line, requests))


def _bare_store(shop: Shop, path: Path) -> closing[sqlite3.Connection]:
    """A copy of the shop's books: the same tables, indexes and triggers, the same users and items in them."""
    with closing(sqlite3.connect(shop.directory / "store.db")) as source, closing(sqlite3.connect(path)) as copy:
        source.backup(copy)
    return closing(schema.connect(path, durability="full"))


def _rows(shop: Shop, count: int, turn: int) -> list[tuple[object, ...]]:
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


def _single_commits(db: sqlite3.Connection, rows: list[tuple[object, ...]]) -> float:
    """Events per second, one a transaction."""
    with here(SERVER_CORE):
        began = time.perf_counter()
        for row in rows:
            db.execute("BEGIN IMMEDIATE")
            db.execute(_INSERT, row)
            db.execute("COMMIT")
        return len(rows) / (time.perf_counter() - began)


def _bulk_commits(db: sqlite3.Connection, rows: list[tuple[object, ...]], size: int) -> float:
    """Events per second, many a transaction."""
    with here(SERVER_CORE):
        began = time.perf_counter()
        for start in range(0, len(rows), size):
            db.execute("BEGIN IMMEDIATE")
            db.executemany(_INSERT, rows[start : start + size])
            db.execute("COMMIT")
        return len(rows) / (time.perf_counter() - began)
