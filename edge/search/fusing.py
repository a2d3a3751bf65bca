"""Several voices -> one order: who holds the words, what means the same, what this user likes, what sells.

Until a site has weights of its own the voices vote by rank. Weights are fitted on the searches and clicks of the site
itself (`edge.search.fitting`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from edge.serving import weights_file
from edge.serving.weights_file import Fitted

VOICES: Final = (
    "words",  # the score of the words, as a share of the best one's
    "every_word",  # 1: it holds every word
    "meaning",  # the score of the submodel search, standardised over the candidates; 0 where it has none
    "taste",  # what the user would be recommended, likewise
    "sold",  # log of the site's purchases, likewise
)
_RANK: Final = 60
_TASTE: Final = 0.5  # of a vote: what was typed comes first
_SMALLEST: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slate:
    """The candidates for one answer.

    Attributes:
        places: int64[n], each once; first those that were found by their words, best first.
        words: float32[n], the score of the words; 0: found by its meaning only.
        complete: how many of the first hold every word.
        meaning: float32[n], nan where the submodel search knows nothing of it; None: it is silent.
        taste: float32[n]; None: nobody asks, or nothing is known of who does.
        sold: float32[n], purchases.
    """

    places: NDArray[np.int64]
    words: NDArray[np.float32]
    complete: int
    meaning: NDArray[np.float32] | None
    taste: NDArray[np.float32] | None
    sold: NDArray[np.float32]

    def votes(self) -> NDArray[np.float32]:
        """float32[n], above 0: each voice names its candidates by rank, and a rank r is worth 1 / (60 + r).

        Source:
            Cormack, Clarke and Buettcher, Reciprocal rank fusion, SIGIR 2009.
        """
        votes = _votes(self.words, self.words > 0)
        if self.meaning is not None:
            votes += _votes(self.meaning, ~np.isnan(self.meaning))
        if self.taste is not None:
            votes += np.float32(_TASTE) * _votes(self.taste, None)
        return votes

    def voices(self) -> NDArray[np.float64]:
        """float64[n, len(VOICES)]."""
        voices = np.zeros((len(self.places), len(VOICES)))
        voices[:, 0] = self.words / max(float(self.words.max(initial=0)), _SMALLEST)
        voices[: self.complete, 1] = 1
        if self.meaning is not None:
            voices[:, 2] = _standard(self.meaning)
        if self.taste is not None:
            voices[:, 3] = _standard(self.taste)
        voices[:, 4] = _standard(np.log1p(self.sold))
        return voices


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchWeights:
    """How much each voice counts at this site.

    Attributes:
        weights: by name of the voice; a voice not named counts nothing.
        searches: how many they were fitted on.
        ndcg_before: NDCG@10 of the votes on searches held out from the fit.
        ndcg_after: the same of the weights.
    """

    weights: Mapping[str, float]
    searches: int
    ndcg_before: float
    ndcg_after: float

    def scores(self, slate: Slate) -> NDArray[np.float32]:
        """float32[n]."""
        vector = np.array([self.weights.get(name, 0.0) for name in VOICES])
        scores: NDArray[np.float32] = (slate.voices() @ vector).astype(np.float32)
        return scores

    def save(self, path: Path) -> None:
        """Write them, for `read`."""
        fitted = Fitted(self.weights, self.searches, self.ndcg_before, self.ndcg_after)
        weights_file.save(path, fitted, of="searches")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Weights saved before.

        Raises:
            BadInputError: there are none, or they cannot be understood.
        """
        found = weights_file.read(path, of="searches", voices=VOICES)
        return cls(
            weights=found.weights,
            searches=found.examples,
            ndcg_before=found.ndcg_before,
            ndcg_after=found.ndcg_after,
        )


def _votes(said: NDArray[np.float32], heard: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """float32[n], 1 / (60 + rank), the first having rank 1; 0 of those about whom nothing is said."""
    votes = np.zeros(len(said), np.float32)
    order = np.argsort(-said if heard is None else np.where(heard, -said, np.inf), kind="stable")
    votes[order] = 1 / (_RANK + 1 + np.arange(len(order), dtype=np.float32))
    if heard is not None:
        votes[~heard] = 0
    return votes


def _standard(said: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64[n], mean 0 and variance 1 of what is known, 0 elsewhere."""
    known = ~np.isnan(said)
    found = np.zeros(len(said))
    if known.any():
        values = said[known].astype(np.float64)
        found[known] = (values - values.mean()) / (values.std() + _SMALLEST)
    return found
