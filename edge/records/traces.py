"""Whether a name is really gone from the file, and what is done when it is not.

Deleted cells are overwritten (`PRAGMA secure_delete`), and the log is emptied into the file. But when a page of a
B-tree is split, SQLite leaves the moved cells' bytes in what is now unused space of the old page, and nothing
overwrites them later: about one name in a thousand is left so. Whoever wants to be forgotten should not be that one,
so the file is searched, and what holds a copy is written anew. Source: https://www.sqlite.org/fileformat2.html
"""

import shutil
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

LITTLE_ENOUGH: Final = 512 << 20
"""Bytes of a store that is written anew as a whole: some seconds."""
_PIECE = 1 << 22
_BUSY_MS = 1_000
_WIDTHS = (1, 2, 3, 4, 6, 8)


def of(key: int, names: Iterable[str]) -> set[bytes]:
    """What stands in the file of somebody with this key: in the table of users, and in the indexes of names.

    A name by itself would be found where it is somebody else's, or an item's.
    """
    return {trace for name in names if (raw := name.encode()) for trace in (_in_table(key, raw), _in_index(key, raw))}


def clean(
    writer: sqlite3.Connection, path: Path, sought: Collection[bytes], *, turn: AbstractContextManager[Any]
) -> bool:
    """Empty the log into the file and leave none of these traces in it.

    Args:
        turn: held while the writer is used; not while the file is searched.

    Returns:
        False: a reader held the log for too long, or the store is too large to be written anew at once.
    """
    for change in ("", "REINDEX users", "VACUUM"):
        if change == "VACUUM" and not _may_be_written_anew(path):
            return False
        with turn:
            if change:
                writer.execute(change)
            if not _emptied(writer):
                return False
        if not _found(path, sought):
            return True
    return False


def _may_be_written_anew(path: Path) -> bool:
    size = path.stat().st_size
    return size <= LITTLE_ENOUGH and shutil.disk_usage(path.parent).free > 2 * size


def _in_table(key: int, name: bytes) -> bytes:
    """A cell of a table: key, length of the header, type of the key (it is the row's), type of the name, name."""
    kind = _varint(2 * len(name) + 13)
    return _varint(key) + bytes([2 + len(kind), 0]) + kind + name


def _in_index(key: int, name: bytes) -> bytes:
    """An entry of an index: the types, the name, the key; 0 and 1 take no bytes."""
    if key < 2:  # noqa: PLR2004
        return name
    width = next(width for width in _WIDTHS if key < 1 << (8 * width - 1))
    return name + key.to_bytes(width, "big")


def _varint(value: int) -> bytes:
    """SQLite's, of numbers below 2**56: seven bits a byte, the highest first."""
    groups = [value & 127]
    while value := value >> 7:
        groups.append(value & 127 | 128)
    return bytes(reversed(groups))


def _emptied(writer: sqlite3.Connection) -> bool:
    """The log is in the file, and is empty."""
    (before,) = writer.execute("PRAGMA busy_timeout").fetchone()
    writer.execute(f"PRAGMA busy_timeout={_BUSY_MS}")  # a long read must not stop all writing
    try:
        return not writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        writer.execute(f"PRAGMA busy_timeout={before}")


def _found(path: Path, sought: Collection[bytes]) -> bool:
    longest = max(map(len, sought), default=0)
    return any(raw in piece for piece in _pieces(path, overlap=longest) for raw in sought)


def _pieces(path: Path, *, overlap: int) -> Iterator[bytes]:
    kept = b""
    with path.open("rb") as file:
        while fresh := file.read(_PIECE):
            piece = kept + fresh
            yield piece
            kept = piece[-overlap:] if overlap else b""
