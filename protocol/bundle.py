"""What a directory of a release holds: the manifest that TUF signs (SPEC 9.1).

The signed manifest covers every file, card.json among them; the card repeats digests for people and other programs.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from protocol import blocks, canonical
from protocol.blocks import BlockCipher
from protocol.errors import BadInputError, BadSignatureError, MalformedMessageError
from protocol.sealing import digest

CARD = "card.json"
MAX_FILES = 256
MAX_FILE_BYTES = 4 * 1024**3
MAX_TOTAL_BYTES = 8 * 1024**3
MAX_MANIFEST_BYTES = 4 * 1024**2

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_DEPTH = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDigest:
    """Size in bytes and SHA-256 of one file."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Self:
        return cls(size=len(data), sha256=digest(data))

    @classmethod
    def from_json(cls, path: str, value: Any) -> Self:
        """Decode, refusing what could not be a file.

        Raises:
            MalformedMessageError: a field is missing, unknown or impossible.
        """
        match value:
            case {"size": int(size), "sha256": str(sha256), **rest} if not rest and _possible(size, sha256):
                return cls(size=size, sha256=sha256)
            case _:
                raise MalformedMessageError(f"size and digest of {path} cannot be read")

    def to_json(self) -> dict[str, Any]:
        return {"size": self.size, "sha256": self.sha256}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of a manifest.

    Attributes:
        blocks: SHA-256 of each encrypted block, in order.
    """

    file: FileDigest
    blocks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All files of a release and all their blocks: all an edge must check, nothing it must guess.

    Attributes:
        files: relative path -> entry.
    """

    files: Mapping[str, Entry]

    @property
    def total_bytes(self) -> int:
        return sum(entry.file.size for entry in self.files.values())

    @property
    def bundle_digest(self) -> str:
        """SHA-256 of the files' names, sizes and digests, hexadecimal: the same under every content key."""
        return bundle_digest({path: entry.file for path, entry in self.files.items()})

    def to_bytes(self) -> bytes:
        files = {
            path: {**entry.file.to_json(), "blocks": list(entry.blocks)} for path, entry in sorted(self.files.items())
        }
        return canonical.encode({"format": 1, "files": files})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode, refusing anything ``to_bytes`` would not have written.

        Raises:
            MalformedMessageError: not a manifest, an unsafe path, too many or too large files.
        """
        if len(data) > MAX_MANIFEST_BYTES:
            raise MalformedMessageError(f"a manifest of {len(data)} bytes is too long")
        match canonical.decode(data):
            case {"format": 1, "files": dict(files), **rest} if not rest:
                manifest = cls(files={path: _entry(path, value) for path, value in files.items()})
            case _:
                raise MalformedMessageError("not a manifest of format 1")
        check_paths(manifest.files)
        if CARD not in manifest.files:
            raise MalformedMessageError(f"the manifest lists no {CARD}")
        if manifest.total_bytes > MAX_TOTAL_BYTES:
            raise MalformedMessageError(f"a release of {manifest.total_bytes} bytes is too large")
        if manifest.to_bytes() != data:
            raise MalformedMessageError("not a manifest as we write it")
        return manifest


def bundle_digest(files: Mapping[str, FileDigest]) -> str:
    """What names a set of files, however they travel (SPEC 9.1); hexadecimal."""
    listed = {path: file.to_json() for path, file in files.items()}
    return digest(canonical.encode({"format": 1, "files": listed}))


def describe(
    files: Iterable[tuple[str, bytes]],
    *,
    cipher: BlockCipher,
    sealed: Callable[[str, bytes], object] = lambda _name, _payload: None,
) -> Manifest:
    """The manifest of these files.

    Args:
        files: relative path and content of each, one at a time in memory.
        sealed: is given digest and payload of each block, as they are made.

    Raises:
        BadInputError: a path that an edge would refuse, or twice the same.
    """
    entries: dict[str, Entry] = {}
    for path, data in files:
        if path in entries:
            raise BadInputError(f"{path} is there twice")
        names = []
        for block in blocks.cut(data):
            payload = cipher.seal(block)
            names.append(digest(payload))
            sealed(names[-1], payload)
        entries[path] = Entry(file=FileDigest.of(data), blocks=tuple(names))
    try:
        return Manifest.from_bytes(Manifest(files=entries).to_bytes())
    except MalformedMessageError as error:
        raise BadInputError(f"this directory cannot be a release: {error}") from error


def check_paths(paths: Iterable[str]) -> None:
    """Refuse any path that could mean something outside the directory, or the same file twice.

    Raises:
        MalformedMessageError: absolute, ``..``, a backslash, hidden, odd characters, too deep, too many, or equal to
            another but for the case of letters.
    """
    seen: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        parts = path.split("/")
        if len(parts) > _MAX_DEPTH or not all(_PART.fullmatch(part) for part in parts):
            raise MalformedMessageError(f"{path!r} is not a safe path")
        if path.lower() in seen:
            raise MalformedMessageError(f"{path!r} is there twice")
        seen.add(path.lower())
        folders.update("/".join(parts[:depth]).lower() for depth in range(1, len(parts)))
    if len(seen) > MAX_FILES:
        raise MalformedMessageError(f"{len(seen)} files are more than {MAX_FILES}")
    if clash := seen & folders:
        raise MalformedMessageError(f"{min(clash)!r} is a file and a folder")


def check_directory(manifest: Manifest, found: Mapping[str, FileDigest]) -> None:
    """Does a directory hold exactly the files of a manifest?

    Args:
        found: what really lies there, read from the disk.

    Raises:
        BadSignatureError: a file is missing, too many, or holds other bytes.
    """
    expected = {path: entry.file for path, entry in manifest.files.items()}
    if missing := expected.keys() - found.keys():
        raise BadSignatureError(f"{min(missing)} is missing")
    if extra := found.keys() - expected.keys():
        raise BadSignatureError(f"{min(extra)} does not belong to this release")
    for path, file in sorted(found.items()):
        if file != expected[path]:
            raise BadSignatureError(f"{path} does not hold what the release says")


def _entry(path: str, value: Any) -> Entry:
    if not isinstance(value, dict):
        raise MalformedMessageError(f"the entry of {path} cannot be read")
    listed = value.get("blocks")
    file = FileDigest.from_json(path, {name: field for name, field in value.items() if name != "blocks"})
    if not isinstance(listed, list) or len(listed) != blocks.count(file.size):
        raise MalformedMessageError(f"{path} of {file.size} bytes has {blocks.count(file.size)} blocks")
    if not all(isinstance(block, str) and _DIGEST.fullmatch(block) for block in listed):
        raise MalformedMessageError(f"a block digest of {path} cannot be read")
    return Entry(file=file, blocks=tuple(listed))


def _possible(size: int, sha256: str) -> bool:
    return 0 <= size <= MAX_FILE_BYTES and not isinstance(size, bool) and _DIGEST.fullmatch(sha256) is not None
