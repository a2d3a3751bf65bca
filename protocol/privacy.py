"""Differential privacy of a round: how much noise, and what it is worth (SPEC 4.6). Pure arithmetic.

Protected is one user at one site: all events of that user are in the books, or none are. What one user puts into a
round is ONE vector over all segments, with an L2 norm of at most `Privacy.user_clip`; a site sends the sum over its
users, coordinates cut at the bound (which brings two sums only closer). All segments share one bound, and so one scale
``2**k``.

    one user:  | update or counts, norm <= UPDATE_SHARE * C | figures, each within 0 and FIGURE_SHARE * C |

A user's figures are never scaled down with the update, so the weight counts users, clipped or not.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from protocol import cohort
from protocol.errors import MalformedMessageError
from protocol.fixed_point import Layout, Segment, words_of
from protocol.noise import LARGEST_VARIANCE

ORDERS = (*range(2, 65), 72, 80, 96, 112, 128, 160, 192, 256, 384, 512, 1024)
"""Renyi orders that edges keep books on; the conversion to epsilon takes the best of them."""
FIGURE_SHARE = 1 / 16
"""Of the user clip: what each of the at most four figures of a user may take. Together they cost the update 0.8 %."""
UPDATE_SHARE = 0.992
"""Of the user clip: what is left for the update. ``UPDATE_SHARE**2 + 4 * FIGURE_SHARE**2`` stays below 1."""
LOSS_RANGE = 16.0
"""Nats at which one user's mean loss is cut."""
FIGURES: Mapping[str, float] = MappingProxyType({"weight": 1.0, "loss": LOSS_RANGE, "ndcg": 1.0, "recall": 1.0})
"""The largest value of each figure of one user, in plain units; it travels as `FIGURE_SHARE` of the clip."""
_MOST_NOISE = 2.0**20
_FURTHEST_CLIP = 2.0**40
_MOST_COLLUDERS = cohort.LARGEST
_DEEPEST = 64
_HALVINGS = 200  # more than a float64 can be halved into


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """What a round promises, as announced.

    Attributes:
        noise_multiplier: standard deviation of the noise in the sum of the honest edges, over the sensitivity.
        user_clip: C, largest L2 norm of what one user puts in, in the units of the vector.
        colluders: edges of the cohort that may leave their noise out, or tell the center what it was.
    """

    noise_multiplier: float
    user_clip: float
    colluders: int

    def __post_init__(self) -> None:
        if not 0 < self.noise_multiplier <= _MOST_NOISE or not 1 / _FURTHEST_CLIP <= self.user_clip <= _FURTHEST_CLIP:
            raise MalformedMessageError("a noise multiplier and a user clip are positive and not out of all proportion")
        if not 0 <= self.colluders <= _MOST_COLLUDERS:
            raise MalformedMessageError(f"{self.colluders} colluders")

    def to_json(self) -> dict[str, Any]:
        return {
            "noise_multiplier": float(self.noise_multiplier),
            "user_clip": float(self.user_clip),
            "colluders": self.colluders,
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        match value:
            case {
                "noise_multiplier": float(noise_multiplier),
                "user_clip": float(user_clip),
                "colluders": int(colluders),
                **rest,
            } if not rest and not isinstance(colluders, bool):
                return cls(noise_multiplier=noise_multiplier, user_clip=user_clip, colluders=colluders)
        raise MalformedMessageError("not the privacy of a round")

    def unit(self, figure: str) -> float:
        """What a figure of 1 in plain units is in the vector."""
        return FIGURE_SHARE * self.user_clip / FIGURES[figure]


def shared_bound(privacy: Privacy, *, users: int, share: float = FIGURE_SHARE) -> float:
    """The bound of all segments with which what so many users of one site say is not cut.

    A larger one costs resolution: of the noise, ``sqrt(d)`` steps are there only because values are rounded.

    Args:
        share: of its clip that a user puts into one coordinate. The figures take no more than this; of an update, which
            has many coordinates, hardly any user does. All of a user's counts may be of one item: 1 never cuts.
    """
    return users * share * privacy.user_clip


def plain(sums: Mapping[str, NDArray[np.float64]], *, privacy: Privacy) -> dict[str, NDArray[np.float64]]:
    """Sums of a private round in the units of any other: ``weight`` in users, ``loss`` in nats times users.

    Updates and counts have no other unit. All are noisy: a weight or a count may come out below zero.
    """
    return {name: total / privacy.unit(name) if name in FIGURES else total for name, total in sums.items()}


def sensitivity(privacy: Privacy, *, layout: Layout, exponent: int) -> tuple[float, float]:
    """How far one user can move the integer vector of a site.

    Rounding takes ``floor(x * 2**k + u)`` with u drawn without regard to the data, which moves each of the d
    coordinates by less than one more. Whole numbers are no larger than their squares, so the L1 norm does not exceed
    the squared L2 norm.

    Returns:
        The L1 and the L2 sensitivity, in steps of the integers.
    """
    spread = math.sqrt(words_of(layout))
    l2 = privacy.user_clip * 2.0**exponent + spread
    return min(spread * l2, l2 * l2), l2


def exponent(privacy: Privacy, *, layout: Layout, edges: int) -> int:
    """The largest k whose noise, which itself grows with ``2**k``, can be drawn and leaves room for all edges.

    Raises:
        MalformedMessageError: the segments do not share one bound and width, or there is no such k.
    """
    segment = _shared(layout)
    highest = segment.exponent(edges)
    for k in range(highest, highest - _DEEPEST, -1):
        total = _variance_at(k, privacy, layout=layout, edges=edges)
        # Steps far below the noise gain nothing, and the noise of one edge has to be drawn.
        if total / edges <= LARGEST_VARIANCE and _room_for(segment, edges, total) >= k:
            return k
    raise MalformedMessageError(f"{segment.bits} bits leave no headroom for such noise of {edges} edges")


def _shared(layout: Layout) -> Segment:
    if len({(segment.bound, segment.bits) for segment in layout}) != 1:
        raise MalformedMessageError("the segments of a private round share one bound and one width")
    return layout[0]


def _room_for(segment: Segment, edges: int, noise: float) -> float:
    """The exponent beside noise of this variance; minus infinity if there is no room at all."""
    try:
        return segment.exponent(edges, noise=noise)
    except MalformedMessageError:
        return -math.inf


def _variance_at(k: int, privacy: Privacy, *, layout: Layout, edges: int) -> float:
    """Variance of the sum at this scale, if all n edges survive and none leaves its noise out."""
    _, l2 = sensitivity(privacy, layout=layout, exponent=k)
    deviation = privacy.noise_multiplier * l2
    share = share_of_noise(deviation * deviation, threshold=cohort.threshold(edges), colluders=privacy.colluders)
    return edges * share


def variance_needed(privacy: Privacy, *, layout: Layout, edges: int) -> float:
    """mu: the variance that the honest edges of the smallest sum bring together, ``(noise_multiplier * L2)**2``."""
    k = exponent(privacy, layout=layout, edges=edges)
    _, l2 = sensitivity(privacy, layout=layout, exponent=k)
    deviation = privacy.noise_multiplier * l2
    return deviation * deviation


def share_of_noise(variance: float, *, threshold: int, colluders: int) -> float:
    """The variance that each edge adds so that t survivors, m of them colluders, still bring this much.

    Raises:
        MalformedMessageError: nobody honest would be left to bring it.
    """
    if threshold <= colluders:
        raise MalformedMessageError(f"{colluders} colluders among {threshold} edges leave nobody to add noise")
    return variance / (threshold - colluders)


def variance_of_edge(privacy: Privacy, *, layout: Layout, edges: int) -> float:
    """The variance of the Skellam noise that one edge adds to each of its integers."""
    needed = variance_needed(privacy, layout=layout, edges=edges)
    return share_of_noise(needed, threshold=cohort.threshold(edges), colluders=privacy.colluders)


def variance_of_sum(privacy: Privacy, *, layout: Layout, edges: int) -> float:
    """What encoding and decoding leave room for: the noise of all n edges, or more.

    More where the room would be enough for a higher exponent beside the noise of this one: the encoder would take that,
    and the noise would be half of what the scale asks for.

    Raises:
        MalformedMessageError: the noise fills the words to the last step.
    """
    segment = _shared(layout)
    k = exponent(privacy, layout=layout, edges=edges)
    low = high = _variance_at(k, privacy, layout=layout, edges=edges)
    while _room_for(segment, edges, high) > k:
        low, high = high, 4 * high
    for _ in range(_HALVINGS):
        if _room_for(segment, edges, high) == k:
            return high
        middle = (low + high) / 2
        if _room_for(segment, edges, middle) > k:
            low = middle
        else:
            high = middle
    raise MalformedMessageError(f"such noise of {edges} edges leaves no word for anything else")


def rdp(privacy: Privacy, *, layout: Layout, edges: int, orders: Iterable[int] = ORDERS) -> list[float]:
    """What one round costs a user, whoever else survives it.

    Returns:
        The Renyi divergence at most, in nats, at each order.
    """
    k = exponent(privacy, layout=layout, edges=edges)
    l1, l2 = sensitivity(privacy, layout=layout, exponent=k)
    needed = variance_needed(privacy, layout=layout, edges=edges)
    return [skellam_rdp(order, l1=l1, l2=l2, variance=needed) for order in orders]


def skellam_rdp(order: int, *, l1: float, l2: float, variance: float) -> float:
    """Renyi divergence between Skellam noise and the same noise moved by at most this, in nats.

    Args:
        order: alpha, a whole number from 2 on.
        l1: L1 sensitivity of the integer vector.
        l2: its L2 sensitivity.
        variance: of each coordinate's noise, the difference of two Poisson variables of half of it each.

    Raises:
        ValueError: the theorem does not speak about this order.

    Source:
        Agarwal, Kairouz, Liu, The Skellam Mechanism for Differentially Private Federated Learning, NeurIPS 2021.
        https://arxiv.org/abs/2110.04995. The tests compare it with the exact divergence in one dimension.
    """
    if order < 2 or order != int(order):  # noqa: PLR2004 - alpha of the theorem
        raise ValueError(f"the bound holds for whole orders from 2 on, not for {order}")
    surplus = ((2 * order - 1) * l2 * l2 + 6 * l1) / (4 * variance * variance)
    return order * l2 * l2 / (2 * variance) + min(surplus, 3 * l1 / (2 * variance))
