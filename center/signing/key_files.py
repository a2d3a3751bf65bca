"""Signing keys as files, known by their key ids.

A new key lies beside the old one (`timestamp.next.key`) until metadata name it; then it takes the old one's place.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from center import durable
from center.keys import load_signing_key, new_signing_key
from center.signing.metadata import key_id
from center.signing.repository import OnlineKeys
from protocol.errors import BadInputError

_NEXT = ".next.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """One private key and where it lies."""

    path: Path
    key: Ed25519PrivateKey

    @property
    def key_id(self) -> str:
        return key_id(self.key)

    @property
    def is_next(self) -> bool:
        return self.path.name.endswith(_NEXT)

    @classmethod
    def new(cls, place: Path) -> "KeyFile":
        """Make a key that is to take the place of another."""
        path = place.with_suffix(_NEXT)
        return cls(path=path, key=new_signing_key(path))

    def take_place(self) -> Path:
        """Replace the old key, which is gone then; where that is."""
        place = self.path.replace(self.path.with_name(self.path.name.removesuffix(_NEXT) + ".key"))
        durable.flush_directory(place.parent)
        return place


def online_keys(directory: Path) -> list[Ed25519PrivateKey]:
    """What the center of a folder signs releases with.

    Raises:
        BadInputError: a key is missing or damaged.
    """
    kept = [online_place(directory, role) for role in OnlineKeys._fields]
    coming = [path for place in kept if (path := place.with_suffix(_NEXT)).exists()]
    return [load_signing_key(path) for path in (*kept, *coming)]


def online_place(directory: Path, role: str) -> Path:
    return directory / "keys" / f"{role}.key"


def online_files(directory: Path) -> Iterator[KeyFile]:
    """Those online keys that are there and can be read; a rotation replaces the others."""
    for role in OnlineKeys._fields:
        place = online_place(directory, role)
        yield from _readable([place, place.with_suffix(_NEXT)])


def offline_files(folders: Sequence[Path]) -> list[KeyFile]:
    """All signing keys on these media.

    Raises:
        BadInputError: one of them is no folder.
    """
    for folder in folders:
        if not folder.is_dir():
            raise BadInputError(
                f"{folder} is no folder", advice="give --offline once for each medium with offline keys"
            )
    return list(_readable([path for folder in folders for path in sorted(folder.glob("*.key"))]))


def _readable(paths: Sequence[Path]) -> Iterator[KeyFile]:
    for path in paths:
        try:
            yield KeyFile(path=path, key=load_signing_key(path))
        except BadInputError:
            continue
