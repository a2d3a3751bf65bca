"""What a site sells, written: listed, changed in part, taken off. Every change moves the mark that others follow."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from edge.records.changes import ITEM_COLUMNS, item_of
from edge.records.events import Item, check_item
from protocol.errors import BadInputError

_CHANGED = "UPDATE marks SET value = value + 1 WHERE name = 'items'"
_PUT = """
    INSERT INTO items (name, title, category, brand, price, stock, attributes, added_ms, mark, listed)
    VALUES (?, ?, ?, ?, ?, ?, ?, coalesce(?8, ?9), (SELECT value FROM marks WHERE name = 'items'), 1)
    ON CONFLICT (name) DO UPDATE SET listed = 1, title = excluded.title, category = excluded.category,
    brand = excluded.brand, price = excluded.price, stock = excluded.stock, attributes = excluded.attributes,
    added_ms = coalesce(?8, items.added_ms, iif(items.listed, NULL, ?9)), mark = excluded.mark"""
_REMOVE = """
    UPDATE items SET listed = 0, mark = (SELECT value FROM marks WHERE name = 'items')
    WHERE name IN (SELECT value FROM json_each(?))"""
_LISTED = f"SELECT {ITEM_COLUMNS} FROM items WHERE listed AND name IN (SELECT value FROM json_each(?))"  # noqa: S608


class UnknownItemError(BadInputError):
    """Neither this site nor the shared catalogue knows the item."""


def put(db: sqlite3.Connection, items: Iterable[Item], *, now_ms: int | None = None) -> int:
    """List items, replacing what was known of them; returns how many.

    Args:
        now_ms: when those are listed that are new.
    """
    rows = [_row(item, now_ms) for item in items]
    if rows:
        db.execute(_CHANGED)
        db.executemany(_PUT, rows)
    return len(rows)


def patch(db: sqlite3.Connection, changes: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
    """Change some of what is known of listed items; of `attributes` those that are named, None takes one away.

    Raises:
        UnknownItemError: an item is not listed; nothing may be committed.
        BadInputError: a changed item would be none that can be sold.
    """
    given = list(changes)
    known = listed(db, {name for name, _ in given})
    for name, change in given:
        if name not in known:
            raise _unlisted(name)
        known[name] = check_item(_changed(known[name], change))
    return put(db, known.values())


def remove(db: sqlite3.Connection, names: Iterable[str]) -> int:
    """Take items off the list; what was bought and seen of them stays in the books.

    Raises:
        UnknownItemError: an item is not listed; nothing may be committed.
    """
    asked = set(names)
    missing = asked - set(listed(db, asked))
    if missing:
        raise _unlisted(min(missing))
    if asked:
        db.execute(_CHANGED)
        db.execute(_REMOVE, (json.dumps(sorted(asked)),))
    return len(asked)


def listed(db: sqlite3.Connection, names: Iterable[str]) -> dict[str, Item]:
    """Those of these items that are listed, by name."""
    return {row[0]: item_of(row) for row in db.execute(_LISTED, (json.dumps(sorted(set(names))),))}


def _changed(item: Item, change: Mapping[str, Any]) -> Item:
    attributes = {**item.attributes, **change.get("attributes", {})}
    kept = {name: value for name, value in attributes.items() if value is not None}
    return replace(item, **{**change, "attributes": kept})


def _unlisted(name: str) -> UnknownItemError:
    return UnknownItemError(f"item {name} is not listed", advice="list it first; nothing was changed")


def _row(item: Item, now_ms: int | None) -> tuple[object, ...]:
    return (
        *(item.item, item.title, item.category, item.brand, item.price, item.stock),
        json.dumps(item.attributes, sort_keys=True, ensure_ascii=False) if item.attributes else None,
        item.added_ms,
        now_ms,
    )
