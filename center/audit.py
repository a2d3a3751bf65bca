"""The center's audit log: a chain of entries in `registry.db`, each written in the transaction of what it tells.

What edges are told under signed metadata names its head (SPEC 9.13), so that it cannot be rewritten unseen.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from protocol.audit import GENESIS, Entry

SCHEMA: Mapping[str, Any] = {"columns": {"seq": int, "entry": bytes}, "pk": "seq"}


def append(db: sqlite3.Connection, kind: str, facts: Mapping[str, Any], *, now_ms: int) -> Entry:
    """Write the next entry; the caller owns the transaction."""
    entry = Entry.after(_last(db), time_ms=now_ms, kind=kind, facts=facts)
    db.execute("INSERT INTO audit (seq, entry) VALUES (?, ?)", (entry.seq, entry.to_bytes()))
    return entry


def entries(db: sqlite3.Connection) -> Iterator[Entry]:
    """All entries, the oldest first.

    Raises:
        MalformedMessageError: one of them is damaged.
    """
    for (data,) in db.execute("SELECT entry FROM audit ORDER BY seq").fetchall():
        yield Entry.from_bytes(data)


def head(db: sqlite3.Connection) -> str:
    """Digest of the newest entry, hexadecimal; `GENESIS` before the first."""
    last = _last(db)
    return last.digest if last else GENESIS


def _last(db: sqlite3.Connection) -> Entry | None:
    row = db.execute("SELECT entry FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    return Entry.from_bytes(row[0]) if row else None
