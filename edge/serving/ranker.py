"""ONNX Runtime: a history of catalogue rows -> ranked rows, and the score of any row."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge.serving import graph
from protocol.errors import UnavailableError, UntrustedReleaseError

SUBMODEL: Final = "recommend"
_GRAPH, _VECTORS = "model.onnx", "item_vectors.bin"
_INPUTS = {"history", "k"}
_OUTPUTS = ["state", "items", "scores"]
_MOST_DIRECTION_BYTES = 64 << 20
_SMALLEST = 1e-6
_CHUNK_ROWS = 8_192  # of the vector table widened to float32 at a time: 2 MiB at d = 64, which stays in the cache


class ModelFailedError(UnavailableError):
    """The model of the running release did not give a usable answer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranked:
    """What the model makes of one history.

    Attributes:
        state: float32[d], the history as the model sees it.
        rows: int64[k], best first.
    """

    state: NDArray[np.float32]
    rows: NDArray[np.int64]


class Ranker:
    """One loaded sequence model; its item vectors are mapped into memory, not read."""

    def __init__(
        self, session: Any, vectors: NDArray[np.float16], bias: NDArray[np.float32], *, history_length: int
    ) -> None:
        self.history_length = history_length
        self.items = len(vectors) - 1
        self._session = session
        self._vectors = vectors
        self._bias = bias
        # Widening float16 costs ten times the product itself, so a table of bearable size is widened once.
        self._directions = _directions(vectors) if vectors.size * 4 <= _MOST_DIRECTION_BYTES else None

    @classmethod
    def load(cls, directory: Path, *, items: int, embedding_size: int, history_length: int) -> Self:
        """Load the files of the submodel `recommend` and ask it once.

        Args:
            directory: holds model.onnx, item_vectors.bin (float16[n+1, d]) and item_bias.bin (float32[n+1]).

        Raises:
            UntrustedReleaseError: a file is missing or of another size, the graph asks for a file other than the item
                vectors beside it, or the model is none of our kind.
        """
        vectors = table(directory / _VECTORS, np.float16, (items + 1, embedding_size))
        bias = table(directory / "item_bias.bin", np.float32, (items + 1,))
        # One thread: a second gives the encoder nothing and spins against the event loop (docs/decisions/0006).
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.load_model_format", "ONNX")  # whatever its bytes look like
        path = directory / _GRAPH
        _check_graph(path, vectors.nbytes)
        try:
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            names = {put.name for put in session.get_inputs()}, {put.name for put in session.get_outputs()}
        except Exception as error:
            raise UntrustedReleaseError(f"{path} is no model: {error}") from error
        if names[0] != _INPUTS or not names[1] >= set(_OUTPUTS):
            raise UntrustedReleaseError(f"{path} takes {names[0]} and gives {names[1]}")
        ranker = cls(session, vectors, bias, history_length=history_length)
        try:
            ranker.rank(np.ones(1, np.int64), k=min(10, items))
        except ModelFailedError as error:
            raise UntrustedReleaseError(str(error)) from error
        return ranker

    def rank(self, rows: NDArray[np.int64], *, k: int) -> Ranked:
        """The k best rows after this history, oldest first, at least one row; only its newest part is read.

        Raises:
            ModelFailedError: the model failed, or answered with something that is no ranking.
        """
        history = rows[-self.history_length :].reshape(1, -1)
        asked = np.array([min(k, self.items)], np.int64)
        try:
            state, items, _ = self._session.run(_OUTPUTS, {"history": history, "k": asked})
        except Exception as error:
            raise ModelFailedError(f"the model failed: {error}") from error
        if not np.isfinite(state).all() or items.min(initial=1) < 0 or items.max(initial=0) > self.items:
            raise ModelFailedError("the model's answer is no ranking")
        found = items[0].astype(np.int64, copy=False)
        return Ranked(state=state[0], rows=found[found > 0])

    def score(self, state: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[n], what the model gives any rows: h . v + b."""
        scores: NDArray[np.float32] = self._vectors[rows].astype(np.float32) @ state + self._bias[rows]
        return scores

    def similar(self, row: int, allowed: NDArray[np.bool_], *, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k nearest other rows by cosine, best first, with their cosines.

        Args:
            allowed: bool[n+1], rows that may be named.
        """
        direction = self._vectors[row].astype(np.float32)
        direction /= max(float(np.linalg.norm(direction)), _SMALLEST)
        cosines = self._directions @ direction if self._directions is not None else self._cosines(direction)
        cosines[~allowed] = -np.inf
        cosines[[0, row]] = -np.inf
        rows = best(cosines, k)
        return rows, cosines[rows]

    def _cosines(self, direction: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[n+1], without ever holding the whole table as float32."""
        cosines = np.empty(len(self._vectors), np.float32)
        for start in range(0, len(cosines), _CHUNK_ROWS):
            part = _directions(self._vectors[start : start + _CHUNK_ROWS])
            cosines[start : start + len(part)] = part @ direction
        return cosines


def _check_graph(path: Path, vectors_bytes: int) -> None:
    """Only the graph's own bytes and the vectors beside it are ever read (SPEC 9.14)."""
    try:
        if path.stat().st_size > graph.MOST_BYTES:
            raise UntrustedReleaseError(f"{path} is too large for a graph")
        data = path.read_bytes()
    except OSError as error:
        raise UntrustedReleaseError(f"{path} is missing") from error
    try:
        graph.check_external(data, file=_VECTORS, size=vectors_bytes)
    except UntrustedReleaseError as error:
        raise UntrustedReleaseError(f"{path} is refused: {error}") from error


def _directions(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    """float32[n, d], each of length 1."""
    wide = vectors.astype(np.float32)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), _SMALLEST)
    return wide


def table(path: Path, kind: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Map a raw little-endian table into memory.

    Raises:
        UntrustedReleaseError: it is missing or of another size.
    """
    kind = np.dtype(kind).newbyteorder("<")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UntrustedReleaseError(f"{path} is missing") from error
    if size != kind.itemsize * int(np.prod(shape)):
        raise UntrustedReleaseError(f"{path} has {size} bytes, not those of {shape} of {kind}")
    # A plain array over the map: numpy's own memmap class costs microseconds at every slice.
    return np.asarray(np.memmap(path, kind, "r", shape=shape))


def best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Indices of the k highest finite scores, best first; equal scores in the order of their indices."""
    k = min(k, len(scores))
    if k <= 0:
        return np.empty(0, np.int64)
    top = np.sort(np.argpartition(-scores, k - 1)[:k])
    top = top[np.argsort(-scores[top], kind="stable")]
    return top[np.isfinite(scores[top])]
