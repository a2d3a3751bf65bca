"""The shape of ``store.db``: made whole or not at all, migrated step by step, recognised when it is damaged.

Users and items have integer keys, so that an event is small and a user's last events are one read of a covering index.
The tables themselves stand in `edge.records.migrations`.
"""

import os
import sqlite3
from pathlib import Path
from threading import get_ident
from typing import Final

from edge import durable
from edge.records.events import EventType
from edge.records.migrations import migrate
from protocol.errors import BadInputError, FederationError, NoSpaceError, UnavailableError

APPLICATION_ID: Final = 0x48414E53  # "HANS": whose SQLite file this is
CODE: Final = {
    EventType.VIEW: 1,
    EventType.CLICK: 2,
    EventType.ADD_TO_CART: 3,
    EventType.PURCHASE: 4,
    EventType.SEARCH: 5,
    EventType.IMPRESSION: 6,
    EventType.RATING: 7,
    EventType.REMOVE: 8,
}
"""Numbers on disk, never given to another type. Types 1 to 4 say that a user wants an item: the history index."""
TYPE_OF: Final = {code: kind for kind, code in CODE.items()}
PURCHASE: Final = CODE[EventType.PURCHASE]

_HEADER = 100
_MAGIC = b"SQLite format 3\0"
_DAMAGED_ADVICE = "restore it from a backup, or move it away and import again; it was left as it is"


def connect(path: Path, *, durability: str, cache_kib: int = 16_384) -> sqlite3.Connection:
    """A connection in WAL mode whose transactions we begin and end ourselves.

    Args:
        durability: `full`, a commit survives a power cut; `normal`, it survives kill -9.
        cache_kib: pages that it keeps, beside those that the system keeps for all.
    """
    connection = sqlite3.connect(path, timeout=15, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={'FULL' if durability == 'full' else 'NORMAL'}")
    connection.execute(f"PRAGMA cache_size=-{cache_kib}")
    connection.execute("PRAGMA secure_delete=ON")  # what is erased is overwritten
    return connection


def prepare(path: Path) -> None:
    """Make the store if there is none, and bring an older one up to date.

    Raises:
        BadInputError: the file is damaged, is no store, or was written by a newer edge. It is left as it is.
        NoSpaceError: the disk is full.
        UnavailableError: the file cannot be opened or written.
    """
    try:
        if not path.exists():
            _create(path)
            return
        _refuse_damaged(path)
        connection = sqlite3.connect(path, timeout=15, isolation_level=None)
        try:
            migrate(connection, source=str(path))
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise explain(error, path) from error
    except OSError as error:
        raise UnavailableError(f"{path} cannot be opened: {error.strerror}") from error


def explain(error: sqlite3.Error, path: Path) -> FederationError:
    """SQLite's complaint in our words: which file, and what to do."""
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
        return NoSpaceError(f"the disk that holds {path} is full", advice="free some space; nothing was written")
    if isinstance(error, sqlite3.OperationalError):
        return UnavailableError(f"{path} cannot be used: {error}", advice="is another process holding it?")
    return BadInputError(f"{path} is damaged or no store of an edge: {error}", advice=_DAMAGED_ADVICE)


def _create(path: Path) -> None:
    """Built aside and linked into place: a store that exists is whole, so an empty file is damage, not a beginning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")
    aside.unlink(missing_ok=True)
    try:
        connection = sqlite3.connect(aside, isolation_level=None)
        try:
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute("PRAGMA journal_mode=WAL")
            migrate(connection, source=str(path))
        finally:
            connection.close()
        aside.chmod(0o600)
        try:
            path.hardlink_to(aside)
        except FileExistsError:
            return  # another process was faster, and its store is as good as ours
        durable.flush_directory(path.parent)
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            aside.with_name(aside.name + suffix).unlink(missing_ok=True)


def _refuse_damaged(path: Path) -> None:
    """What SQLite would notice late, or not at all: a foreign file, a cut one, one of length zero."""
    with path.open("rb") as file:
        header = file.read(_HEADER)
    if len(header) < _HEADER or not header.startswith(_MAGIC):
        raise BadInputError(f"{path} is no SQLite database", advice=_DAMAGED_ADVICE)
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise BadInputError(
            f"{path} is not the store of an edge", advice="name another file; this one was left as it is"
        )
    page_size = int.from_bytes(header[16:18], "big")
    promised = int.from_bytes(header[28:32], "big") * (65536 if page_size == 1 else page_size)
    log = path.with_name(f"{path.name}-wal")
    # After a crash in the middle of a checkpoint the missing pages are still in the log.
    if path.stat().st_size < promised and not (log.exists() and log.stat().st_size):
        raise BadInputError(
            f"{path} has been cut: {path.stat().st_size} bytes of {promised}",
            advice=_DAMAGED_ADVICE,
        )
