"""Several voices -> one score: the sequence model, the user's own habits, what goes with them, what sells.

A candidate's score is a weighted sum of what the voices say of it (`edge.serving.slate`). The weights are fitted on the
site's own newest baskets (`edge.serving.fitting`); until then the defaults speak, which were fitted on public grocery
baskets.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from edge.serving import weights_file
from edge.serving.personal import HABITS
from edge.serving.weights_file import Fitted

TOP: Final = 100
"""Candidates taken from the model."""
VOICES: Final = (
    "sequence",  # the model's score, in standard deviations above the mean of the candidates
    "sequence_again",  # the same, of items bought before
    *HABITS,
    "site",  # log of the site's purchases
    "site_again",
    "federation",  # log of the federation's purchases
    "companion",  # how much it goes with the user's newest items, from 0
)
SOURCES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "sequence": ("sequence", "sequence_again"),
        "habits": HABITS,
        "companion": ("companion",),
        "popularity": ("site", "site_again", "federation"),
    }
)
"""The voices by whom they come from."""
DEFAULTS: Final[Mapping[str, float]] = MappingProxyType(
    {"sequence": 1.0, "again": 5.5, "baskets": 0.85, "recent_10_baskets": 0.1, "recent_14_days": 0.1}
    | {"due_by_baskets": 0.55, "twice": 0.35, "thrice": 0.2, "idle_baskets": -0.1, "experience": -0.1}
    | {"attention": 0.5, "site": 0.85, "site_again": -0.6, "federation": 0.1}
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weighing:
    """Weights as a slate needs them: float32[len(HABITS)] of the habits, and one number for each other voice."""

    habits: NDArray[np.float32]
    sequence: np.float32
    sequence_again: np.float32
    site: np.float32
    site_again: np.float32
    federation: np.float32
    companion: np.float32


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
    weighing: Weighing = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        habits = np.array([self.weights.get(name, 0.0) for name in HABITS], np.float32)
        others = {name: np.float32(self.weights.get(name, 0.0)) for name in VOICES if name not in HABITS}
        object.__setattr__(self, "weighing", Weighing(habits=habits, **others))

    @classmethod
    def default(cls) -> Self:
        return cls(weights=DEFAULTS)

    def vector(self) -> NDArray[np.float64]:
        """float64[len(VOICES)]."""
        return np.array([self.weights.get(name, 0.0) for name in VOICES])

    def only(self, names: Iterable[str]) -> Self:
        """The same, deaf to all but these sources or single voices."""
        heard = {voice for name in names for voice in SOURCES.get(name, (name,))}
        return replace(self, weights={name: value for name, value in self.weights.items() if name in heard})

    def with_companions(self, least: float) -> Self:
        """The same, in which companions count at least so much."""
        return replace(self, weights={**self.weights, "companion": max(least, self.weights.get("companion", 0.0))})

    def save(self, path: Path) -> None:
        """Write them, for `read`."""
        fitted = Fitted(self.weights, self.users, self.ndcg_before, self.ndcg_after)
        weights_file.save(path, fitted, of="users")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Weights saved before.

        Raises:
            BadInputError: there are none, or they cannot be understood.
        """
        found = weights_file.read(path, of="users", voices=VOICES)
        return cls(
            weights=found.weights,
            users=found.examples,
            ndcg_before=found.ndcg_before,
            ndcg_after=found.ndcg_after,
        )
