"""What this edge has installed, tried, kept and refused, in a log that cannot be rewritten unseen (SPEC 9.13)."""

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from edge.records.schema import explain
from protocol import canonical
from protocol.audit import GENESIS, Entry, check_chain
from protocol.errors import BadInputError, FederationError

FILE_NAME = "audit.db"
_SCHEMA = "CREATE TABLE IF NOT EXISTS entries (seq INTEGER PRIMARY KEY, entry BLOB NOT NULL) STRICT"
_ALL = "SELECT entry FROM entries ORDER BY seq"
_LAST = "SELECT entry FROM entries ORDER BY seq DESC LIMIT 1"
_WAIT_SECONDS = 10.0


class AuditLog:
    """The log of one edge's folder. Any thread and any process may write; entries are on disk when `note` returns."""

    def __init__(self, directory: Path) -> None:
        """Open it, making it where needed.

        Raises:
            BadInputError: the file is damaged; UnavailableError: it cannot be opened; NoSpaceError: the disk is full.
        """
        self._path = directory / FILE_NAME
        self._turn = threading.Lock()
        with self._plainly():
            self._database = sqlite3.connect(
                self._path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            with self._plainly():
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")
                self._database.execute(_SCHEMA)
        except FederationError:
            self._database.close()
            raise

    def note(self, kind: str, *, time_ms: int, **facts: Any) -> Entry:
        """Write one entry after the last.

        Raises:
            NoSpaceError: the disk is full; UnavailableError: another process holds the log.
            BadInputError: the file is damaged.
        """
        with self._turn, self._plainly():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                last = next(_read(self._database.execute(_LAST)), None)
                entry = Entry.after(last, time_ms=time_ms, kind=kind, facts=facts)
                self._database.execute("INSERT INTO entries VALUES (?, ?)", (entry.seq, entry.to_bytes()))
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        return entry

    def entries(self) -> list[Entry]:
        """All of them, oldest first.

        Raises:
            MalformedMessageError: one has been changed into something else.
            BadInputError: the file is damaged.
        """
        with self._turn, self._plainly():
            return list(_read(self._database.execute(_ALL)))

    def head(self) -> str:
        """The digest of the last entry, which the center is told: it holds this log to its word.

        Raises:
            BadInputError: the file is damaged; UnavailableError: another process holds it.
        """
        with self._turn, self._plainly():
            last = next(_read(self._database.execute(_LAST)), None)
        return last.digest if last else GENESIS

    def check(self, *, head: str | None = None) -> str:
        """Is every entry the one that was written after the one before?

        Args:
            head: a digest noted elsewhere.

        Returns:
            The digest of the last one; `GENESIS` where there is none.

        Raises:
            UntrustedError: one was changed, removed or put in.
        """
        return check_chain(self.entries(), head=head)

    def close(self) -> None:
        with self._turn:
            self._database.close()

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise explain(error, self._path) from error


def _read(rows: Iterable[tuple[bytes]]) -> Iterator[Entry]:
    return (Entry.from_bytes(data) for (data,) in rows)


def read(directory: Path) -> list[Entry]:
    """The log of an edge's folder, for commands.

    Raises:
        BadInputError: there is none yet, or it is damaged.
    """
    if not (directory / FILE_NAME).exists():
        raise BadInputError(f"{directory} has no audit log yet", advice="it begins with hanse-edge serve")
    with closing(AuditLog(directory)) as log:
        return log.entries()


def as_json(entry: Entry) -> dict[str, Any]:
    """An entry for programs."""
    decoded: dict[str, Any] = canonical.decode(entry.to_bytes())
    return {**decoded, "digest": entry.digest}
