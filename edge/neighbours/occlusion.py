"""What an item's score owes to a part of the past: its score with everything, less its score without that part.

The model reads all shortened histories in a few runs, the other voices are asked as they are for an answer, and the
candidates stay the same throughout: so the difference is what the score would fall by, and nothing else.

Source: Covert, Lundberg and Lee, Explaining by removing, JMLR 2021 (leave-one-out occlusion and its kin).
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge.records.store import Past
from edge.serving.fusion import FusionWeights
from edge.serving.personal import habits
from edge.serving.ranker import Ranked
from edge.serving.release import Loaded
from edge.serving.slate import NOTHING_NEAR, Market, Near, Slate, lay_out

MOST_POSITIONS: Final = 800
"""Positions that one run of the model reads at most: as many as when answers are given together."""
_BESIDE = 20  # what a history costs beside its positions, in positions: the scan of the catalogue
_ALONE = 1.0  # what companions weigh at least where the model is silent, as in an answer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Panel:
    """The voices of one answer, for one list of candidates.

    Attributes:
        places: int64[n], sorted, each once.
        market: what sells.
        near: what goes with the newest of some places.
        stopping: around each run of the model; None: the model is not asked.
    """

    loaded: Loaded
    places: NDArray[np.int64]
    market: Market
    near: Callable[[NDArray[np.int64]], Near]
    stopping: Callable[[], AbstractContextManager[ort.RunOptions]] | None

    async def hear(self, pasts: Sequence[Past], *, k: int = 1) -> list[Ranked | None]:
        """What the model makes of each past; None: nothing. Others are let in between two runs.

        Raises:
            ModelFailedError: the model failed, or was stopped.
        """
        heard: list[Ranked | None] = [None] * len(pasts)
        release, vectors = self.loaded.release, self.loaded.vectors
        if release is None or vectors is None or self.stopping is None:
            return heard
        readable = [vectors.readable(past.item) for past in pasts]
        order = sorted((at for at, read in enumerate(readable) if read.size), key=lambda at: -len(readable[at]))
        while order:
            longest = min(len(readable[order[0]]), release.ranker.history_length)
            most = max(MOST_POSITIONS // (longest + _BESIDE), 1)
            some, order = order[:most], order[most:]
            with self.stopping() as options:
                said = release.ranker.rank_many([readable[at] for at in some], k=k, vectors=vectors, options=options)
            for at, ranked in zip(some, said, strict=True):
                heard[at] = ranked
            await asyncio.sleep(0)
        return heard

    def scored(self, past: Past, ranked: Ranked | None) -> tuple[Slate, FusionWeights]:
        """What every voice says after this past, and how much each of them counts then."""
        weights, near = self.loaded.weights, NOTHING_NEAR
        if past.item.size and (ranked is None or weights.weighing.companion):
            near = self.near(past.item)
        if ranked is None and near.places.size:
            weights = weights.with_companions(_ALONE)
        slate = lay_out(self.places, habits(past), self.market, model=self.loaded.vectors, ranked=ranked, near=near)
        return slate, weights

    def scores(self, past: Past, ranked: Ranked | None) -> NDArray[np.float64]:
        """float64[n]."""
        slate, weights = self.scored(past, ranked)
        return slate.scores(weights).astype(np.float64)

    def at(self, places: Sequence[int]) -> NDArray[np.int64]:
        """Where these stand among the candidates."""
        return np.searchsorted(self.places, places)


def without(past: Past, gone: NDArray[np.bool_]) -> Past:
    """The past as if that had not happened.

    Args:
        gone: bool[t].
    """
    return Past(item=past.item[~gone], time_ms=past.time_ms[~gone], purchased=past.purchased[~gone])
