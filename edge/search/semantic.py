"""The submodel ``search``: what means the same in other words.

Two towers: a graph reads the words of a question and ranks the shared catalogue, as that of ``recommend`` reads a
history and does; an item that only this site sells gets its vector from its own words. So it is loaded, checked and
kept up with the shelf by what loads, checks and keeps up the other (SPEC 9.25).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge.serving.numbering import Numbering
from edge.serving.ranker import Ranked, Ranker, table
from edge.serving.vectors import Vectors
from protocol.content import BUCKETS, MOST_TOKENS, buckets_of
from protocol.errors import UntrustedReleaseError

SUBMODEL: Final = "search"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Semantic:
    """One loaded submodel.

    Attributes:
        tokens: float16[BUCKETS + 1, d], what each word adds to an item's vector; row 0 is zero.
    """

    ranker: Ranker
    tokens: NDArray[np.float16]

    @classmethod
    def load(cls, directory: Path, submodels: Mapping[str, Any], *, items: int) -> Self | None:
        """Load it from a bundle and ask it once; None: the bundle has none.

        Args:
            submodels: of the bundle's card.
            items: of the catalogue.

        Raises:
            UntrustedReleaseError: a file is wrong, or it numbers other items.
        """
        match submodels.get(SUBMODEL):
            case None:
                return None
            case {"embedding_size": int(size), "items": int(counted)} if size > 0 and counted == items:
                pass
            case _:
                raise UntrustedReleaseError(f"{directory} has no usable submodel {SUBMODEL}")
        folder = directory / SUBMODEL
        ranker = Ranker.load(folder, items=items, embedding_size=size, history_length=MOST_TOKENS)
        tokens: NDArray[np.float16] = table(folder / "tokens.bin", np.float16, (BUCKETS + 1, size))
        if not np.isfinite(tokens).all() or tokens[0].any():
            raise UntrustedReleaseError(f"{folder / 'tokens.bin'} holds what is no vector")
        return cls(ranker=ranker, tokens=tokens)

    def vectors(self, numbering: Numbering) -> Vectors:
        """Of everything that has a place; takes a while for many private items, so not in the loop."""
        return Vectors(self.ranker, numbering, tokens=self.tokens)

    def ask(self, text: str, *, k: int, options: ort.RunOptions | None = None) -> Ranked | None:
        """The question as the model sees it, and the k rows that mean most nearly the same; None: it has no words.

        Raises:
            ModelFailedError: the model failed, or was stopped.
        """
        buckets = buckets_of((text, "", ""))
        if not buckets:
            return None
        return self.ranker.rank_many([np.array(buckets, np.int64) + 1], k=k, options=options)[0]
