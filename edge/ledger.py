"""What this edge has answered: round numbers and answers, on disk before anything leaves (SPEC 7.4).

A round number is used once. After a crash the stored bytes are sent again; nothing is ever computed twice for one
round, since two vectors under the same masks would show their difference.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import UnavailableError

_DAY_MS = 24 * 60 * 60 * 1000
_ANSWERS_KEPT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far this edge has gone.

    Attributes:
        last_round: the highest round number begun, 0 at first.
        last_epoch: the highest center epoch seen.
    """

    last_round: int
    last_epoch: int


class Ledger:
    """A small SQLite file of its own: the learner writes it, nothing else does."""

    def __init__(self, path: Path) -> None:
        """Open, or create.

        Raises:
            UnavailableError: not a database, or not writable.
        """
        try:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS rounds (round INTEGER PRIMARY KEY, announcement BLOB NOT NULL,"
                " epoch INTEGER NOT NULL, begun_ms INTEGER NOT NULL, answer BLOB)"
            )
        except sqlite3.Error as error:
            raise UnavailableError(
                f"{path}: {error}", advice="join again: round numbers must not be guessed"
            ) from error

    def close(self) -> None:
        self._db.close()

    def standing(self) -> Standing:
        row = self._db.execute("SELECT max(round), max(epoch) FROM rounds").fetchone()
        return Standing(last_round=row[0] or 0, last_epoch=row[1] or 0)

    def answer_to(self, announcement: bytes) -> bytes | None:
        """The stored answer to exactly this announcement (its 32-byte digest), if there is one."""
        row = self._db.execute("SELECT answer FROM rounds WHERE announcement = ?", (announcement,)).fetchone()
        return row[0] if row else None

    def begin(self, number: int, *, announcement: bytes, epoch: int, now_ms: int) -> None:
        """Use a round number up, durably."""
        self._db.execute(
            "INSERT INTO rounds (round, announcement, epoch, begun_ms) VALUES (?, ?, ?, ?)",
            (number, announcement, epoch, now_ms),
        )

    def keep_answer(self, number: int, answer: bytes) -> None:
        """Store an answer before it leaves; only the newest few are kept."""
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("UPDATE rounds SET answer = ? WHERE round = ?", (answer, number))
        self._db.execute("UPDATE rounds SET answer = NULL WHERE round <= ?", (number - _ANSWERS_KEPT,))
        self._db.execute("COMMIT")

    def begun_since(self, now_ms: int) -> int:
        """Rounds begun in the 24 hours before now."""
        row = self._db.execute("SELECT count(*) FROM rounds WHERE begun_ms > ?", (now_ms - _DAY_MS,)).fetchone()
        return int(row[0])
