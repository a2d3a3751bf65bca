import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.masking import CHUNK_WORDS, Keystream, Masks, Sign, apply_mask, apply_masks, keystream

SEEDS = [bytes([number]) * 32 for number in range(1, 6)]
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "mask_stream.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["why"] for vector in VECTORS])
def test_the_mask_is_what_openssl_makes_of_the_seed(vector):
    words = np.zeros(vector["count"], dtype=np.uint32)
    apply_mask(words, bytes.fromhex(vector["seed"]), Sign.ADD)
    assert words[: len(vector["first"])].tolist() == vector["first"]
    assert words[-len(vector["last"]) :].tolist() == vector["last"]
    assert sha256(words.astype("<u4").tobytes()).hexdigest() == vector["sha256"]


@pytest.mark.parametrize("length", [1, 5, CHUNK_WORDS - 1, CHUNK_WORDS, CHUNK_WORDS + 3, 3 * CHUNK_WORDS + 1])
def test_the_two_ends_of_a_pair_cancel(length):
    bare = np.arange(length, dtype=np.uint32)
    words = bare.copy()
    apply_mask(words, SEEDS[0], Sign.ADD)
    assert not np.array_equal(words[-1:], bare[-1:])
    apply_mask(words, SEEDS[0], Sign.SUBTRACT)
    assert np.array_equal(words, bare)


@given(
    length=st.integers(1, 2 * CHUNK_WORDS + 5),
    masks=st.lists(st.tuples(st.sampled_from(SEEDS), st.sampled_from(Sign)), max_size=5),
)
def test_many_masks_in_one_pass_are_as_many_masks_one_after_the_other(length, masks):
    together = np.arange(length, dtype=np.uint32)
    apart = together.copy()
    apply_masks(together, masks)
    for seed, sign in masks:
        stream = np.frombuffer(keystream(seed, 4 * length), dtype="<u4")
        apart = apart + stream if sign is Sign.ADD else apart - stream
    assert np.array_equal(together, apart)


@given(cuts=st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_a_vector_masked_piece_by_piece_is_masked_all_the_same(cuts):
    """Pieces need not end with a block of the cipher."""
    whole, pieces = np.zeros(sum(cuts), np.uint32), np.zeros(sum(cuts), np.uint32)
    apply_mask(whole, SEEDS[0], Sign.ADD)
    masks = Masks([(SEEDS[0], Sign.ADD)])
    for piece in np.split(pieces, np.cumsum(cuts)[:-1]):
        masks.apply(piece)
    assert np.array_equal(pieces, whole)


def test_reading_in_pieces_gives_the_same_stream():
    whole = keystream(SEEDS[0], 1000)
    stream, first, second = Keystream(SEEDS[0]), bytearray(333), bytearray(667)
    stream.read_into(memoryview(first))
    stream.read_into(memoryview(second))
    assert first + second == whole


def test_a_mask_leaves_nothing_of_a_word_in_sight():
    """Each bit of a masked zero is set half of the time, and no word hints at the next."""
    words = np.zeros(100_000, dtype=np.uint32)
    apply_mask(words, SEEDS[0], Sign.ADD)
    bits = np.unpackbits(words.view(np.uint8)).reshape(-1, 32).mean(axis=0)
    assert np.all(np.abs(bits - 0.5) < 0.01)
    assert abs(np.corrcoef(words[1:], words[:-1])[0, 1]) < 0.02


def test_a_seed_of_half_the_length_is_refused():
    with pytest.raises(ValueError, match="key size"):
        apply_mask(np.zeros(4, np.uint32), bytes(16), Sign.ADD)
