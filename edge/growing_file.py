"""One file that arrives block by block, in any order, and is hashed on the way: nothing is read twice."""

import os
from hashlib import sha256
from pathlib import Path

from protocol import blocks
from protocol.bundle import Entry, FileDigest

_CHUNK_BYTES = 1024 * 1024


class GrowingFile:
    """A file of its final size whose blocks are filled in; opened when the first is, closed when it is complete."""

    def __init__(self, path: Path, entry: Entry) -> None:
        """Nothing is opened yet.

        Args:
            entry: what the file is to become.
        """
        self.path = path
        self.entry = entry
        self._handle: int | None = None
        self._hash = sha256()
        self._hashed = 0  # blocks, from the start
        self._ahead: set[int] = set()  # there, but not hashed yet: one before them is missing
        self._digest: str | None = None

    @property
    def found(self) -> FileDigest | None:
        """Size and digest of what was written, once all of it is there."""
        return FileDigest(size=self.entry.file.size, sha256=self._digest) if self._digest is not None else None

    def length(self, index: int) -> int:
        """Bytes of a block."""
        return blocks.length(self.entry.file.size, index)

    def read(self, index: int) -> bytes:
        """A block as it lies on the disk now."""
        return os.pread(self._open(), self.length(index), index * blocks.BLOCK_BYTES)

    def write(self, index: int, plaintext: bytes) -> None:
        """Fill in a block.

        Raises:
            OSError: the disk is full.
        """
        self._put(plaintext, index * blocks.BLOCK_BYTES)
        self.keep(index, plaintext)

    def keep(self, index: int, plaintext: bytes | None = None) -> None:
        """Count a block that lies there already.

        Args:
            plaintext: its content, if it is at hand.
        """
        if index != self._hashed or plaintext is None:
            self._ahead.add(index)
        else:
            self._take(plaintext)
        while self._hashed in self._ahead:
            self._ahead.discard(self._hashed)
            self._take(self.read(self._hashed))
        if self._hashed == len(self.entry.blocks):
            self._finish()

    def copy(self, source: Path) -> bool:
        """Take all of it from another file, if that is the same."""
        if source.stat().st_size != self.entry.file.size:
            return False
        offset, seen = 0, sha256()
        with source.open("rb") as file:
            while piece := file.read(_CHUNK_BYTES):
                seen.update(piece)
                if source != self.path:
                    self._put(piece, offset)
                offset += len(piece)
        if seen.hexdigest() != self.entry.file.sha256:
            return False
        self._hash, self._hashed = seen, len(self.entry.blocks)
        self._finish()
        return True

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def make_room(self) -> None:
        """Give the file its final size; what lies in it already stays.

        Raises:
            OSError: the disk is full.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.ftruncate(self._open(), self.entry.file.size)
        if not self.entry.blocks:
            self._finish()

    def _put(self, data: bytes, offset: int) -> None:
        handle, rest = self._open(), memoryview(data)
        while rest:
            written = os.pwrite(handle, rest, offset)
            offset, rest = offset + written, rest[written:]

    def _take(self, plaintext: bytes) -> None:
        self._hash.update(plaintext)
        self._hashed += 1

    def _finish(self) -> None:
        self._digest = self._hash.hexdigest()
        os.fsync(self._open())
        self.close()

    def _open(self) -> int:
        if self._handle is None:
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        return self._handle
