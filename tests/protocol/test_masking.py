import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

from protocol.masking import Sign, apply_mask, pairwise_seed

ALICE = X25519PrivateKey.from_private_bytes(b"a" * 32)
BOB = X25519PrivateKey.from_private_bytes(b"b" * 32)


def public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


@pytest.mark.parametrize("length", [1, 5, 1 << 18, (1 << 18) + 3, 700_001])
def test_the_two_ends_of_a_pair_cancel(length) -> None:
    words = np.arange(length, dtype=np.uint32)
    apply_mask(words, pairwise_seed(ALICE, public(BOB), announcement=bytes(32)), Sign.ADD)
    assert not np.array_equal(words[-1:], np.arange(length, dtype=np.uint32)[-1:])
    apply_mask(words, pairwise_seed(BOB, public(ALICE), announcement=bytes(32)), Sign.SUBTRACT)
    assert np.array_equal(words, np.arange(length, dtype=np.uint32))


def test_another_announcement_gives_another_mask() -> None:
    seeds = {pairwise_seed(ALICE, public(BOB), announcement=bytes([n]) * 32) for n in range(10)}
    assert len(seeds) == 10


def test_the_mask_is_the_counter_mode_keystream() -> None:
    """Known answer from the block cipher alone: block i of the stream is AES(seed, i), big-endian counter."""
    seed = bytes(range(32))
    blocks = 70_000
    counters = b"".join(i.to_bytes(16, "big") for i in range(blocks))
    expected = Cipher(AES256(seed), ECB()).encryptor().update(counters)
    words = np.zeros(blocks * 4, dtype=np.uint32)
    apply_mask(words, seed, Sign.ADD)
    assert words.astype("<u4").tobytes() == expected
