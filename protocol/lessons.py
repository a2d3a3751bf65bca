"""What travels inside the vector of each kind of round (SPEC 4.3). Both sides build it; neither trusts the other's."""

from protocol.fixed_point import Layout, Segment

COUNT_BOUND = 4_000_000
"""Events of one item at one site that count at most."""
LOSS_BOUND = 100.0
"""A mean loss beyond it says no more than that training diverged."""


def popularity_layout(items: int, *, private_bound: float | None = None) -> Layout:
    """How often each item of the catalogue was had: integers, so that the sum is exact.

    Args:
        items: length n of the shared catalogue; row 0 counts what it does not list.
        private_bound: in a round with noise, the bound that all segments share; then the sum is not exact.
    """
    counts = private_bound or COUNT_BOUND
    return (
        Segment(name="counts", length=items + 1, bound=counts),
        Segment(name="weight", length=1, bound=private_bound or 1.0),
    )


def training_layout(
    parameters: int, *, coordinate_clip: float, word_bits: int = 32, private_bound: float | None = None
) -> Layout:
    """A weighted update, its weight, and weighted means of what it cost and how good it is.

    Args:
        parameters: length d of the flattened weights.
        coordinate_clip: largest absolute value of a coordinate of the update.
        word_bits: width of its words; the few figures behind it have 32 bits always.
        private_bound: in a round with noise, the bound that all segments share, in words of 32 bits.
    """
    if private_bound is not None:
        coordinate_clip, word_bits = private_bound, 32
    return (
        Segment(name="update", length=parameters, bound=coordinate_clip, bits=word_bits),
        Segment(name="weight", length=1, bound=private_bound or 1.0),
        Segment(name="loss", length=1, bound=private_bound or LOSS_BOUND),
        Segment(name="ndcg", length=1, bound=private_bound or 1.0),
        Segment(name="recall", length=1, bound=private_bound or 1.0),
    )
