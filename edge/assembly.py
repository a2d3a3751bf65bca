"""A release directory in the making: blocks in any order -> verified files, resumable after any interruption.

No journal is kept. Blocks are encrypted deterministically, so whether a block already lies on the disk (from an
interrupted download, or unchanged in the release that is being served) is found by encrypting what lies there.
"""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import file_digest
from pathlib import Path

from edge import durable
from protocol import blocks
from protocol.blocks import BlockCipher
from protocol.bundle import FileDigest, Manifest, check_directory
from protocol.errors import NoSpaceError, UntrustedReleaseError
from protocol.release import Offer
from protocol.sealing import digest

_KEEP_FREE_BYTES = 8 * 1024**2
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A complete, verified release on this disk, ready to be installed.

    Attributes:
        directory: its files, as the manifest lists them.
        expires: UTC, when the metadata that offered it stop being believed.
    """

    directory: Path
    offer: Offer
    manifest: Manifest
    expires: datetime


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Say in our words that the disk is full.

    Raises:
        NoSpaceError: instead of the operating system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpaceError(f"{doing}: {error.strerror}", advice="free some disk space") from error
        raise


class Assembly:
    """The files of one manifest on their way to being complete."""

    def __init__(
        self,
        manifest: Manifest,
        *,
        folder: Path,
        cipher: BlockCipher,
        known: Sequence[Path] = (),
        keep_free: int = _KEEP_FREE_BYTES,
    ) -> None:
        """Take up where an earlier attempt stopped.

        Args:
            folder: for releases of this kind in the making; what belongs to another manifest is removed.
            known: directories of older releases whose blocks may be the same.
            keep_free: bytes of the disk that are left to others.

        Raises:
            NoSpaceError: the disk has no room for what is missing.
        """
        self._manifest = manifest
        self._cipher = cipher
        self._keep_free = keep_free
        self._places: dict[str, list[tuple[str, int]]] = {}
        name = digest(manifest.to_bytes())
        self._complete = folder / name
        self._partial = folder / f"{name}.part"
        with disk_errors(f"cannot make room for {manifest.total_bytes} bytes"):
            _remove_all_but({self._complete, self._partial}, folder)
            if not self._complete.exists():
                self._prepare(known)

    def missing(self) -> list[str]:
        """Digests of the blocks that have to be fetched, each once."""
        return list(self._places)

    def put(self, block: str, payload: bytes) -> None:
        """Check one block and write it wherever it belongs.

        Raises:
            DamagedBlockError: not what the manifest names.
            NoSpaceError: the disk is full.
        """
        plaintext = self._cipher.open(payload, expected=block)
        places = self._places[block]
        if any(len(plaintext) != blocks.length(self._size(path), index) for path, index in places):
            raise UntrustedReleaseError(f"block {block[:12]} has {len(plaintext)} bytes, its place has another length")
        with disk_errors(f"cannot store block {block[:12]}"):
            for path, index in places:
                self._write(path, index, plaintext)
        del self._places[block]

    def finish(self) -> Path:
        """Check every file from the disk and give the directory its final name.

        Raises:
            BadSignatureError: a file does not hold what the manifest says.
        """
        if not self._complete.exists():
            with disk_errors("cannot finish the download"):
                check_directory(self._manifest, measure(self._partial, flush=True))
                self._partial.rename(self._complete)
                durable.flush_directory(self._complete.parent)
        return self._complete

    def _prepare(self, known: Sequence[Path]) -> None:
        self._partial.mkdir(parents=True, exist_ok=True)
        for path, entry in self._manifest.files.items():
            here = self._partial / path
            here.parent.mkdir(parents=True, exist_ok=True)
            sources = [here, *(folder / path for folder in known)]
            found = [file for file in sources if file.is_file()]
            with here.open("ab") as file:
                file.truncate(entry.file.size)
            for index, block in enumerate(entry.blocks):
                if not self._already_here(path, index, block, found):
                    self._places.setdefault(block, []).append((path, index))
        self._check_room()

    def _already_here(self, path: str, index: int, block: str, found: Iterable[Path]) -> bool:
        for file in found:
            plaintext = _read(file, index, blocks.length(self._size(path), index))
            if plaintext and digest(self._cipher.seal(plaintext)) == block:
                if file != self._partial / path:
                    self._write(path, index, plaintext)
                return True
        return False

    def _check_room(self) -> None:
        needed = sum(blocks.length(self._size(path), i) for places in self._places.values() for path, i in places)
        free = shutil.disk_usage(self._partial).free
        if free < needed + self._keep_free:
            raise NoSpaceError(
                f"{needed} bytes are missing from this release, the disk has {free} left",
                advice="free some disk space",
            )

    def _size(self, path: str) -> int:
        return self._manifest.files[path].file.size

    def _write(self, path: str, index: int, plaintext: bytes) -> None:
        with (self._partial / path).open("r+b") as file:
            file.seek(index * blocks.BLOCK_BYTES)
            file.write(plaintext)


def measure(directory: Path, *, flush: bool = False) -> dict[str, FileDigest]:
    """Size and digest of every file in a directory, read from the disk.

    Args:
        flush: make files and names durable on the way.

    Raises:
        UntrustedReleaseError: there is a link or something else that is no file.
    """
    found: dict[str, FileDigest] = {}
    for root, folders, names in os.walk(directory):
        for name in [*folders, *names]:
            path = Path(root, name)
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise UntrustedReleaseError(f"{path} is neither a file nor a folder")
        for name in names:
            path = Path(root, name)
            found[path.relative_to(directory).as_posix()] = _measure_file(path, flush=flush)
        if flush:
            durable.flush_directory(Path(root))
    return found


def _measure_file(path: Path, *, flush: bool) -> FileDigest:
    with path.open("rb") as file:
        if flush:
            os.fsync(file.fileno())
        return FileDigest(size=path.stat().st_size, sha256=file_digest(file, "sha256").hexdigest())


def _read(file: Path, index: int, size: int) -> bytes:
    with file.open("rb") as source:
        source.seek(index * blocks.BLOCK_BYTES)
        return source.read(size)


def _remove_all_but(kept: set[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path not in kept:
            shutil.rmtree(path)
