"""Several voices -> one list: the sequence model, the user's own habits, what the site buys, what the federation buys.

A candidate's score is a weighted sum of what the voices say of it. The weights are fitted on the site's own newest
baskets (`edge.serving.fitting`); until then the defaults speak, which were fitted on public grocery baskets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from edge import durable
from edge.records.store import Past
from edge.serving.personal import HABITS, habits
from edge.serving.ranker import Ranked, Ranker
from protocol import canonical
from protocol.errors import BadInputError, MalformedMessageError

TOP: Final = 100
"""Candidates taken from the model."""
VOICES: Final = (
    "sequence",  # the model's score, in standard deviations above the mean of the candidates
    "sequence_again",  # the same, of items bought before
    *HABITS,
    "site",  # log of the site's purchases
    "site_again",
    "federation",  # log of the federation's purchases
)
DEFAULTS: Final[Mapping[str, float]] = MappingProxyType(
    {"sequence": 1.0, "again": 5.5, "baskets": 0.85, "recent_10_baskets": 0.1, "recent_14_days": 0.1}
    | {"due_by_baskets": 0.55, "twice": 0.35, "thrice": 0.2, "idle_baskets": -0.1, "experience": -0.1}
    | {"attention": 0.5, "site": 0.85, "site_again": -0.6, "federation": 0.1}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionWeights:
    """How much each voice counts.

    Attributes:
        weights: by name of the voice; a voice not named counts nothing.
        users: how many users' baskets they were fitted on; 0: the defaults.
        ndcg_before: NDCG@10 of the defaults on baskets held out from the fit; 0 when nothing was fitted.
        ndcg_after: the same of the fitted weights.
    """

    weights: Mapping[str, float]
    users: int = 0
    ndcg_before: float = 0.0
    ndcg_after: float = 0.0

    @classmethod
    def default(cls) -> Self:
        return cls(weights=DEFAULTS)

    def vector(self) -> NDArray[np.float64]:
        """float64[len(VOICES)]."""
        return np.array([self.weights.get(name, 0.0) for name in VOICES])

    def save(self, path: Path) -> None:
        figures = {"users": self.users, "ndcg_before": self.ndcg_before, "ndcg_after": self.ndcg_after}
        durable.write(path, canonical.encode({"format": 1, "weights": dict(self.weights), **figures}))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Weights saved before.

        Raises:
            BadInputError: there are none, or they cannot be understood.
        """
        try:
            match canonical.decode(path.read_bytes()):
                case {
                    "format": 1,
                    "weights": dict(weights),
                    "users": int(users),
                    "ndcg_before": int() | float() as before,
                    "ndcg_after": int() | float() as after,
                } if weights.keys() <= set(VOICES):
                    numbers = {name: float(value) for name, value in weights.items()}
                    return cls(weights=numbers, users=users, ndcg_before=before, ndcg_after=after)
        except (OSError, MalformedMessageError, TypeError, ValueError) as error:
            raise BadInputError(f"{path} holds no fusion weights: {error}") from error
        raise BadInputError(f"{path} holds no fusion weights of format 1")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Market:
    """What sells, whoever asks.

    Attributes:
        site: float32[size], the site's purchases by place.
        federation: float32[size], the federation's.
        popular: int64[m], candidates for everybody, best first.
        rows: places up to this one are rows that the model can score.
    """

    site: NDArray[np.float32]
    federation: NDArray[np.float32]
    popular: NDArray[np.int64]
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slate:
    """The candidates for one answer.

    Attributes:
        places: int64[n], sorted, each once.
        voices: float64[n, len(VOICES)], what each voice says of each.
    """

    places: NDArray[np.int64]
    voices: NDArray[np.float64]

    def scores(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = self.voices @ weights
        return scores


def lay_out(
    past: Past,
    market: Market,
    *,
    ranker: Ranker | None = None,
    ranked: Ranked | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> Slate:
    """The model's best, the user's own, and what is popular, as one slate.

    Args:
        past: the user's; its items are places.
        ranked: the model's answer to this past; None: the model is silent.
        allowed: bool[size], places that may be on the slate; None: all.
    """
    own = habits(past)
    places = np.unique(np.concatenate([own.places, market.popular, *([ranked.rows] if ranked else [])]))
    if allowed is not None:
        places = places[allowed[places]]
    voices = np.zeros((len(places), len(VOICES)))
    known = np.isin(own.places, places, assume_unique=True)
    again = np.zeros(len(places))
    at = np.searchsorted(places, own.places[known])
    voices[at, 2 : 2 + len(HABITS)] = own.features[known]
    again[at] = own.features[known, 0]
    if ranker is not None and ranked is not None:
        voices[:, 0] = _standardised(ranker, ranked, places, market.rows)
        voices[:, 1] = voices[:, 0] * again
    voices[:, -3] = np.log1p(market.site[places])
    voices[:, -2] = voices[:, -3] * again
    voices[:, -1] = np.log1p(market.federation[places])
    return Slate(places=places, voices=voices)


def _standardised(ranker: Ranker, ranked: Ranked, places: NDArray[np.int64], rows: int) -> NDArray[np.float64]:
    """The model's scores with mean 0 and variance 1, so that weights survive the next release; 0 of a private item."""
    said = np.zeros(len(places))
    shared = places <= rows
    if shared.any():
        scores = ranker.score(ranked.state, places[shared]).astype(np.float64)
        said[shared] = (scores - scores.mean()) / (scores.std() + 1e-9)
    return said
