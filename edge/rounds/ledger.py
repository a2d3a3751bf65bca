"""What this edge has answered: round numbers, questions and answers, on disk before anything leaves (SPEC 7.4, 7.7).

A round number is used once, and so is a question: two sums of the same values over different edges would give the
difference away. After a crash the stored bytes are sent again; nothing is ever computed twice for one round.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge import durable
from protocol.acceptance import Standing
from protocol.announcement import Announcement, Purpose
from protocol.errors import RefusedByPolicyError, UnavailableError

_DAY_MS = 24 * 60 * 60 * 1000
_ANSWERS_KEPT = 2
_TABLES = """
CREATE TABLE IF NOT EXISTS begun (
    round INTEGER PRIMARY KEY, announcement BLOB NOT NULL, center_epoch INTEGER NOT NULL, begun_ms INTEGER NOT NULL,
    answered INTEGER NOT NULL DEFAULT 0, opened INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS questions (
    question TEXT PRIMARY KEY, statistic TEXT NOT NULL, round INTEGER NOT NULL, until INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS epochs (epoch INTEGER PRIMARY KEY) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a round asks, however it asks it (SPEC 7.7).

    Attributes:
        name: the purpose, and the weights or the window it is about.
        statistic: events count once in each; empty where an event may count again, as in training or when
            a candidate is measured.
    """

    name: str
    statistic: str = ""

    @classmethod
    def of(cls, asked: Announcement) -> "Question":
        subject = f"{asked.purpose.value} {asked.submodel}"
        if asked.purpose is Purpose.TRAIN:
            return cls(name=f"{subject} {asked.weights_sha256.hex()}")
        statistic = "" if asked.purpose is Purpose.EVALUATE else subject
        return cls(name=f"{subject} window {asked.window}", statistic=statistic)


class Ledger:
    """A small SQLite file of its own and a folder of answers beside it: the learner writes them, nothing else does."""

    def __init__(self, path: Path) -> None:
        """Open, or create.

        Raises:
            UnavailableError: not a database, or not writable.
        """
        self._answers = path.with_name("answers")
        try:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_TABLES)
        except sqlite3.Error as error:
            raise UnavailableError(
                f"{path}: {error}", advice="join again: round numbers must not be guessed"
            ) from error

    def close(self) -> None:
        self._db.close()

    def standing(self) -> Standing:
        row = self._db.execute("SELECT max(round), max(center_epoch) FROM begun").fetchone()
        return Standing(last_round=row[0] or 0, last_epoch=row[1] or 0)

    def round_of(self, announcement: bytes) -> int | None:
        """The round begun for exactly this announcement (its 32-byte digest), if there is one."""
        row = self._db.execute("SELECT round FROM begun WHERE announcement = ?", (announcement,)).fetchone()
        return row[0] if row else None

    def answer_to(self, announcement: bytes) -> bytes | None:
        """The stored answer to exactly this announcement, if there is one."""
        row = self._db.execute(
            "SELECT round FROM begun WHERE announcement = ? AND answered", (announcement,)
        ).fetchone()
        path = self._answer(row[0] if row else 0)
        return path.read_bytes() if row and path.exists() else None

    def mark(self, asked: Announcement) -> int:
        """The newest event that this statistic has counted, 0 at first."""
        row = self._db.execute(
            "SELECT max(until) FROM questions JOIN begun USING (round) WHERE statistic = ? AND answered",
            (Question.of(asked).statistic,),
        ).fetchone()
        return row[0] or 0

    def begin(self, asked: Announcement, *, until: int, now_ms: int) -> None:
        """Use a round number and a question up, durably.

        Args:
            until: the newest event that the answer will count.

        Raises:
            RefusedByPolicyError: the question has been answered in another round.
        """
        question = Question.of(asked)
        with self._transaction() as db:
            # What was begun and never answered, after a crash or a full disk, has told nobody anything.
            db.execute("DELETE FROM questions WHERE round IN (SELECT round FROM begun WHERE NOT answered)")
            row = db.execute("SELECT round FROM questions WHERE question = ?", (question.name,)).fetchone()
            if row is not None:
                raise RefusedByPolicyError(f"this site has answered this question in round {row[0]}")
            _use_up(db, asked, now_ms=now_ms)
            db.execute(
                "INSERT INTO questions (question, statistic, round, until) VALUES (?, ?, ?, ?)",
                (question.name, question.statistic, asked.round, until),
            )

    def give_up(self, asked: Announcement, *, now_ms: int) -> None:
        """Use a round number up without an answer."""
        with self._transaction() as db:
            _use_up(db, asked, now_ms=now_ms)

    def note_opened(self, number: int) -> None:
        """Remember that this edge has helped to open a round's sum: it can never say otherwise."""
        with self._transaction() as db:
            db.execute("UPDATE begun SET opened = 1 WHERE round = ?", (number,))

    def has_opened(self, announcement: bytes) -> bool:
        row = self._db.execute("SELECT opened FROM begun WHERE announcement = ?", (announcement,)).fetchone()
        return bool(row and row[0])

    def reopen(self, number: int) -> None:
        """Free the question of a round that nobody can open any more (SPEC 8.3)."""
        with self._transaction() as db:
            db.execute("DELETE FROM questions WHERE round = ?", (number,))

    def keep_answer(self, number: int, answer: bytes) -> None:
        """Store an answer before it leaves; only the newest few are kept."""
        durable.write(self._answer(number), answer, private=True)
        with self._transaction() as db:
            db.execute("UPDATE begun SET answered = 1 WHERE round = ?", (number,))
        kept = sorted(self._answers.glob("*.bin"), key=lambda path: int(path.stem))
        for path in kept[:-_ANSWERS_KEPT]:
            path.unlink()

    def _answer(self, number: int) -> Path:
        return self._answers / f"{number}.bin"

    def begun_since(self, now_ms: int) -> int:
        """Rounds begun in the 24 hours before now."""
        row = self._db.execute("SELECT count(*) FROM begun WHERE begun_ms > ?", (now_ms - _DAY_MS,)).fetchone()
        return int(row[0])

    def last_key_epoch(self) -> int:
        """The newest key epoch that this edge has followed, 0 at first."""
        return int(self._db.execute("SELECT max(epoch) FROM epochs").fetchone()[0] or 0)

    def follow(self, epoch: int) -> None:
        """Use the number of a key epoch up, durably."""
        with self._transaction() as db:
            db.execute("INSERT INTO epochs (epoch) VALUES (?)", (epoch,))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _use_up(db: sqlite3.Connection, asked: Announcement, *, now_ms: int) -> None:
    db.execute(
        "INSERT INTO begun (round, announcement, center_epoch, begun_ms) VALUES (?, ?, ?, ?)",
        (asked.round, asked.digest(), asked.center_epoch, now_ms),
    )
