"""Whose events they are: visitors who turn out to be users, and users who want to be forgotten.

A visitor is a row of `users` whose name is the session after a character that no id can hold. When the visit is merged
into a user, the visitor's events become the user's, and the session is kept in `visits`: what it does later without
naming the user is the user's, too.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from edge.records.adding import user_keys
from edge.records.batch import VISITOR, visitor
from edge.records.changes import RECORDED_COLUMNS, Recorded, recorded
from protocol.errors import BadInputError

Forget = Callable[[sqlite3.Connection, list[Recorded]], None]
"""Takes back, in the same transaction, what was derived from a person's events."""

WANTED = "user = :user AND type <= 4 AND item IS NOT NULL"
"""The condition of the index events_history; with `REST`, all events of a person."""
REST = "user = :user AND (type > 4 OR item IS NULL)"
_USER = "SELECT id FROM users WHERE name = ?"
_VISIT = "SELECT user FROM visits WHERE session = ?"
_EVENTS = f"""
    SELECT {RECORDED_COLUMNS} FROM events WHERE {WANTED} UNION ALL
    SELECT {RECORDED_COLUMNS} FROM events WHERE {REST} ORDER BY id"""  # noqa: S608 - our own words
_MOVE = tuple(f"UPDATE events SET user = :to WHERE {whose}" for whose in (WANTED, REST))  # noqa: S608
# What the visitor and the user both did counts once.
_MOVE_DERIVED = (
    """UPDATE searches SET users = users - 1 WHERE query IN (
        SELECT query FROM search_users WHERE user = :user INTERSECT SELECT query FROM search_users WHERE user = :to)""",
    "UPDATE OR IGNORE search_users SET user = :to WHERE user = :user",
    "DELETE FROM search_users WHERE user = :user",
    "UPDATE OR IGNORE exposures SET user = :to WHERE user = :user",
    "DELETE FROM exposures WHERE user = :user",
    "DELETE FROM users WHERE id = :user",
)
_ERASE_EVENTS = tuple(f"DELETE FROM events WHERE {whose}" for whose in (WANTED, REST))  # noqa: S608
_ERASE_PERSON = (
    "UPDATE searches SET users = users - 1 WHERE query IN (SELECT query FROM search_users WHERE user = :user)",
    "DELETE FROM searches WHERE users <= 0 AND query IN (SELECT query FROM search_users WHERE user = :user)",
    "DELETE FROM search_users WHERE user = :user",
    "DELETE FROM exposures WHERE user = :user",
    "DELETE FROM visits WHERE user = :user",
    "DELETE FROM users WHERE id = :user",
)
_KEEP_LAST = (
    "UPDATE marks SET value = max(value, coalesce((SELECT max(id) FROM events), 0)) WHERE name = 'last event'",
    "UPDATE marks SET value = max(value, coalesce((SELECT max(id) FROM users), 0)) WHERE name = 'last user'",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What became of a person.

    Attributes:
        known: there was somebody to erase.
        events: how many there were.
        names: the name asked for and all sessions: what must not be found anywhere any more.
        key: what the person was called in the books.
        clean: the file was written anew where it had to be, and no copy is left in unused space of it.
    """

    known: bool
    events: int
    names: tuple[str, ...]
    key: int = 0
    clean: bool = True


def find(db: sqlite3.Connection, *, user: str | None = None, session: str | None = None) -> int | None:
    """The key of a user, or of whom a session belongs to: the user it was merged into, or an anonymous visitor."""
    asked = ((_VISIT, session), (_USER, visitor(session))) if session is not None else ((_USER, user),)
    for statement, value in asked:
        for (key,) in db.execute(statement, (value,)):
            return int(key)
    return None


def merge(db: sqlite3.Connection, session: str, user: str) -> int:
    """A visitor turns out to be this user: move what the session did; returns how many events that are.

    Done again it changes nothing.

    Raises:
        BadInputError: the session belongs to another user already.
    """
    to = user_keys(db, {user})[user]
    before = db.execute(_VISIT, (session,)).fetchone()
    if before is not None and before[0] != to:
        raise BadInputError(
            f"session {session} belongs to another user already",
            advice="begin a new session when somebody else logs in",
        )
    if before is None:
        db.execute("INSERT INTO visits VALUES (?, ?)", (session, to))
    whose = db.execute(_USER, (visitor(session),)).fetchone()
    if whose is None:
        return 0
    keys = {"user": whose[0], "to": to}
    keep_last(db)
    moved = sum(db.execute(statement, keys).rowcount for statement in _MOVE)
    for statement in _MOVE_DERIVED:
        db.execute(statement, keys)
    return moved


def erase(db: sqlite3.Connection, *, user: str | None = None, session: str | None = None, also: Forget) -> Erased:
    """Delete a user, or an anonymous visitor, and all that is theirs.

    Args:
        also: called with their events, oldest first, before these are deleted.

    Raises:
        BadInputError: the session belongs to a user; its other visits would go with it.
    """
    if session is not None and db.execute(_VISIT, (session,)).fetchone() is not None:
        raise BadInputError(f"session {session} belongs to a user", advice="erase the user, and it goes along")
    key = find(db, user=user, session=session)
    asked = tuple(name for name in (user, session) if name is not None)
    if key is None:
        return Erased(known=False, events=0, names=asked)
    names = tuple(dict.fromkeys((*asked, *sessions(db, key))))
    also(db, events_of(db, key))
    keep_last(db)
    events = sum(db.execute(statement, {"user": key}).rowcount for statement in _ERASE_EVENTS)
    drop(db, key)
    return Erased(known=True, events=events, names=names, key=key)


def events_of(db: sqlite3.Connection, key: int) -> list[Recorded]:
    """All events of one person in the order in which they arrived."""
    return [recorded(row) for row in db.execute(_EVENTS, {"user": key})]


def sessions(db: sqlite3.Connection, key: int) -> list[str]:
    """The sessions that are known to be one person's: merged ones, or the visitor's own."""
    (name,) = db.execute("SELECT name FROM users WHERE id = ?", (key,)).fetchone()
    merged = [row[0] for row in db.execute("SELECT session FROM visits WHERE user = ? ORDER BY session", (key,))]
    return merged + ([name[1:]] if name.startswith(VISITOR) else [])


def drop(db: sqlite3.Connection, key: int) -> None:
    """Delete a person without events, and what else is kept by their key."""
    for statement in _ERASE_PERSON:
        db.execute(statement, {"user": key})


def keep_last(db: sqlite3.Connection) -> None:
    """Called before anything is deleted: no key is ever given to something else."""
    for statement in _KEEP_LAST:
        db.execute(statement)
