"""What has changed since somebody looked last: events for those who derive from them, items for shelf and search."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.records.events import EventType, Item
from edge.records.schema import TYPE_OF

ITEM_COLUMNS = "name, title, category, brand, price, stock, attributes, added_ms"
RECORDED_COLUMNS = "id, type, user, item, time_ms, quantity, session, rec_id, query, context"
_EVENTS_AFTER = f"SELECT {RECORDED_COLUMNS} FROM events WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608 - our own words
_ITEMS_AFTER = f"SELECT id, listed, {ITEM_COLUMNS} FROM items WHERE mark > ? ORDER BY mark, id"  # noqa: S608
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An event as it stands in the books.

    Attributes:
        key: rises in the order in which events arrived; never given twice.
        user: the store's key of a user or a visitor.
        item: the store's key; None for a search only.
        context: where it happened: region, page, device, campaign.
    """

    key: int
    type: EventType
    user: int
    item: int | None
    time_ms: int
    quantity: float
    session: str | None
    rec_id: str | None
    query: str | None
    context: Mapping[str, str]


def events_after(db: sqlite3.Connection, key: int, limit: int) -> list[Recorded]:
    """The next events after one, oldest first; with the writing connection, in one transaction with what is derived."""
    return [recorded(row) for row in db.execute(_EVENTS_AFTER, (key, limit))]


def recorded(row: tuple[Any, ...]) -> Recorded:
    """A row of `RECORDED_COLUMNS`."""
    key, kind, user, item, time_ms, quantity, session, rec_id, query, context = row
    return Recorded(
        key=key,
        type=TYPE_OF[kind],
        user=user,
        item=item,
        time_ms=time_ms,
        quantity=quantity,
        session=session,
        rec_id=rec_id,
        query=query,
        context=json.loads(context) if context else _NOTHING,
    )


def items_after(db: sqlite3.Connection, mark: int) -> list[tuple[int, Item, bool]]:
    """Items that were listed, changed or taken off after a mark, in that order; key, item, whether it is listed."""
    return [(key, item_of(row), bool(listed)) for key, listed, *row in db.execute(_ITEMS_AFTER, (mark,))]


def item_of(row: list[Any]) -> Item:
    """A row of `ITEM_COLUMNS`; one that was only seen in events has a name and nothing else."""
    name, title, category, brand, price, stock, attributes, added_ms = row
    return Item(
        item=name,
        title=title or "",
        category=category or "",
        brand=brand or "",
        price=price,
        stock=stock,
        attributes=json.loads(attributes) if attributes else {},
        added_ms=added_ms,
    )
