"""Reading back what was written, page by page: a cursor names the last thing read, and new things come after it."""

import json
import sqlite3
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from edge.records.batch import VISITOR
from edge.records.changes import ITEM_COLUMNS, item_of
from edge.records.events import Item
from edge.records.people import REST, WANTED
from edge.records.schema import TYPE_OF
from protocol.errors import BadInputError

MOST: Final = 1_000
"""Entries of a page, at most."""
_KEY_BYTES = 8
_COLUMNS = "id, event_id, type, user, item, time_ms, quantity, session, rec_id, query, context"
_NAMED = """
    SELECT page.id, event_id, type, users.name, session, items.name, time_ms, quantity, rec_id, query, context
    FROM ({page}) AS page JOIN users ON users.id = user LEFT JOIN items ON items.id = item ORDER BY page.id"""
_ALL = _NAMED.format(page=f"SELECT {_COLUMNS} FROM events WHERE id > :after ORDER BY id LIMIT :limit")  # noqa: S608
_PERSON = _NAMED.format(
    page=f"""
        SELECT {_COLUMNS} FROM events WHERE {WANTED} AND id > :after UNION ALL
        SELECT {_COLUMNS} FROM events WHERE {REST} AND id > :after ORDER BY id LIMIT :limit"""  # noqa: S608
)
_ITEMS = f"SELECT id, {ITEM_COLUMNS} FROM items WHERE listed AND id > ? ORDER BY id LIMIT ?"  # noqa: S608
_FIELDS = ("event_id", "type", "user", "session", "item", "time", "quantity", "rec_id", "query", "context")


_Entry = TypeVar("_Entry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[_Entry]):
    """Some of it, in the order in which it came.

    Attributes:
        after: where to go on.
        more: there was more when this was read.
    """

    entries: list[_Entry]
    after: str
    more: bool


def _cursor(kind: str, key: int) -> str:
    return urlsafe_b64encode(kind.encode() + key.to_bytes(_KEY_BYTES, "big")).decode("ascii")


BEGIN: Final = _cursor("e", 0)
"""Before all events."""


def events(db: sqlite3.Connection, *, person: int | None, after: str | None, limit: int) -> Page[Mapping[str, Any]]:
    """Events of one person, or of everybody, in the form in which they can be sent again.

    Raises:
        BadInputError: `after` is no cursor of events.
    """
    last = _key("e", after)
    wanted = {"after": last, "limit": limit + 1, "user": person}
    rows = db.execute(_ALL if person is None else _PERSON, wanted).fetchall()
    page = rows[:limit]
    return Page(
        entries=[_event(row) for _, *row in page],
        after=_cursor("e", page[-1][0] if page else last),
        more=len(rows) > limit,
    )


def items(db: sqlite3.Connection, *, after: str | None, limit: int) -> Page[Item]:
    """Listed items.

    Raises:
        BadInputError: `after` is no cursor of items.
    """
    last = _key("i", after)
    rows = db.execute(_ITEMS, (last, limit + 1)).fetchall()
    page = rows[:limit]
    return Page(
        entries=[item_of(row) for _, *row in page],
        after=_cursor("i", page[-1][0] if page else last),
        more=len(rows) > limit,
    )


def _event(row: list[Any]) -> dict[str, Any]:
    given = dict(zip(_FIELDS, row, strict=True))
    given["type"] = TYPE_OF[given["type"]].value
    if given["user"].startswith(VISITOR):
        given["user"] = None
    if given["context"]:
        given["context"] = json.loads(given["context"])
    return {name: value for name, value in given.items() if value is not None}


def _key(kind: str, cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        raw = urlsafe_b64decode(cursor.encode("ascii"))
    except ValueError:
        raw = b""
    key = int.from_bytes(raw[1:], "big")
    if len(raw) != _KEY_BYTES + 1 or raw[:1] != kind.encode() or key >= 1 << 63:
        raise BadInputError("after is no cursor of an earlier answer", advice="leave it out to begin with the oldest")
    return key
