import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import packing
from protocol.errors import MalformedMessageError
from protocol.fixed_point import Segment
from protocol.packing import pack, packed_size, unpack


def layout_of(*widths_and_lengths):
    return tuple(
        Segment(name=str(place), length=length, bound=1.0, bits=bits)
        for place, (bits, length) in enumerate(widths_and_lengths)
    )


def words_for(layout, rng):
    """Whole words; and what of them travels."""
    words = rng.integers(0, 2**32, sum(segment.length for segment in layout), dtype=np.uint32)
    widths = np.repeat([segment.bits for segment in layout], [segment.length for segment in layout])
    return words, words & (2**widths - 1).astype(np.uint32)


def packed_naively(words, layout):
    """One big number a segment."""
    packed, start = b"", 0
    for segment in layout:
        part = [int(word) % 2**segment.bits for word in words[start : start + segment.length]]
        number = sum(word << place * segment.bits for place, word in enumerate(part))
        packed += number.to_bytes((segment.length * segment.bits + 7) // 8, "little")
        start += segment.length
    return packed


@pytest.mark.parametrize("bits", range(8, 33))
def test_every_width_is_written_as_one_big_number_and_comes_back(bits):
    rng = np.random.default_rng(bits)
    for length in [*range(1, 18), 999]:
        layout = layout_of((bits, length))
        words, kept = words_for(layout, rng)
        data = pack(words, layout=layout)
        assert data == packed_naively(words, layout)
        assert np.array_equal(unpack(data, layout=layout), kept)


@pytest.mark.parametrize("bits", [8, 9, 17, 20, 24, 31, 32])
def test_a_chunk_leaves_no_seam(bits):
    for more in (-1, 0, 1, packing._CHUNK_WORDS + 5):
        layout = layout_of((bits, packing._CHUNK_WORDS + more))
        words, kept = words_for(layout, np.random.default_rng(bits))
        data = pack(words, layout=layout)
        assert len(data) == packed_size(layout)
        assert np.array_equal(unpack(data, layout=layout), kept)
        ones = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: bits * len(words)]
        assert np.array_equal(ones.reshape(-1, bits)[-9:] @ (1 << np.arange(bits)), kept[-9:])


@given(
    shape=st.lists(st.tuples(st.integers(8, 32), st.integers(1, 40)), min_size=1, max_size=5), seed=st.integers(0, 99)
)
def test_segments_of_different_widths_each_start_at_a_whole_byte(shape, seed):
    layout = layout_of(*shape)
    words, kept = words_for(layout, np.random.default_rng(seed))
    data = pack(words, layout=layout)
    assert data == packed_naively(words, layout)
    assert len(data) == packed_size(layout)
    assert np.array_equal(unpack(data, layout=layout), kept)


@given(bits=st.integers(8, 32), length=st.integers(1, 20), seed=st.integers(0, 9))
def test_one_vector_has_one_encoding(bits, length, seed):
    """Any bytes of the right length are refused, or written again the same."""
    layout = layout_of((bits, length), (8, 1))
    data = np.random.default_rng(seed).bytes(packed_size(layout))
    try:
        words = unpack(data, layout=layout)
    except MalformedMessageError:
        assert length * bits % 8
    else:
        assert pack(words, layout=layout) == data


@pytest.mark.parametrize("bit", range(4, 8))
def test_a_bit_behind_the_last_word_is_refused(bit):
    layout = layout_of((20, 3), (8, 1))  # 60 bits: four of the eighth byte are left
    data = bytearray(pack(np.zeros(4, np.uint32), layout=layout))
    data[7] |= 1 << bit
    with pytest.raises(MalformedMessageError, match="bits behind"):
        unpack(bytes(data), layout=layout)


@pytest.mark.parametrize("more", [-1, 1])
def test_a_vector_that_is_cut_short_or_goes_on_is_refused(more):
    layout = layout_of((20, 3), (32, 2))
    with pytest.raises(MalformedMessageError, match="the layout takes 16"):
        unpack(bytes(packed_size(layout) + more), layout=layout)
    with pytest.raises(ValueError, match="the layout has 5"):
        pack(np.zeros(5 + more, np.uint32), layout=layout)


def test_sums_may_be_taken_before_or_after_the_high_bits_are_dropped():
    """Masks and sums work on whole words, yet only the low bits travel."""
    layout = layout_of((13, 100), (32, 3), (20, 50))
    rng = np.random.default_rng(1)
    one, other = (words_for(layout, rng)[0] for _ in range(2))
    on_the_road = sum(unpack(pack(words, layout=layout), layout=layout) for words in (one, other))
    assert pack(on_the_road, layout=layout) == pack(one + other, layout=layout)
