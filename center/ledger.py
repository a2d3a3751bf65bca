"""What the center has put on the broker: so that nothing travels twice and an emptied broker can be restocked."""

import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    topic TEXT PRIMARY KEY, payload BLOB NOT NULL, source TEXT NOT NULL,
    delivered INTEGER NOT NULL, retiring INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS blocks (
    topic TEXT PRIMARY KEY, directory TEXT NOT NULL, path TEXT NOT NULL, place INTEGER NOT NULL,
    delivered INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlace:
    """Where the plaintext of a published block lies.

    Attributes:
        place: number of the block in its file, from 0.
    """

    directory: Path
    path: str
    place: int


class Ledger:
    """One SQLite file; every method is one transaction."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._rows = sqlite3.connect(path, check_same_thread=False, timeout=10.0)
        with self._lock, self._rows:
            self._rows.execute("PRAGMA journal_mode=WAL")
            self._rows.executescript(_SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._rows.close()

    def source(self, topic: str) -> str | None:
        """Digest of what the message at a topic was made from, if that message has been delivered."""
        found = self._one("SELECT source FROM messages WHERE topic = ? AND delivered", topic)
        return None if found is None else str(found)

    def stage(self, topic: str, payload: bytes, *, source: str) -> None:
        """Note what is about to be published."""
        with self._lock, self._rows:
            self._rows.execute(
                "INSERT OR REPLACE INTO messages (topic, payload, source, delivered) VALUES (?, ?, ?, 0)",
                (topic, payload, source),
            )

    def remember(self, places: Mapping[str, BlockPlace]) -> None:
        """Note where the blocks of a release lie; a block that is known already is looked for at its newest place."""
        rows = [(topic, str(at.directory), at.path, at.place) for topic, at in places.items()]
        with self._lock, self._rows:
            self._rows.executemany(
                "INSERT INTO blocks (topic, directory, path, place) VALUES (?, ?, ?, ?) ON CONFLICT (topic) DO UPDATE"
                " SET directory = excluded.directory, path = excluded.path, place = excluded.place",
                rows,
            )

    def undelivered(self, topics: Iterable[str]) -> list[str]:
        """Those blocks that are not on the broker yet, in the given order, each once."""
        with self._lock:
            rows = self._rows.execute("SELECT topic FROM blocks WHERE delivered").fetchall()
        there = {str(topic) for (topic,) in rows}
        return [topic for topic in dict.fromkeys(topics) if topic not in there]

    def delivered(self, topics: Iterable[str]) -> None:
        """Note that the broker has these now; changes the note."""
        names = [(topic,) for topic in topics]
        with self._lock, self._rows:
            self._rows.executemany("UPDATE messages SET delivered = 1 WHERE topic = ?", names)
            self._rows.executemany("UPDATE blocks SET delivered = 1 WHERE topic = ?", names)
            self._rows.execute("DELETE FROM messages WHERE delivered AND payload = x''")
            self._rows.execute("INSERT OR REPLACE INTO state VALUES ('note', ?)", (secrets.token_hex(16),))

    def note(self) -> bytes | None:
        """A name for the broker's present content; None before anything was published."""
        found = self._one("SELECT value FROM state WHERE name = 'note'")
        return None if found is None else str(found).encode()

    def messages(self, *, last: str) -> Iterator[tuple[str, bytes]]:
        """Everything delivered but blocks, one topic last."""
        with self._lock:
            rows = self._rows.execute(
                "SELECT topic, payload FROM messages WHERE delivered ORDER BY topic = ?, topic", (last,)
            ).fetchall()
        yield from ((str(topic), bytes(payload)) for topic, payload in rows)

    def blocks(self) -> Iterator[tuple[str, BlockPlace]]:
        """Every delivered block and where it lies."""
        with self._lock:
            rows = self._rows.execute("SELECT topic, directory, path, place FROM blocks WHERE delivered").fetchall()
        for topic, directory, path, place in rows:
            yield str(topic), BlockPlace(directory=Path(directory), path=path, place=place)

    def forget_block(self, topic: str) -> None:
        """Its plaintext is gone: it cannot be restocked."""
        with self._lock, self._rows:
            self._rows.execute("DELETE FROM blocks WHERE topic = ?", (topic,))

    def retire(self, prefix: str, *, current: set[str]) -> list[str]:
        """Messages below a prefix that were neither current at the last call nor are now; they can be cleared.

        One generation stays, for edges that are just reading it.
        """
        with self._lock, self._rows:
            rows = self._rows.execute("SELECT topic, retiring FROM messages").fetchall()
            old = [(str(t), bool(r)) for t, r in rows if str(t).startswith(prefix) and str(t) not in current]
            self._rows.executemany("UPDATE messages SET retiring = 1 WHERE topic = ?", [(topic,) for topic, _ in old])
        return [topic for topic, retiring in old if retiring]

    def _one(self, query: str, *values: str) -> object | None:
        with self._lock:
            row = self._rows.execute(query, values).fetchone()
        return None if row is None else row[0]
