"""Files <-> content-addressed, encrypted blocks of 256 KiB (SPEC 9.2).

Under one content key equal plaintext gives equal ciphertext, so a block that two releases share travels once, and what
lies on disk can be compared with a manifest by encrypting it again. The broker learns which blocks are equal, and
nothing else: the tag in front is keyed, so that not even the owner of a file can tell whether it is the one being sent.
"""

import hmac
from collections.abc import Iterator
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from protocol.errors import DamagedBlockError
from protocol.sealing import ContentKey, digest

BLOCK_BYTES = 256 * 1024
OVERHEAD_BYTES = 32 + 16
MAX_PAYLOAD_BYTES = BLOCK_BYTES + OVERHEAD_BYTES

_TAG_BYTES = 32
_NONCE = bytes(12)


def cut(data: bytes) -> Iterator[bytes]:
    """Each block of a file, from its start; an empty file has none."""
    for start in range(0, len(data), BLOCK_BYTES):
        yield data[start : start + BLOCK_BYTES]


def count(size: int) -> int:
    """How many blocks a file of so many bytes has."""
    return -(-size // BLOCK_BYTES)


def length(size: int, index: int) -> int:
    """Bytes of plaintext in block `index` of a file of `size` bytes."""
    return min(BLOCK_BYTES, size - index * BLOCK_BYTES)


class BlockCipher:
    """Seals and opens blocks under one content key."""

    def __init__(self, key: ContentKey) -> None:
        self._naming = key.derive(b"block name")
        self._sealing = key.derive(b"block")

    def seal(self, plaintext: bytes) -> bytes:
        """Encrypt one block; ``tag || AES-256-GCM``, 48 bytes longer than the plaintext."""
        if not 0 < len(plaintext) <= BLOCK_BYTES:
            raise ValueError(f"a block has 1 to {BLOCK_BYTES} bytes, not {len(plaintext)}")
        tag = self._tag(plaintext)
        # A constant nonce is safe here because the key is used for this one plaintext only.
        return tag + AESGCM(self._key(tag)).encrypt(_NONCE, plaintext, None)

    def open(self, payload: bytes, *, expected: str) -> bytes:
        """Check and decrypt one block.

        Args:
            expected: SHA-256 of the payload, from a trusted manifest.

        Raises:
            DamagedBlockError: other bytes than the manifest names, or made under another content key.
        """
        plaintext = self.open_part(payload, expected=expected)
        if not hmac.compare_digest(payload[:_TAG_BYTES], self._tag(plaintext)):
            raise DamagedBlockError(f"block {expected[:12]} does not hold what its tag says")
        return plaintext

    def open_part(self, payload: bytes, *, expected: str) -> bytes:
        """Decrypt one block of a file whose own digest is checked before anything is done with it (SPEC 9.3).

        The tag is not compared with the plaintext: the payload's digest is signed already, and so is the file's.

        Raises:
            DamagedBlockError: other bytes than the manifest names, or made under another content key.
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise DamagedBlockError(f"block {expected[:12]} has {len(payload)} bytes, more than a block can have")
        if digest(payload) != expected:
            raise DamagedBlockError(f"block {expected[:12]} has digest {digest(payload)[:12]}")
        tag, ciphertext = payload[:_TAG_BYTES], memoryview(payload)[_TAG_BYTES:]  # no copy of a block
        try:
            return AESGCM(self._key(tag)).decrypt(_NONCE, ciphertext, None)
        except (InvalidTag, ValueError) as error:
            raise DamagedBlockError(f"block {expected[:12]} is not encrypted under this content key") from error

    def _tag(self, plaintext: bytes) -> bytes:
        return hmac.digest(self._naming, sha256(plaintext).digest(), "sha256")

    def _key(self, tag: bytes) -> bytes:
        return HKDFExpand(algorithm=hashes.SHA256(), length=32, info=b"hanse/1 block\0" + tag).derive(self._sealing)
