"""Release folders <-> their encrypted blocks: described once, read again whenever a broker needs them."""

from collections.abc import Callable, Iterator
from pathlib import Path

from center.mqtt.content_keys import ContentKeys
from center.mqtt.ledger import BlockPlace
from protocol import blocks
from protocol.blocks import BlockCipher
from protocol.bundle import Manifest, describe
from protocol.errors import BadInputError
from protocol.sealing import ContentKey, digest

_KEPT_BYTES = 64 * 1024**2


def read_directory(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a release directory, one at a time.

    Raises:
        BadInputError: there is something that is neither a file nor a folder.
    """
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BadInputError(f"{path} is neither a file nor a folder")
        if path.is_file():
            yield path.relative_to(directory).as_posix(), path.read_bytes()


def manifest_of(directory: Path, *, key: ContentKey) -> Manifest:
    """The manifest of a release directory; sign its bytes as a TUF target.

    Raises:
        BadInputError: the directory cannot be a release.
    """
    return describe(read_directory(directory), cipher=BlockCipher(key))


def places_of(directory: Path, manifest: Manifest, *, key: ContentKey) -> dict[str, BlockPlace]:
    """Where each block of a manifest lies, by its digest.

    Args:
        key: that the manifest was made under.
    """
    home, key_id = directory.resolve(), key.key_id.hex()
    return {
        block: BlockPlace(directory=home, path=path, place=place, size=_size(entry.file.size, place), key_id=key_id)
        for path, entry in manifest.files.items()
        for place, block in enumerate(entry.blocks)
    }


def sizes_of(manifest: Manifest) -> dict[str, int]:
    """Bytes of each block, by its digest."""
    return {
        block: _size(entry.file.size, place)
        for entry in manifest.files.values()
        for place, block in enumerate(entry.blocks)
    }


class BlockReader:
    """Encrypts blocks on the way; what was just described is kept for a moment, so that it is encrypted once."""

    def __init__(self, keys: Callable[[], ContentKeys]) -> None:
        self._keys = keys
        self._ciphers: dict[str, BlockCipher] = {}
        self._kept: dict[str, bytes] = {}

    def describe(self, directory: Path, *, key: ContentKey) -> Manifest:
        """As `manifest_of`; keeps the first 64 MiB of blocks.

        Raises:
            BadInputError: the directory cannot be a release.
        """
        self.forget()
        left = _KEPT_BYTES

        def keep(name: str, payload: bytes) -> None:
            nonlocal left
            left -= len(payload)
            if left >= 0:
                self._kept[name] = payload

        return describe(read_directory(directory), cipher=BlockCipher(key), sealed=keep)

    def forget(self) -> None:
        """Keep nothing any longer."""
        self._kept = {}

    def read(self, name: str, at: BlockPlace) -> bytes:
        """One encrypted block.

        Args:
            name: its digest.

        Raises:
            BadInputError: its file has changed or is gone, or its key has been forgotten.
        """
        kept = self._kept.pop(name, None)
        if kept is not None:
            return kept
        file = at.directory / at.path
        try:
            with file.open("rb") as source:
                source.seek(at.place * blocks.BLOCK_BYTES)
                plaintext = source.read(blocks.BLOCK_BYTES)
        except OSError as error:
            raise BadInputError(f"{file} cannot be read: {error.strerror}") from error
        payload = self._cipher(at.key_id).seal(plaintext) if plaintext else b""
        if digest(payload) != name:
            raise BadInputError(f"{file} has changed since its release was signed", advice="publish a new release")
        return payload

    def _cipher(self, key_id: str) -> BlockCipher:
        if key_id not in self._ciphers:
            key = self._keys().by_id(key_id)
            if key is None:
                raise BadInputError(f"content key {key_id} has been forgotten", advice="publish a new release")
            self._ciphers[key_id] = BlockCipher(key)
        return self._ciphers[key_id]


def _size(file_bytes: int, place: int) -> int:
    return blocks.length(file_bytes, place) + blocks.OVERHEAD_BYTES
