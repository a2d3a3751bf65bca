"""Masks that vanish in the sum (SPEC 5).

A mask is the AES-256-CTR keystream of a 32-byte seed, read as little-endian words and added modulo 2**32. It is
expanded chunk by chunk into one reused buffer: a buffer as large as the vector would spend most of its time in page
faults.
"""

from enum import IntEnum

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

SEED_BYTES = 32
_CHUNK_WORDS = 1 << 18  # 1 MiB: stays in the second-level cache while it is encrypted and added
_MASK_LABEL = b"hanse/1 pairwise mask"


class Sign(IntEnum):
    """Of two edges the one whose name sorts first adds the mask, the other takes it away."""

    ADD = 1
    SUBTRACT = -1


def pairwise_seed(mine: X25519PrivateKey, theirs: bytes, *, announcement: bytes) -> bytes:
    """The seed that both ends of a pair derive for one round and nobody else can (SPEC 5.1).

    Args:
        mine: this edge's X25519 key.
        theirs: the other edge's, 32 bytes, from the roster.
        announcement: 32 bytes, the digest of what both were told; told differently, they derive different seeds.
    """
    shared = mine.exchange(X25519PublicKey.from_public_bytes(theirs))
    return HKDF(algorithm=SHA256(), length=SEED_BYTES, salt=announcement, info=_MASK_LABEL).derive(shared)


def apply_mask(words: NDArray[np.uint32], seed: bytes, sign: Sign) -> None:
    """Add or take away one mask, in place, modulo 2**32 (SPEC 5.2).

    Args:
        words: uint32[d], contiguous; changed in place.
        seed: 32 bytes, used for this one mask only.
        sign: which end of the pair we are.
    """
    # A constant nonce is safe: HKDF over the announcement gives every round and pair a key of its own.
    stream = Cipher(AES256(seed), CTR(bytes(16))).encryptor()
    zeros = bytes(4 * min(_CHUNK_WORDS, len(words)))
    keystream = bytearray(len(zeros))
    for start in range(0, len(words), _CHUNK_WORDS):
        part = words[start : start + _CHUNK_WORDS]
        size = part.nbytes
        stream.update_into(memoryview(zeros)[:size], memoryview(keystream)[:size])
        mask = np.frombuffer(keystream, dtype="<u4", count=len(part))
        if sign is Sign.ADD:
            np.add(part, mask, out=part)
        else:
            np.subtract(part, mask, out=part)
