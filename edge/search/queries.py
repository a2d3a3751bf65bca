"""What is searched for at this site, counted: older searches count less, half after 30 days.

What is suggested to others was typed by at least three different people. So many are remembered by their keys, in the
store, and no more than a few; when somebody is erased they go along (`edge.records.people`).
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final, NamedTuple

from edge.records import people
from edge.records.events import DAY_MS, EventType
from edge.records.schema import CODE
from edge.records.store import Store

FEWEST_USERS: Final = 3
"""Different people who typed it, before it is suggested to anybody."""
LONGEST: Final = 80
"""Characters; what is longer is not counted."""
_MOST_USERS = 20  # of one query, that are remembered
_HALF_LIFE_MS = 30 * DAY_MS
_KEPT_MS = 365 * DAY_MS
_TYPING_MS = 5_000  # so long a question may be the beginning of the next one
_MOST_TYPING = 10_000
_MOST_WAITING = 50_000
_SPAN = 50_000  # events that are looked through in one go
_FOLLOWER = "searches"

_SEARCHES = "SELECT user, query, time_ms FROM events WHERE id > ? AND id <= ? AND type = ? AND query IS NOT NULL"
_COUNT = """
    INSERT INTO searches VALUES (:query, 1.0, 0, :found, :now) ON CONFLICT (query) DO UPDATE SET
    count = count * :faded + 1, found = CASE WHEN :found < 0 THEN found ELSE :found END, time_ms = :now"""
_SOMEBODY = """
    INSERT INTO search_users SELECT :query, :user WHERE (SELECT users FROM searches WHERE query = :query) < :most
    ON CONFLICT DO NOTHING"""
_ONE_MORE = "UPDATE searches SET users = users + 1 WHERE query = ?"
_POSITION = "SELECT event FROM followers WHERE name = ?"
_MOVE = "INSERT INTO followers VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET event = excluded.event"
_COMMON = "SELECT query, count, time_ms FROM searches WHERE users >= ? AND found != 0 ORDER BY count DESC LIMIT ?"


class Common(NamedTuple):
    """A question that enough people ask."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class _Asked:
    user: str | None
    session: str | None
    text: str
    found: int
    time_ms: int


class Queries:
    """Counts searches as they are run or reported; what is noted waits in memory until `follow` writes it."""

    def __init__(self, store: Store, *, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._typing: dict[tuple[str | None, str | None], _Asked] = {}
        self._waiting: deque[_Asked] = deque(maxlen=_MOST_WAITING)
        self._turn = Lock()

    def note(self, text: str, *, user: str | None, session: str | None, found: int) -> None:
        """Somebody has searched; what is still being typed counts when it is done. Nothing is read or written here."""
        normal = normal_form(text)
        if not normal or (user is None and session is None):
            return
        asked = _Asked(user, session, normal, found, self._now_ms())
        with self._turn:
            before = self._typing.get((user, session))
            if before is not None and not (normal.startswith(before.text) or before.text.startswith(normal)):
                self._waiting.append(before)
            if before is not None or len(self._typing) < _MOST_TYPING:
                self._typing[user, session] = asked

    def follow(self) -> bool:
        """Write down what was noted, and what search events have come; True if anything has changed.

        Raises:
            NoSpaceError: the disk is full; so does UnavailableError.
        """
        noted = self._finished()
        with self._store.reading() as db:
            position = _position(db)
            last = db.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0]
            until = min(last, position + _SPAN)
            reported = last > position and bool(_reported(db, position, until))
        if not noted and not reported and until - position < _SPAN:
            return False
        with self._store.writing() as db:
            position = _position(db)
            for user, text, time_ms in _reported(db, position, until):
                if normal := normal_form(text):
                    self._count(db, normal, user, found=-1, time_ms=time_ms)
            for asked in noted:
                key = people.find(db, user=asked.user, session=asked.session)
                if key is not None:
                    self._count(db, asked.text, key, found=asked.found, time_ms=asked.time_ms)
            db.execute(_MOVE, (_FOLLOWER, max(until, position)))
        return bool(noted) or reported

    def forget(self, names: Collection[str]) -> None:
        """Users or sessions were erased: what they have typed and is not written down yet never is."""
        with self._turn:
            typing = [who for who in self._typing if not {*who}.isdisjoint(names)]
            for who in typing:
                del self._typing[who]
            kept = [asked for asked in self._waiting if asked.user not in names and asked.session not in names]
            self._waiting.clear()
            self._waiting.extend(kept)

    def forget_old(self) -> None:
        """Delete what nobody has searched for in a year."""
        before = self._now_ms() - _KEPT_MS
        with self._store.writing() as db:
            db.execute(
                "DELETE FROM search_users WHERE query IN (SELECT query FROM searches WHERE time_ms < ?)", (before,)
            )
            db.execute("DELETE FROM searches WHERE time_ms < ?", (before,))

    def common(self, *, most: int) -> list[Common]:
        """What enough people ask and something was found for, the most asked first."""
        now_ms = self._now_ms()
        with self._store.reading() as db:
            rows = db.execute(_COMMON, (FEWEST_USERS, most)).fetchall()
        faded = [Common(text, count * _faded(now_ms - time_ms)) for text, count, time_ms in rows]
        return sorted(faded, key=lambda each: -each.weight)

    def _finished(self) -> list[_Asked]:
        """What waits, and what nobody goes on typing."""
        before = self._now_ms() - _TYPING_MS
        with self._turn:
            done = [who for who, asked in self._typing.items() if asked.time_ms <= before]
            finished = [*self._waiting, *(self._typing.pop(who) for who in done)]
            self._waiting.clear()
        return finished

    def _count(self, db: sqlite3.Connection, text: str, user: int, *, found: int, time_ms: int) -> None:
        now_ms = min(time_ms, self._now_ms())
        known = db.execute("SELECT time_ms FROM searches WHERE query = ?", (text,)).fetchone()
        faded = _faded(now_ms - known[0]) if known else 1.0
        db.execute(
            _COUNT, {"query": text, "found": found, "faded": faded, "now": max(now_ms, known[0] if known else 0)}
        )
        if db.execute(_SOMEBODY, {"query": text, "user": user, "most": _MOST_USERS}).rowcount > 0:
            db.execute(_ONE_MORE, (text,))


def normal_form(text: str) -> str:
    """What counts as the same question; empty: nothing that is counted."""
    normal = " ".join(text.casefold().split())
    return normal if 1 < len(normal) <= LONGEST else ""


def _position(db: sqlite3.Connection) -> int:
    found = db.execute(_POSITION, (_FOLLOWER,)).fetchone()
    return int(found[0]) if found else 0


def _reported(db: sqlite3.Connection, after: int, until: int) -> Sequence[tuple[int, str, int]]:
    return db.execute(_SEARCHES, (after, until, CODE[EventType.SEARCH])).fetchall()


def _faded(age_ms: float) -> float:
    return float(2.0 ** (-max(age_ms, 0) / _HALF_LIFE_MS))
