from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import blocks
from protocol.blocks import BLOCK_BYTES, BlockCipher
from protocol.errors import DamagedBlockError
from protocol.sealing import ContentKey, digest

KEY = ContentKey(number=1, secret=b"\x05" * 32)
CIPHER = BlockCipher(KEY)
STRANGER = BlockCipher(ContentKey(number=1, secret=b"\x06" * 32))


@given(st.binary(min_size=1, max_size=2000))
def test_what_is_sealed_opens_again(plaintext):
    payload = CIPHER.seal(plaintext)
    assert CIPHER.open(payload, expected=digest(payload)) == plaintext


@given(st.integers(0, 5 * BLOCK_BYTES))
def test_a_file_cut_up_is_the_file(size):
    data = bytes(size)
    pieces = list(blocks.cut(data))
    assert b"".join(pieces) == data
    assert len(pieces) == blocks.count(size)
    assert [len(piece) for piece in pieces] == [blocks.length(size, index) for index in range(len(pieces))]


def test_equal_blocks_travel_once():
    assert CIPHER.seal(b"same") == BlockCipher(KEY).seal(b"same")
    assert CIPHER.seal(b"same") != CIPHER.seal(b"Same")


def test_nobody_without_the_key_can_tell_which_file_travels():
    payload = CIPHER.seal(b"the public catalogue")
    assert sha256(b"the public catalogue").digest() not in payload
    assert payload != STRANGER.seal(b"the public catalogue")


@pytest.mark.parametrize("place", [0, 31, 32, -1])
def test_one_changed_bit_is_refused(place):
    payload = CIPHER.seal(b"a block")
    changed = bytearray(payload)
    changed[place] ^= 1
    with pytest.raises(DamagedBlockError, match="has digest"):
        CIPHER.open(bytes(changed), expected=digest(payload))
    with pytest.raises(DamagedBlockError, match="not encrypted under this content key"):
        CIPHER.open(bytes(changed), expected=digest(bytes(changed)))  # even if the manifest were wrong too


def test_two_swapped_blocks_are_refused():
    first, second = CIPHER.seal(b"first"), CIPHER.seal(b"second")
    with pytest.raises(DamagedBlockError):
        CIPHER.open(second, expected=digest(first))


def test_a_block_under_another_content_key_is_refused():
    payload = STRANGER.seal(b"a block")
    with pytest.raises(DamagedBlockError, match="not encrypted under this content key"):
        CIPHER.open(payload, expected=digest(payload))


@pytest.mark.parametrize("payload", [b"", b"short", bytes(blocks.MAX_PAYLOAD_BYTES + 1)])
def test_truncated_and_endless_blocks_are_refused(payload):
    with pytest.raises(DamagedBlockError):
        CIPHER.open(payload, expected=digest(payload))


@pytest.mark.parametrize("size", [0, BLOCK_BYTES + 1])
def test_only_whole_blocks_are_sealed(size):
    with pytest.raises(ValueError, match="a block has"):
        CIPHER.seal(bytes(size))
