"""Masks that vanish in the sum (SPEC 5).

A mask is the AES-256-CTR keystream of a 32-byte seed, first counter block zero, read as little-endian 32-bit words and
added modulo 2**32. It is expanded chunk by chunk into one reused buffer: a buffer as large as the vector would spend
most of its time in page faults.
"""

from collections.abc import Iterable
from enum import IntEnum

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

SEED_BYTES = 32
CHUNK_WORDS = 1 << 16  # 256 KiB: words, mask and zeros stay together in the second-level cache
_ZEROS = bytes(4 * CHUNK_WORDS)


class Sign(IntEnum):
    """Whether a mask is added or taken away."""

    ADD = 1
    SUBTRACT = -1


class Keystream:
    """The bytes that a seed stands for, read in order."""

    def __init__(self, seed: bytes) -> None:
        # A constant first block is safe: a seed serves one purpose of one round, so no key is ever used twice.
        self._cipher = Cipher(AES256(seed), CTR(bytes(16))).encryptor()

    def read_into(self, buffer: memoryview) -> None:
        """Fill a contiguous buffer of bytes with the next part of the stream. Other threads run meanwhile."""
        for start in range(0, len(buffer), len(_ZEROS)):
            part = buffer[start : start + len(_ZEROS)]
            self._cipher.update_into(memoryview(_ZEROS)[: len(part)], part)


def keystream(seed: bytes, size: int) -> bytes:
    """The first `size` bytes that a seed stands for."""
    stream = bytearray(size)
    Keystream(seed).read_into(memoryview(stream))
    return bytes(stream)


class Masks:
    """Several masks, each at the same place of its stream; each call goes on where the last one stopped."""

    def __init__(self, masks: Iterable[tuple[bytes, Sign]]) -> None:
        self._streams = [(Keystream(seed), sign) for seed, sign in masks]
        self._buffer = bytearray(len(_ZEROS))

    def apply(self, words: NDArray[np.uint32]) -> None:
        """Put the next words of every mask on, in place.

        Args:
            words: uint32[m], contiguous; changed in place.
        """
        for start in range(0, len(words), CHUNK_WORDS):
            part = words[start : start + CHUNK_WORDS]
            self._apply_to_chunk(part)

    def _apply_to_chunk(self, part: NDArray[np.uint32]) -> None:
        buffer = memoryview(self._buffer)[: part.nbytes]
        mask = np.frombuffer(buffer, dtype="<u4")
        for stream, sign in self._streams:
            stream.read_into(buffer)
            if sign is Sign.ADD:
                np.add(part, mask, out=part)
            else:
                np.subtract(part, mask, out=part)


def apply_mask(words: NDArray[np.uint32], seed: bytes, sign: Sign) -> None:
    """Add or take away one mask, in place, modulo 2**32 (SPEC 5.2).

    Args:
        words: uint32[d], contiguous; changed in place.
        seed: 32 bytes.
        sign: which end of the pair we are.
    """
    apply_masks(words, [(seed, sign)])


def apply_masks(words: NDArray[np.uint32], masks: Iterable[tuple[bytes, Sign]]) -> None:
    """Add or take away many masks in one pass over the words, in place, modulo 2**32.

    Args:
        words: uint32[d], contiguous; changed in place.
        masks: 32-byte seeds, each used once.
    """
    Masks(masks).apply(words)
