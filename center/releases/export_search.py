"""Two towers -> the files of submodel ``search``: what a question's words and an item's words mean, in one space.

Both towers begin with one table of token embeddings (SPEC 4.5), each has a matrix of its own behind it, and either
takes the mean of its words. Matrix and mean change places, so that an edge needs two tables and no matrix. The graph
looks like that of ``recommend`` from outside: words stand where that one takes rows (SPEC 9.25).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from center.releases.graph import VECTORS_FILE, Graph
from protocol.content import BUCKETS, mean_vectors
from protocol.errors import BadInputError
from protocol.models.weights import SequenceConfig, Weights

SUBMODEL = "search"
_NARROWEST = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TowerWeights:
    """What training of the towers ends with.

    Attributes:
        tokens: float32[BUCKETS, e], shared.
        question: float32[e, d], behind the words of a question; d is a power of two from 16 on.
        item: float32[e, d], behind those of an item.
    """

    tokens: NDArray[np.float32]
    question: NDArray[np.float32]
    item: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Raises BadInputError: the shapes do not fit each other, or a number is none."""
        (rows, inner), (_, size) = self.tokens.shape, self.item.shape
        # The scan takes vectors in one block each, whose width is a power of two.
        fits = rows == BUCKETS and self.question.shape == self.item.shape == (inner, size)
        fits = fits and size >= _NARROWEST and size & (size - 1) == 0
        if not fits or not all(np.isfinite(part).all() for part in (self.tokens, self.question, self.item)):
            raise BadInputError("these are no weights of two towers")


def export_search(weights: TowerWeights, tokens: NDArray[np.int32]) -> Mapping[str, bytes]:
    """Path below the bundle -> bytes.

    Args:
        tokens: int32[n + 1, t] of the shared catalogue.
    """
    table = _with_nothing(weights.tokens @ weights.item).astype("<f2")
    vectors = mean_vectors(table.astype(np.float32), tokens).astype("<f2")
    bias = np.zeros(len(vectors), "<f4")
    words = _with_nothing(weights.tokens @ weights.question)
    return {
        f"{SUBMODEL}/model.onnx": _Questions(words, vectors, bias).quantized(),
        f"{SUBMODEL}/{VECTORS_FILE}": vectors.tobytes(),
        f"{SUBMODEL}/item_bias.bin": bias.tobytes(),
        f"{SUBMODEL}/tokens.bin": table.tobytes(),
    }


def card(weights: TowerWeights, *, items: int) -> dict[str, int]:
    """What the bundle's card says of it."""
    return {"embedding_size": weights.item.shape[1], "items": items}


class _Questions(Graph):
    """The graph of ``recommend`` with another beginning: the mean of words instead of a read history."""

    def __init__(self, words: NDArray[np.float32], vectors: NDArray[np.float16], bias: NDArray[np.float32]) -> None:
        size = words.shape[1]
        config = SequenceConfig(items=len(vectors) - 1, embedding_size=size, heads=1)
        super().__init__(Weights(config=config, tensors={"words": words}, id_rows=np.zeros(0, np.int32)), vectors, bias)

    def _encode(self, gather: object, strangers: str | None = None) -> str:  # noqa: ARG002 - words are known
        """float32[batch, d] of length 1: the mean of the words that are there, 0 being none."""
        found = self._op("Gather", [self._parameter("words"), "history"], axis=0)
        total = self._op("ReduceSum", [found, self._ints(1)], keepdims=0)
        length = self._op("ReduceL2", [total, self._ints(1)], keepdims=1)
        return self._op("Div", [total, self._op("Max", [length, self._constant(np.full(1, 1e-6, np.float32))])])

    def _add_strangers(self) -> None:
        """There are none among words."""


def _with_nothing(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """A row of zeros in front."""
    return np.concatenate([np.zeros((1, table.shape[1]), np.float32), table.astype(np.float32)])
