"""A release directory in the making: blocks in any order -> verified files, resumable after any interruption.

No journal is kept. Blocks are encrypted deterministically, so whether a block already lies on the disk (from an
interrupted download, or unchanged in the release that is being served) is found by encrypting what lies there.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import file_digest
from pathlib import Path

from edge import durable
from edge.releases.growing_file import GrowingFile
from protocol import blocks
from protocol.blocks import BlockCipher
from protocol.bundle import FileDigest, Manifest, check_directory
from protocol.errors import BadSignatureError, NoSpaceError, UntrustedReleaseError
from protocol.release import Offer
from protocol.sealing import digest

_KEEP_FREE_BYTES = 64 * 1024**2
_SECTOR_BYTES = 512
_HANDS = 8
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
    """The files of one manifest on their way to being complete. Close it."""

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
            folder: for releases of this kind in the making. What belongs to another manifest is used and removed.
            known: directories of older releases whose blocks may be the same.
            keep_free: bytes of the disk that are left to others.

        Raises:
            NoSpaceError: the disk has no room for what is missing.
        """
        self._manifest = manifest
        self._cipher = cipher
        self._places: dict[str, list[tuple[GrowingFile, int]]] = {}
        self._complete = folder / manifest.bundle_digest
        self._partial = folder / f"{manifest.bundle_digest}.part"
        self._files = {path: GrowingFile(self._partial / path, entry) for path, entry in manifest.files.items()}
        try:
            with disk_errors(f"cannot make room for {manifest.total_bytes} bytes"):
                folder.mkdir(parents=True, exist_ok=True)
                if self._complete.exists() and not self._is_whole():
                    shutil.rmtree(self._complete)
                if not self._complete.exists():
                    if _has_links(self._partial):  # not ours: what is written must stay in here
                        shutil.rmtree(self._partial)
                    others = [path for path in folder.iterdir() if path != self._partial]
                    self._check_room(others, keep_free)
                    self._prepare([*known, *others])
                _remove_all_but({self._complete, self._partial}, folder)
        except BaseException:
            self.close()
            raise

    def missing(self) -> list[str]:
        """Digests of the blocks that have to be fetched, each once."""
        return list(self._places)

    def put(self, block: str, payload: bytes) -> None:
        """Check one block and write it wherever it belongs.

        Raises:
            DamagedBlockError: not what the manifest names.
            NoSpaceError: the disk is full.
        """
        plaintext = self._cipher.open_part(payload, expected=block)
        places = self._places[block]
        if any(len(plaintext) != file.length(index) for file, index in places):
            raise UntrustedReleaseError(f"block {block[:12]} has {len(plaintext)} bytes, its place has another length")
        with disk_errors(f"cannot store block {block[:12]}"):
            for file, index in places:
                file.write(index, plaintext)
        del self._places[block]

    def finish(self) -> Path:
        """Make the files durable and give the directory its final name.

        Each block was what the signed manifest names, and a named block has one content only. The files are not read
        once more here: who installs them measures them at their place (SPEC 9.3).

        Raises:
            BadSignatureError: a block is missing, or there is a file that the manifest does not list.
            NoSpaceError: the disk is full.
        """
        if self._places:
            raise BadSignatureError(f"{len(self._places)} blocks are missing")
        if not self._complete.exists():
            with disk_errors("cannot finish the download"):
                _check_tree(self._partial, self._manifest)
                with ThreadPoolExecutor(_HANDS) as hands:  # together they wait for the disk once
                    list(hands.map(GrowingFile.flush, self._files.values()))
                self._partial.rename(self._complete)
                durable.flush_directory(self._complete.parent)
        return self._complete

    def close(self) -> None:
        """Leave what is there as it is; another assembly takes it up."""
        for file in self._files.values():
            file.close()

    def _is_whole(self) -> bool:
        try:
            check_directory(self._manifest, measure(self._complete))
        except (BadSignatureError, UntrustedReleaseError):
            return False
        return True

    def _prepare(self, known: Sequence[Path]) -> None:
        for path, file in self._files.items():
            sources = [found for folder in (self._partial, *known) if (found := folder / path).is_file()]
            file.make_room()
            if not any(file.take_over(source) for source in sources):
                for index, block in enumerate(file.entry.blocks):
                    self._look_for(block, file, index, sources)

    def _look_for(self, block: str, file: GrowingFile, index: int, sources: Sequence[Path]) -> None:
        for source in sources:
            plaintext = _read(source, index, file.length(index))
            if plaintext and digest(self._cipher.seal(plaintext)) == block:
                if source != file.path:
                    file.write(index, plaintext)
                return
        self._places.setdefault(block, []).append((file, index))

    def _check_room(self, others: Sequence[Path], keep_free: int) -> None:
        needed = self._manifest.total_bytes - _allocated(self._partial)
        free = shutil.disk_usage(self._complete.parent).free
        if free < needed + keep_free:
            for path in others:  # they would have saved traffic; the disk has no room for both
                shutil.rmtree(path)
            free = shutil.disk_usage(self._complete.parent).free
        if free < needed + keep_free:
            raise NoSpaceError(
                f"{needed} bytes are missing from this release, the disk has {free} left",
                advice="free some disk space",
            )


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


def _check_tree(directory: Path, manifest: Manifest) -> None:
    """Is there nothing but the files of a manifest, and are their names durable?"""
    expected = {directory / path for path in manifest.files}
    for root, folders, names in os.walk(directory):
        for path in (Path(root, name) for name in [*folders, *names]):
            if path.is_symlink() or (path.is_file() and path not in expected):
                raise BadSignatureError(f"{path.relative_to(directory)} does not belong to this release")
        durable.flush_directory(Path(root))


def _has_links(directory: Path) -> bool:
    return directory.is_symlink() or any(path.is_symlink() for path in directory.rglob("*"))


def _read(file: Path, index: int, size: int) -> bytes:
    with file.open("rb") as source:
        source.seek(index * blocks.BLOCK_BYTES)
        return source.read(size)


def _allocated(directory: Path) -> int:
    """Bytes that the files of a directory take on the disk already."""
    return sum(path.stat().st_blocks * _SECTOR_BYTES for path in directory.rglob("*") if path.is_file())


def _remove_all_but(kept: set[Path], folder: Path) -> None:
    for path in folder.iterdir():
        if path not in kept:
            shutil.rmtree(path)
