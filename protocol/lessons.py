"""What travels inside the vector of each kind of round (SPEC 4.3). Both sides build it; neither trusts the other's."""

from collections.abc import Mapping
from types import MappingProxyType

from protocol.fixed_point import Layout, Segment
from protocol.privacy import Privacy

COUNT_BOUND = 4_000_000
"""Events of one item at one site that count at most."""
LOSS_BOUND = 100.0
"""A mean loss beyond it says no more than that training diverged."""
EVENTS_BOUND = 4096
"""Events of one site that an evaluation or a trial measures at most."""
EVALUATED = ("all", "new_users", "new_items", "tail")
"""On whom a candidate is measured, one segment of the vector each."""
QUALITY = ("events", "ndcg", "recall", "base_ndcg", "base_recall")
"""The words of each: how many events, and sums over them; the latter two of what the site serves now."""
HEALTH: Mapping[str, int] = MappingProxyType(
    {
        "reached": 1,
        "kept": 1,
        "went_back": 1,
        "answers": 1 << 20,
        "errors": 1 << 20,
        "slow": 1 << 20,
        "overlap": 1 << 16,
        "queries": 1 << 16,
        "ndcg_new": EVENTS_BOUND,
        "ndcg_old": EVENTS_BOUND,
        "events": EVENTS_BOUND,
    }
)
"""What a site says of its trial of a release, and the most that counts of each."""
_USERS_WORD = 1 / 4


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


def evaluation_layout(*, private_bound: float | None = None) -> Layout:
    """How good a candidate is at a site, for each of `EVALUATED` the words of `QUALITY`.

    Args:
        private_bound: in a round with noise, the bound that all segments share.
    """
    bound = private_bound or EVENTS_BOUND
    return tuple(Segment(name=name, length=len(QUALITY), bound=bound) for name in EVALUATED)


def evaluation_unit(privacy: Privacy | None) -> float:
    """What one event of one user is in the words of an evaluation.

    With noise a user may put in a vector of norm C. Each of the 15 words in use is moved by at most one such unit,
    whether a user is gone or another takes the place, so a quarter of C keeps the norm below C.
    """
    return 1.0 if privacy is None else _USERS_WORD * privacy.user_clip


def health_layout() -> Layout:
    """How a release does at a site, the names of `HEALTH` in that order."""
    return tuple(Segment(name=name, length=1, bound=bound) for name, bound in HEALTH.items())
