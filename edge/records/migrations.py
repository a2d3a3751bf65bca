"""The tables of ``store.db``, step by step: what each version of the schema added.

A table of a part that follows the events (searches, experiments) stands here beside the books,
so that a user and all that was derived from them are erased in one transaction.
"""

import sqlite3
from collections.abc import Callable
from typing import Final

from protocol.errors import BadInputError


def migrate(connection: sqlite3.Connection, *, source: str) -> None:
    """Run the steps that are missing, each in one transaction with the number that says it is done.

    Raises:
        BadInputError: the store was written by a newer edge.
    """
    while (done := _version(connection, source=source)) < len(STEPS):
        if done == 0:  # sqlite-utils commits as it goes; it works in a file that is not in place yet
            _first_books(connection)
            connection.execute("PRAGMA user_version=1")
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _version(connection, source=source) == done:  # else another process was faster
                STEPS[done](connection)
                connection.execute(f"PRAGMA user_version={done + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _version(connection: sqlite3.Connection, *, source: str) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(STEPS):
        raise BadInputError(
            f"{source} has schema {version}, this edge knows up to {len(STEPS)}",
            advice="upgrade hanse; the file was left as it is",
        )
    return version


def _first_books(connection: sqlite3.Connection) -> None:
    """Version 1: users, items, events, and counts the database keeps itself; runs only in a file not yet in place."""
    # Imported here because it pulls in pandas where there is one: 70 MB that a serving process has no use for.
    from sqlite_utils import Database  # noqa: PLC0415

    db = Database(connection)
    whole, text, real = int, str, float
    users = {"id": whole, "name": text}
    about = {"title": text, "category": text, "brand": text, "price": real, "stock": whole, "attributes": text}
    items = users | {"listed": whole} | about
    what = {"id": whole, "event_id": text, "type": whole, "user": whole, "item": whole, "time_ms": whole}
    events = what | {"quantity": real, "session": text, "rec_id": text, "query": text}
    db["users"].create(users, pk="id", not_null={"name"}, strict=True)
    db["items"].create(items, pk="id", not_null={"name", "listed"}, defaults={"listed": 0}, strict=True)
    db["events"].create(events, pk="id", not_null={"event_id", "type", "user", "time_ms"}, strict=True)
    db["marks"].create({"name": text, "value": whole}, pk="name", strict=True)
    db["users"].create_index(["name"], unique=True)
    db["items"].create_index(["name"], unique=True)
    db["events"].create_index(["event_id"], unique=True)
    db["marks"].insert({"name": "items", "value": 0})
    # id stands before item: what was bought in one moment keeps the order in which it was rung up.
    connection.execute(
        "CREATE INDEX events_history ON events (user, time_ms, id, item, type) WHERE type <= 4 AND item IS NOT NULL"
    )
    connection.execute(
        "CREATE TABLE counts (type INTEGER NOT NULL, item INTEGER NOT NULL, events INTEGER NOT NULL, "
        "PRIMARY KEY (type, item)) WITHOUT ROWID, STRICT"
    )
    connection.execute(
        "CREATE TRIGGER events_counted AFTER INSERT ON events WHEN new.item IS NOT NULL BEGIN "
        "INSERT INTO counts VALUES (new.type, new.item, 1) ON CONFLICT DO UPDATE SET events = events + 1; END"
    )


_VISITORS = (
    "ALTER TABLE events ADD COLUMN context TEXT",
    "CREATE INDEX events_rest ON events (user) WHERE type > 4 OR item IS NULL",
    # Counts follow what is erased or grows too old; a count of nothing would still say that it once was.
    """CREATE TRIGGER events_uncounted AFTER DELETE ON events WHEN old.item IS NOT NULL BEGIN
        UPDATE counts SET events = events - 1 WHERE type = old.type AND item = old.item;
        DELETE FROM counts WHERE type = old.type AND item = old.item AND events <= 0; END""",
    "CREATE TABLE visits (session TEXT PRIMARY KEY, user INTEGER NOT NULL) WITHOUT ROWID, STRICT",
    "CREATE INDEX visits_user ON visits (user)",
    "ALTER TABLE items ADD COLUMN added_ms INTEGER",
    "ALTER TABLE items ADD COLUMN mark INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX items_changed ON items (mark)",
    # The highest keys that were ever given out: a key of something erased is never given to something else.
    "INSERT INTO marks VALUES ('documents', 0), ('last event', 0), ('last user', 0)",
    """CREATE TABLE documents (kind TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (kind, name)) WITHOUT ROWID, STRICT""",
)
"""Version 2: visitors and what becomes of them, changes of items, what operators set through the API."""

_DERIVED = (
    "CREATE TABLE followers (name TEXT PRIMARY KEY, event INTEGER NOT NULL) WITHOUT ROWID, STRICT",
    """CREATE TABLE searches (query TEXT PRIMARY KEY, count REAL NOT NULL, users INTEGER NOT NULL,
        found INTEGER NOT NULL, time_ms INTEGER NOT NULL) WITHOUT ROWID, STRICT""",
    """CREATE TABLE search_users (query TEXT NOT NULL, user INTEGER NOT NULL, PRIMARY KEY (query, user))
        WITHOUT ROWID, STRICT""",
    "CREATE INDEX search_users_user ON search_users (user)",
    # The session is empty where whole users are compared, not visits.
    """CREATE TABLE exposures (experiment TEXT NOT NULL, arm TEXT NOT NULL, user INTEGER NOT NULL,
        session TEXT NOT NULL, first_ms INTEGER NOT NULL, count INTEGER NOT NULL,
        PRIMARY KEY (experiment, user, session)) WITHOUT ROWID, STRICT""",
    "CREATE INDEX exposures_user ON exposures (user)",
    """CREATE TABLE arm_sums (experiment TEXT NOT NULL, arm TEXT NOT NULL, metric TEXT NOT NULL,
        units INTEGER NOT NULL, total INTEGER NOT NULL, squares INTEGER NOT NULL, hits INTEGER NOT NULL,
        PRIMARY KEY (experiment, arm, metric)) WITHOUT ROWID, STRICT""",
)
"""Version 3: what is derived from events, and how far each of those who derive has read."""


def _all_of(statements: tuple[str, ...]) -> Callable[[sqlite3.Connection], None]:
    def step(connection: sqlite3.Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    return step


STEPS: Final = (_first_books, _all_of(_VISITORS), _all_of(_DERIVED))
