"""What the center has put on the broker: so that nothing travels twice and an emptied broker can be restocked."""

import secrets
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    topic TEXT PRIMARY KEY, payload BLOB NOT NULL, source TEXT NOT NULL,
    delivered INTEGER NOT NULL, retired INTEGER NOT NULL DEFAULT 0, unneeded_ms INTEGER);
CREATE TABLE IF NOT EXISTS blocks (
    topic TEXT PRIMARY KEY, directory TEXT NOT NULL, path TEXT NOT NULL, place INTEGER NOT NULL,
    size INTEGER NOT NULL, key_id TEXT NOT NULL, delivered INTEGER NOT NULL DEFAULT 0, unneeded_ms INTEGER);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_GENERATIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlace:
    """Where the plaintext of a published block lies.

    Attributes:
        place: number of the block in its file, from 0.
        size: bytes of the message.
        key_id: of the content key that it is encrypted under, hexadecimal.
    """

    directory: Path
    path: str
    place: int
    size: int
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message that is to stand on the broker, or stands there.

    Attributes:
        source: digest of what it was made from.
    """

    topic: str
    payload: bytes
    source: str


class Ledger:
    """One SQLite file that several processes share; every method is one durable transaction."""

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

    def sources(self, topics: Iterable[str]) -> dict[str, str]:
        """Digests of what the delivered ones of these messages were made from."""
        with self._lock:
            found = (
                (topic, self._one("SELECT source FROM messages WHERE topic = ? AND delivered", topic))
                for topic in topics
            )
            return {topic: str(source) for topic, source in found if source is not None}

    def payload(self, topic: str) -> bytes:
        """What was published at a topic, or nothing."""
        with self._lock:
            found = self._one("SELECT payload FROM messages WHERE topic = ?", topic)
        return found if isinstance(found, bytes) else b""

    def stage(self, messages: Iterable[Message]) -> None:
        """Note what is about to be published."""
        rows = [(message.topic, message.payload, message.source) for message in messages]
        with self._lock, self._rows:
            self._rows.executemany(
                "INSERT OR REPLACE INTO messages (topic, payload, source, delivered) VALUES (?, ?, ?, 0)", rows
            )

    def remember(self, places: Mapping[str, BlockPlace]) -> None:
        """Note where the blocks of a release lie; a block that is known already is looked for at its newest place."""
        rows = [(topic, str(at.directory), at.path, at.place, at.size, at.key_id) for topic, at in places.items()]
        with self._lock, self._rows:
            self._rows.executemany(
                "INSERT INTO blocks (topic, directory, path, place, size, key_id) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (topic) DO UPDATE SET directory = excluded.directory, path = excluded.path,"
                " place = excluded.place, unneeded_ms = NULL",
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
            self._renew_note()

    def withdraw(self, topics: Iterable[str]) -> None:
        """Note that these are about to be cleared: from now on nobody relies on them."""
        names = [(topic,) for topic in topics]
        with self._lock, self._rows:
            self._rows.executemany("UPDATE messages SET delivered = 0 WHERE topic = ?", names)
            self._rows.executemany("UPDATE blocks SET delivered = 0 WHERE topic = ?", names)

    def cleared(self, topics: Iterable[str]) -> None:
        """Note that these are no longer on the broker; changes the note."""
        names = [(topic,) for topic in topics]
        with self._lock, self._rows:
            self._rows.executemany("DELETE FROM messages WHERE topic = ? AND NOT delivered", names)
            self._rows.executemany("DELETE FROM blocks WHERE topic = ? AND NOT delivered", names)
            self._renew_note()

    def note(self) -> bytes | None:
        """A name for the broker's present content; None before anything was published."""
        with self._lock:
            found = self._one("SELECT value FROM state WHERE name = 'note'")
        return None if found is None else str(found).encode()

    def messages(self, *, last: str = "") -> Iterator[tuple[str, bytes]]:
        """Everything delivered but blocks, one topic last."""
        with self._lock:
            rows = self._rows.execute(
                "SELECT topic, payload FROM messages WHERE delivered ORDER BY topic = ?, topic", (last,)
            ).fetchall()
        yield from ((str(topic), bytes(payload)) for topic, payload in rows)

    def places(self, *, delivered: bool = False) -> Iterator[tuple[str, BlockPlace]]:
        """Every block and where it lies, or only those that are on the broker."""
        with self._lock:
            rows = self._rows.execute(
                "SELECT topic, directory, path, place, size, key_id FROM blocks WHERE delivered >= ?", (int(delivered),)
            ).fetchall()
        for topic, directory, path, place, size, key_id in rows:
            yield str(topic), BlockPlace(directory=Path(directory), path=path, place=place, size=size, key_id=key_id)

    def forget_block(self, topic: str) -> None:
        """Its plaintext or its key is gone: it cannot be restocked."""
        with self._lock, self._rows:
            self._rows.execute("DELETE FROM blocks WHERE topic = ?", (topic,))

    def sizes(self) -> dict[str, int]:
        """Bytes of every message that stands on the broker or may stand there."""
        with self._lock:
            rows = self._rows.execute(
                "SELECT topic, size FROM blocks UNION ALL SELECT topic, length(payload) FROM messages"
            ).fetchall()
        return {str(topic): int(size) for topic, size in rows}

    def key_ids(self) -> set[str]:
        """Ids of the content keys that remembered blocks are under."""
        with self._lock:
            return {str(key_id) for (key_id,) in self._rows.execute("SELECT DISTINCT key_id FROM blocks")}

    def retire(self, topics: Collection[str]) -> list[str]:
        """Count once more that these messages are superseded; those that were it three times can be cleared.

        The others stay for edges that are just reading them.
        """
        names = [(topic,) for topic in topics]
        with self._lock, self._rows:
            self._rows.executemany("UPDATE messages SET retired = retired + 1 WHERE topic = ?", names)
            rows = self._rows.execute("SELECT topic FROM messages WHERE retired >= ?", (_GENERATIONS,)).fetchall()
        return [str(topic) for (topic,) in rows]

    def mark_unneeded(self, *, needed: Collection[str], among: Collection[str], now_ms: int) -> None:
        """Note of these messages that nobody needs them from now on, if that was not noted before.

        Args:
            needed: topics; of those it is forgotten.
        """
        idle = [(now_ms, topic) for topic in among if topic not in needed]
        busy = [(topic,) for topic in among if topic in needed]
        with self._lock, self._rows:
            for table in ("messages", "blocks"):
                mark = f"UPDATE {table} SET unneeded_ms = ? WHERE topic = ? AND unneeded_ms IS NULL"  # noqa: S608 - no input
                self._rows.executemany(mark, idle)
                self._rows.executemany(f"UPDATE {table} SET unneeded_ms = NULL WHERE topic = ?", busy)  # noqa: S608

    def unneeded(self) -> dict[str, int]:
        """Messages that nobody needs, and since when: milliseconds since 1970, UTC."""
        with self._lock:
            rows = self._rows.execute(
                "SELECT topic, unneeded_ms FROM messages WHERE unneeded_ms IS NOT NULL"
                " UNION ALL SELECT topic, unneeded_ms FROM blocks WHERE unneeded_ms IS NOT NULL"
            ).fetchall()
        return {str(topic): int(since) for topic, since in rows}

    def _renew_note(self) -> None:
        self._rows.execute("INSERT OR REPLACE INTO state VALUES ('note', ?)", (secrets.token_hex(16),))

    def _one(self, query: str, *values: str) -> object | None:
        row = self._rows.execute(query, values).fetchone()
        return None if row is None else row[0]
