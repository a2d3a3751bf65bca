"""Events older than a site wants to keep are deleted a few at a time, so that no writer and no answer waits for it.

One pass walks the events in the order in which they arrived, reading first and taking the write lock only where there
is something to delete. Nobody needs an index by time for it: 10 million events are some 2,000 short reads a day.
"""

import asyncio
import itertools
import json
import sqlite3
import threading
from collections.abc import Callable
from typing import Final

import structlog

from edge.records import people
from edge.records.store import Store
from protocol.errors import FederationError

_log = structlog.get_logger(__name__)

DAY_MS: Final = 86_400_000
_PASS_EVERY = 60  # looks
_PAUSE_SECONDS = 0.005  # after each step of a pass
_WINDOW = 5_000  # events looked at in one read: about a millisecond
_MOST = 500  # events deleted in one transaction: some ten milliseconds
_TOO_OLD = "SELECT id FROM events WHERE id > ? AND id <= ? AND time_ms < ? ORDER BY id LIMIT ?"
_DELETE = "DELETE FROM events WHERE id IN (SELECT value FROM json_each(?)) RETURNING user"
_NOTHING_LEFT = f"""
    SELECT NOT EXISTS (SELECT 1 FROM events WHERE {people.WANTED})
    AND NOT EXISTS (SELECT 1 FROM events WHERE {people.REST})"""  # noqa: S608 - our own words


def sweep(store: Store, *, before_ms: int, pause: Callable[[], bool] = lambda: False) -> int:
    """Delete every event older than this; returns how many there were. Users of whom nothing is left go along.

    Args:
        pause: called between two steps, to let others go first; true ends the pass early.

    Raises:
        NoSpaceError: the disk is full; what was deleted before stays deleted.
    """
    after, deleted = 0, 0
    with store.reading() as db:
        (last,) = db.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
    while after < last and not pause():
        upto = after + _WINDOW
        with store.reading() as db:
            old = [key for (key,) in db.execute(_TOO_OLD, (after, upto, before_ms, _MOST))]
        if old:
            deleted += store.forgetting(lambda db, old=old: _delete(db, old))  # type: ignore[misc]
        after = old[-1] if len(old) == _MOST else upto
    return deleted


async def watch(
    store: Store, *, days: int | None, now_ms: Callable[[], int], deleted: Callable[[int], None], every: float = 60.0
) -> None:
    """Delete what grows too old, once an hour, and tidy up after erasures, until cancelled.

    Args:
        days: None: events are kept for ever.
        deleted: told how many events a pass has deleted.
        every: seconds between two looks.
    """
    end = threading.Event()
    try:
        for turn in itertools.count():
            try:
                await asyncio.to_thread(store.tidy)
                if days is not None and turn % _PASS_EVERY == 0:
                    before_ms = now_ms() - days * DAY_MS
                    gone = await asyncio.to_thread(
                        sweep, store, before_ms=before_ms, pause=lambda: end.wait(_PAUSE_SECONDS)
                    )
                    if gone:
                        deleted(gone)
                        _log.info("events too old to be kept were deleted", events=gone)
            except FederationError as error:  # a full disk, say: the next pass may do it
                _log.warning("events too old to be kept are kept", why=error.line())
            await asyncio.sleep(every)
    finally:
        end.set()


def _delete(db: sqlite3.Connection, keys: list[int]) -> int:
    people.keep_last(db)
    owners = [user for (user,) in db.execute(_DELETE, (json.dumps(keys),)).fetchall()]
    for user in set(owners):
        if db.execute(_NOTHING_LEFT, {"user": user}).fetchone()[0]:
            people.drop(db, user)
    return len(owners)
