import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MalformedMessageError
from protocol.fixed_point import Segment, decode, encode, resolution


@given(
    bound=st.floats(1e-6, 1e6),
    edges=st.integers(3, 200),
    values=st.lists(st.floats(-1, 1), min_size=1, max_size=20),
)
def test_a_sum_of_a_whole_cohort_comes_back_within_its_resolution(bound, edges, values) -> None:
    layout = (Segment(name="x", length=len(values), bound=bound),)
    value = np.clip(np.array(values) * bound, -bound, bound).astype(np.float32)
    value = np.clip(value, -np.float32(bound) * np.float32(1 - 1e-6), np.float32(bound) * np.float32(1 - 1e-6))
    words = encode({"x": value}, layout=layout, edges=edges)
    total = (words.astype(np.uint64) * edges).astype(np.uint32)
    back = decode(total, layout=layout, edges=edges)["x"]
    assert np.all(np.abs(back - value.astype(np.float64) * edges) <= edges * resolution(layout[0], edges=edges))


@given(bound=st.floats(1e-9, 1e9), edges=st.integers(1, 1000))
def test_no_sum_can_wrap_around(bound, edges) -> None:
    scale = 2.0 ** Segment(name="x", length=1, bound=bound).exponent(edges)
    assert edges * (bound * scale + 1) <= 2**31 - 1


def test_a_missing_segment_is_refused() -> None:
    layout = (Segment(name="x", length=1, bound=1.0), Segment(name="y", length=1, bound=1.0))
    with pytest.raises(ValueError, match="the layout asks for"):
        encode({"x": 0.5}, layout=layout, edges=3)


def test_another_length_is_refused() -> None:
    layout = (Segment(name="x", length=3, bound=1.0),)
    with pytest.raises(ValueError, match="shape"):
        encode({"x": np.zeros(2, np.float32)}, layout=layout, edges=3)
    with pytest.raises(MalformedMessageError):
        decode(np.zeros(2, np.uint32), layout=layout, edges=3)


@pytest.mark.parametrize(("length", "bound"), [(0, 1.0), (1, 0.0), (1, -1.0), (1, float("nan")), (1, float("inf"))])
def test_a_segment_has_a_length_and_a_bound(length, bound) -> None:
    with pytest.raises(MalformedMessageError):
        Segment(name="x", length=length, bound=bound)
