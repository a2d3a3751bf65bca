"""Every client certificate that the center has given and that has not ended: who holds it, and whether it still counts.

A table of its own in ``registry.db``. Several processes share it, so every method is one transaction.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from protocol.errors import BadInputError, UnavailableError
from protocol.identity import EdgeId

_DAY_MS = 24 * 60 * 60 * 1000
_MOST_A_DAY = 8
_TABLE = (
    "CREATE TABLE IF NOT EXISTS certificates (serial TEXT PRIMARY KEY, edge TEXT, key TEXT, pem TEXT, "
    "issued_ms INTEGER, ends_ms INTEGER, revoked_ms INTEGER)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """A certificate that counts no more.

    Attributes:
        serial: its number.
        edge: whose it was.
        since_ms: UTC.
    """

    serial: int
    edge: EdgeId
    since_ms: int


class Certificates:
    """Opened by the path of the registry; made there if it is not."""

    def __init__(self, path: Path) -> None:
        """Open.

        Raises:
            UnavailableError: the file is not a database, or cannot be written.
        """
        self._turn = threading.Lock()
        try:
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute(_TABLE)
        except sqlite3.Error as error:
            raise UnavailableError(f"{path}: {error}", advice="restore it from a backup") from error

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._turn:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def issue(self, edge: EdgeId, *, key: str, make: Callable[[], x509.Certificate], now_ms: int) -> str:
        """The certificate of one key, made now or when it was first asked for; written down before it is handed out.

        Args:
            key: digest of the public key: who asks twice, because an answer was lost, gets the same answer.
            make: signs a new one.

        Returns:
            PEM.

        Raises:
            BadInputError: this edge has asked too often today, or that key's certificate was revoked.
        """
        with self._transaction() as db:
            db.execute("DELETE FROM certificates WHERE ends_ms < ?", (now_ms,))
            known = db.execute("SELECT pem, edge, revoked_ms FROM certificates WHERE key = ?", (key,)).fetchone()
            if known is not None and (known[1] != edge or known[2] is not None):
                raise BadInputError("this key has had a certificate before", advice="ask with a new key")
            if known is not None:
                return str(known[0])
            today = db.execute(
                "SELECT COUNT(*) FROM certificates WHERE edge = ? AND issued_ms > ? AND revoked_ms IS NULL",
                (edge, now_ms - _DAY_MS),
            ).fetchone()[0]
            if today >= _MOST_A_DAY:
                raise BadInputError(f"{edge} has had {today} certificates today", advice="ask again tomorrow")
            certificate = make()
            pem = certificate.public_bytes(Encoding.PEM).decode("ascii")
            ends_ms = int(certificate.not_valid_after_utc.timestamp() * 1000)
            db.execute(
                "INSERT INTO certificates (serial, edge, key, pem, issued_ms, ends_ms) VALUES (?, ?, ?, ?, ?, ?)",
                (f"{certificate.serial_number:x}", edge, key, pem, now_ms, ends_ms),
            )
            return pem

    def revoke(self, edge: EdgeId, *, now_ms: int) -> int:
        """All certificates of this edge count no more, from now on.

        Returns:
            How many still did.
        """
        with self._transaction() as db:
            return db.execute(
                "UPDATE certificates SET revoked_ms = ? WHERE edge = ? AND revoked_ms IS NULL", (now_ms, edge)
            ).rowcount

    def revoked(self, *, now_ms: int) -> tuple[Revoked, ...]:
        """What was revoked and has not ended by itself."""
        with self._turn:
            rows = self._connection.execute(
                "SELECT serial, edge, revoked_ms FROM certificates WHERE revoked_ms IS NOT NULL AND ends_ms >= ? "
                "ORDER BY serial",
                (now_ms,),
            ).fetchall()
        return tuple(Revoked(serial=int(row[0], 16), edge=EdgeId(row[1]), since_ms=row[2]) for row in rows)

    def holders(self) -> frozenset[EdgeId]:
        """Who holds a certificate that counts."""
        with self._turn:
            rows = self._connection.execute("SELECT DISTINCT edge FROM certificates WHERE revoked_ms IS NULL")
            return frozenset(EdgeId(row[0]) for row in rows)
