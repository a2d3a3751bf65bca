import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import stats

from protocol.errors import MalformedMessageError
from protocol.fixed_point import Layout, Rounding, Segment, _tail, decode, encode, resolution, words_of
from protocol.masking import CHUNK_WORDS

SEED = b"r" * 32


def one(length=1, *, bound=1.0, bits=32) -> Layout:
    return (Segment(name="x", length=length, bound=bound, bits=bits),)


def exponent_or_none(segment, edges, noise=0.0):
    try:
        return segment.exponent(edges, noise=noise)
    except MalformedMessageError:
        return None


def summed(vectors):
    total = np.zeros_like(vectors[0])
    for words in vectors:
        total += words
    return total


# --- what comes back -------------------------------------------------------------------------------------------------


@given(
    bound=st.floats(1e-6, 1e6),
    bits=st.integers(16, 32),
    edges=st.integers(3, 200),
    values=st.lists(st.floats(-1, 1), min_size=1, max_size=20),
    seed=st.sampled_from([None, SEED]),
)
def test_a_sum_of_a_whole_cohort_comes_back_within_its_resolution(bound, bits, edges, values, seed):
    layout = one(len(values), bound=bound, bits=bits)
    value = np.clip(np.array(values, np.float32) * np.float32(bound), -np.float32(bound), np.float32(bound))
    words = encode({"x": value}, layout=layout, edges=edges, seed=seed)
    back = decode(summed([words] * edges), layout=layout, edges=edges)["x"]
    assert np.all(np.abs(back - value.astype(np.float64) * edges) <= edges * resolution(layout[0], edges=edges))


@given(value=st.floats(-1, 1, width=32), edges=st.integers(1, 50))
def test_without_a_seed_a_value_goes_to_the_nearest_step(value, edges):
    layout = one()
    back = decode(encode({"x": value}, layout=layout, edges=edges, seed=None), layout=layout, edges=edges)["x"][0]
    assert abs(back - value) <= resolution(layout[0], edges=edges) / 2


@given(bits=st.integers(8, 32), junk=st.integers(0, 2**32 - 1), data=st.data())
def test_bits_above_the_width_mean_nothing(bits, junk, data):
    layout = one(3, bits=bits)
    signed = np.array(data.draw(st.lists(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), min_size=3, max_size=3)))
    low = (signed % 2**bits).astype(np.uint32)
    high = np.uint32(junk >> bits << bits & 0xFFFFFFFF)
    assert np.array_equal(decode(low | high, layout=layout, edges=1)["x"], signed * 2.0 ** -layout[0].exponent(1))


def test_segments_keep_to_their_places_and_scales():
    layout = (
        Segment(name="a", length=CHUNK_WORDS + 1, bound=0.01),
        Segment(name="b", length=1, bound=1e6),
        Segment(name="c", length=5, bound=4.0, bits=20),
    )
    values = {"a": np.linspace(-0.01, 0.01, CHUNK_WORDS + 1, dtype=np.float32), "b": -1e6, "c": np.arange(5.0) - 1}
    words = encode(values, layout=layout, edges=10, seed=SEED)
    assert words.dtype == np.uint32
    assert len(words) == words_of(layout)
    back = decode(words, layout=layout, edges=10)
    for segment in layout:
        assert np.all(np.abs(back[segment.name] - values[segment.name]) < resolution(segment, edges=10))


def test_more_noise_leaves_coarser_steps():
    segment = one(bits=20)[0]
    assert resolution(segment, edges=10, variance=1e9) > resolution(segment, edges=10)


# --- no sum may wrap -------------------------------------------------------------------------------------------------


@given(
    bound=st.floats(2.0**-60, 2.0**60),
    bits=st.integers(8, 32),
    edges=st.integers(1, 1000),
    noise=st.just(0.0) | st.floats(1e-3, 1e18),
)
@example(bound=float(2**31 - 1 - 3) / 3, bits=32, edges=3, noise=0.0)
@example(bound=1.0, bits=32, edges=127, noise=0.0)
def test_no_sum_can_wrap_around(bound, bits, edges, noise):
    segment = Segment(name="x", length=1, bound=bound, bits=bits)
    nats = 65 * math.log(2)
    tail = 0 if noise == 0 else math.ceil(nats / 3 + math.sqrt(nats * nats / 9 + 2 * nats * noise))
    largest = 2 ** (bits - 1) - 1
    k = exponent_or_none(segment, edges, noise)
    if k is None:
        assert edges + tail >= largest
        return
    honest = max(Fraction(bound), Fraction(float(np.float32(bound))))
    assert edges * (honest * Fraction(2) ** k + 1) + tail <= largest
    assert edges * (honest * Fraction(2) ** (k + 1) + 1) + tail > largest


@given(
    bound=st.floats(1e-3, 1e3),
    bits=st.integers(8, 32),
    edges=st.integers(1, 100),
    variance=st.just(0.0) | st.floats(0.1, 1e14),
    seed=st.sampled_from([None, SEED]),
)
@example(bound=0.1, bits=32, edges=100, variance=0.0, seed=SEED)
@example(bound=float(np.float32(2**31 - 300)), bits=32, edges=1, variance=0.0, seed=SEED)
@example(bound=1.0, bits=20, edges=50, variance=1e7, seed=SEED)
def test_the_largest_values_of_all_edges_with_the_largest_noise_do_not_wrap(bound, bits, edges, variance, seed):
    layout = one(bound=bound, bits=bits)
    k = exponent_or_none(layout[0], edges, variance)
    assume(k is not None)
    for value, noise in ((np.float32(bound), _tail(variance)), (-np.float32(bound), -_tail(variance))):
        asked = {"layout": layout, "edges": edges, "variance": variance}
        quiet = encode({"x": value}, seed=seed, **asked)
        loud = encode({"x": value}, seed=seed, noise=np.array([noise]), **asked)
        back = decode(summed([loud] + [quiet] * (edges - 1)), **asked)["x"][0]
        assert abs(back - float(value) * edges - noise * 2.0**-k) <= edges * 2.0**-k


@pytest.mark.parametrize("variance", [0.01, 1.0, 50.0, 3e3, 1e7])
def test_the_room_that_is_left_for_noise_is_enough_and_not_wasted(variance):
    """Bernstein's bound against the law itself."""
    tail = _tail(variance)
    assert 2 * stats.skellam.sf(tail - 1, variance / 2, variance / 2) <= 2.0**-64
    assert tail < 10 * math.sqrt(variance) + 35


def test_a_cohort_with_noise_comes_back_with_the_noise():
    layout = (*one(CHUNK_WORDS + 7, bits=24), Segment(name="y", length=3, bound=2.0, bits=32))
    rng, edges, variance = np.random.default_rng(1), 5, 5e4
    noises = [np.round(rng.normal(0, 100, words_of(layout))).astype(np.int64) for _ in range(edges)]
    values = {"x": rng.uniform(-1, 1, CHUNK_WORDS + 7).astype(np.float32), "y": np.ones(3)}

    def total(noise):
        return summed(
            [encode(values, layout=layout, edges=edges, seed=SEED, variance=variance, noise=part) for part in noise]
        )

    noisy = decode(total(noises), layout=layout, edges=edges, variance=variance)
    bare = decode(total([None] * edges), layout=layout, edges=edges, variance=variance)
    whole, start = sum(noises), 0
    for segment in layout:
        step = resolution(segment, edges=edges, variance=variance)
        found = (noisy[segment.name] - bare[segment.name]) / step
        assert np.array_equal(found, whole[start : start + segment.length])
        start += segment.length


# --- rounding --------------------------------------------------------------------------------------------------------


def rounded(values, seed=SEED):
    out = np.empty(len(values), np.int32)
    Rounding(seed).round(values, 1.0, out=out)
    return out


@given(
    values=st.lists(st.integers(-(2**31) + 128, 2**31 - 128), min_size=1, max_size=50),
    seed=st.binary(min_size=32, max_size=32),
    kind=st.sampled_from([np.float32, np.float64]),
)
def test_counts_stay_exact(values, seed, kind):
    array = np.array(values).astype(kind)
    assert np.array_equal(rounded(array, seed), array.astype(np.int64))


@given(
    values=st.lists(st.floats(-(2.0**31) + 128, 2.0**31 - 128, width=32), min_size=1, max_size=50),
    seed=st.binary(min_size=32, max_size=32),
    kind=st.sampled_from([np.float32, np.float64]),
)
@example(
    values=[-1e-30, 1e-30, -(1 - 2**-24), 2.0**23 - 0.5, 2**22 + 0.25, -(2.0**23) + 0.5], seed=SEED, kind=np.float32
)
def test_a_value_goes_to_one_of_its_two_neighbours(values, seed, kind):
    array = np.array(values, kind)
    found = rounded(array, seed).astype(np.float64)
    assert np.all((found == np.floor(array)) | (found == np.ceil(array)))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.25, -0.25, 0.5, 1e-3, -1e-3, 0.999, 7.3, -1000.7, 2.0**20 + 0.125])
def test_rounding_does_not_drift(value, kind):
    values = np.full(CHUNK_WORDS, value, dtype=kind)
    ups = int(np.sum(rounded(values) - math.floor(float(values[0]))))
    chance = float(values[0]) - math.floor(float(values[0]))
    assert stats.binomtest(ups, CHUNK_WORDS, chance).pvalue > 1e-4


def test_rounding_of_one_word_says_nothing_of_the_next():
    ups = np.concatenate([rounded(np.full(CHUNK_WORDS, 0.5, np.float32), bytes([n]) * 32) for n in range(4)])
    assert abs(np.corrcoef(ups[1:], ups[:-1])[0, 1]) < 0.01


def test_a_vector_is_not_rounded_chunk_by_chunk_in_the_same_way():
    layout = (*one(2 * CHUNK_WORDS), Segment(name="y", length=CHUNK_WORDS, bound=1.0))
    step = resolution(layout[0], edges=1)
    half = np.full(2 * CHUNK_WORDS, step / 2, np.float32)
    words = encode({"x": half, "y": half[:CHUNK_WORDS]}, layout=layout, edges=1, seed=SEED).reshape(3, -1)
    assert not any(np.array_equal(words[i], words[j]) for i, j in [(0, 1), (0, 2), (1, 2)])


def test_another_seed_rounds_another_way_and_the_same_seed_the_same_way():
    values = np.full(1000, 0.5, np.float32)
    assert np.array_equal(rounded(values), rounded(values))
    assert not np.array_equal(rounded(values), rounded(values, b"s" * 32))


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1.0000001, -1.0000001, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, CHUNK_WORDS, CHUNK_WORDS + 9])
def test_a_value_beyond_its_bound_is_refused_wherever_it_stands(value, place):
    values = np.zeros(CHUNK_WORDS + 10, dtype=np.float32)
    values[place] = value
    with pytest.raises(ValueError, match="beyond"):
        encode({"x": values}, layout=one(len(values)), edges=3, seed=SEED)


def test_what_clipping_in_float32_leaves_is_within_the_bound():
    """0.1 in float32 is a little more than 0.1."""
    clipped = np.clip(np.ones(3, np.float32), -0.1, 0.1)
    assert float(clipped[0]) > 0.1
    assert len(encode({"x": clipped}, layout=one(3, bound=0.1), edges=3, seed=SEED)) == 3
    with pytest.raises(ValueError, match="beyond"):
        encode({"x": np.nextafter(clipped, np.float32(1))}, layout=one(3, bound=0.1), edges=3, seed=SEED)


def test_a_missing_segment_is_refused():
    layout = (Segment(name="x", length=1, bound=1.0), Segment(name="y", length=1, bound=1.0))
    with pytest.raises(ValueError, match="the layout asks for"):
        encode({"x": 0.5}, layout=layout, edges=3, seed=None)


def test_another_length_is_refused():
    with pytest.raises(ValueError, match="shape"):
        encode({"x": np.zeros(2, np.float32)}, layout=one(3), edges=3, seed=None)
    with pytest.raises(ValueError, match="noise has shape"):
        encode({"x": np.zeros(3)}, layout=one(3), edges=3, seed=None, noise=np.zeros(2, np.int64))
    with pytest.raises(MalformedMessageError):
        decode(np.zeros(2, np.uint32), layout=one(3), edges=3)


@pytest.mark.parametrize(
    ("length", "bound", "bits"),
    [
        (0, 1.0, 32),
        (1, 0.0, 32),
        (1, -1.0, 32),
        (1, math.nan, 32),
        (1, math.inf, 32),
        (1, 1e30, 32),
        (1, 1e-30, 32),
        (1, 1.0, 7),
        (1, 1.0, 33),
    ],
)
def test_a_segment_has_a_length_a_bound_and_a_width(length, bound, bits):
    with pytest.raises(MalformedMessageError):
        Segment(name="x", length=length, bound=bound, bits=bits)


@pytest.mark.parametrize(("edges", "bits", "noise"), [(127, 8, 0.0), (1, 8, 1e3), (3, 16, 1e8), (2**31, 32, 0.0)])
def test_too_many_edges_or_too_much_noise_for_a_width_are_refused(edges, bits, noise):
    with pytest.raises(MalformedMessageError, match="no room"):
        one(bits=bits)[0].exponent(edges, noise=noise)


def test_a_segment_comes_back_from_its_message():
    segment = Segment(name="x", length=3, bound=0.5, bits=20)
    assert Segment.from_json(segment.to_json()) == segment


@pytest.mark.parametrize(
    "change", [{"bits": None}, {"bits": 20.0}, {"bound": 1}, {"length": "3"}, {"scale": 2.0}, {"bits": 40}]
)
def test_a_segment_of_another_form_is_refused(change):
    value = {**Segment(name="x", length=3, bound=0.5, bits=20).to_json(), **change}
    with pytest.raises(MalformedMessageError):
        Segment.from_json({key: item for key, item in value.items() if item is not None})
