"""One file that arrives block by block, in any order."""

import os
from hashlib import file_digest
from pathlib import Path

from protocol import blocks
from protocol.bundle import Entry

_CHUNK_BYTES = 1024 * 1024


class GrowingFile:
    """A file of its final size whose blocks are filled in. Close it."""

    def __init__(self, path: Path, entry: Entry) -> None:
        """Nothing is opened yet.

        Args:
            entry: what the file is to become.
        """
        self.path = path
        self.entry = entry
        self._handle: int | None = None

    def make_room(self) -> None:
        """Give the file its final size; what lies in it already stays.

        Raises:
            OSError: the disk is full.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.ftruncate(self._open(), self.entry.file.size)

    def length(self, index: int) -> int:
        """Bytes of a block."""
        return blocks.length(self.entry.file.size, index)

    def write(self, index: int, plaintext: bytes) -> None:
        """Fill in a block.

        Raises:
            OSError: the disk is full.
        """
        self._put(plaintext, index * blocks.BLOCK_BYTES)

    def take_over(self, source: Path) -> bool:
        """Copy all of another file, if that is the same; otherwise nothing changes."""
        size, sha256 = self.entry.file.size, self.entry.file.sha256
        with source.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size or file_digest(file, "sha256").hexdigest() != sha256:
                return False
            if source != self.path:
                offset = file.seek(0)
                while piece := file.read(_CHUNK_BYTES):
                    self._put(piece, offset)
                    offset += len(piece)
        return True

    def flush(self) -> None:
        """Make it durable."""
        os.fsync(self._open())

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _put(self, data: bytes, offset: int) -> None:
        handle, rest = self._open(), memoryview(data)
        while rest:
            written = os.pwrite(handle, rest, offset)
            offset, rest = offset + written, rest[written:]

    def _open(self) -> int:
        if self._handle is None:
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        return self._handle
