"""Weights -> the files an edge serves from: one ONNX graph, and the tables beside it (SPEC 9.14)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from center.releases.graph import FEWEST_CANDIDATES, VECTORS_FILE, Graph
from protocol.models.weights import Weights, item_vectors

__all__ = ["FEWEST_CANDIDATES", "SUBMODEL", "Exported", "export"]
SUBMODEL = "recommend"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exported:
    """What a release ships of the submodel.

    Attributes:
        files: path below the bundle -> bytes.
        fp32: the same model in full precision in one file, to compare with.
    """

    files: Mapping[str, bytes]
    fp32: bytes

    @property
    def served_bytes(self) -> int:
        return sum(len(data) for data in self.files.values())


def export(weights: Weights, tokens: NDArray[np.int32], popularity: NDArray[np.float64]) -> Exported:
    """Make the files of submodel ``recommend``.

    The vectors are made of the same rounded token embeddings that are shipped, so that an edge gets for an item of its
    own, bit for bit, what the item would have in the catalogue without an id embedding.

    Args:
        tokens: int32[n + 1, t] of the shared catalogue.
        popularity: float64[n + 1], federation-wide counts.
    """
    words = weights.tensors["token.weight"].astype("<f2")
    rounded = replace(weights, tensors={**weights.tensors, "token.weight": words.astype(np.float32)})
    vectors, bias = item_vectors(rounded, tokens)
    halves = vectors.astype("<f2")
    del vectors  # of a million items each copy takes as much as the rest of this process
    nothing = np.zeros((1, words.shape[1]), "<f2")
    files = {
        f"{SUBMODEL}/model.onnx": Graph(weights, halves, bias).quantized(),
        f"{SUBMODEL}/{VECTORS_FILE}": halves.tobytes(),
        f"{SUBMODEL}/item_bias.bin": bias.astype("<f4").tobytes(),
        f"{SUBMODEL}/popularity.bin": popularity.astype("<f4").tobytes(),
        f"{SUBMODEL}/tokens.bin": np.concatenate([nothing, words]).tobytes(),
    }
    del halves
    return Exported(files=files, fp32=Graph(weights, *item_vectors(weights, tokens)).full())
