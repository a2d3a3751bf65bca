"""What travels inside the vector of each kind of round (SPEC 4.3). Both sides build it; neither trusts the other's."""

from protocol.fixed_point import Layout, Segment

COUNT_BOUND = 4_000_000
"""Events of one item at one site that count at most."""
LOSS_BOUND = 100.0
"""A mean loss beyond it says no more than that training diverged."""


def popularity_layout(items: int) -> Layout:
    """How often each item of the catalogue was had: integers, so that the sum is exact.

    Args:
        items: length n of the shared catalogue; row 0 counts what it does not list.
    """
    return (
        Segment(name="counts", length=items + 1, bound=COUNT_BOUND),
        Segment(name="weight", length=1, bound=1.0),
    )


def training_layout(parameters: int, *, clip: float) -> Layout:
    """A weighted update, its weight, and weighted means of what it cost and how good it is.

    Args:
        parameters: length d of the flattened weights.
        clip: L2 norm of the update, so the bound of every coordinate.
    """
    return (
        Segment(name="update", length=parameters, bound=clip),
        Segment(name="weight", length=1, bound=1.0),
        Segment(name="loss", length=1, bound=LOSS_BOUND),
        Segment(name="ndcg", length=1, bound=1.0),
        Segment(name="recall", length=1, bound=1.0),
    )
