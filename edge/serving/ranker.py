"""ONNX Runtime: a history of catalogue rows -> ranked rows, and the score of any row."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge.serving import graph
from protocol.errors import UnavailableError, UntrustedReleaseError

SUBMODEL: Final = "recommend"
_GRAPH, _VECTORS = "model.onnx", "item_vectors.bin"
_INPUTS = {"history", "k"}
_STRANGERS = "strangers"
_OUTPUTS = ["state", "items", "scores"]
MOST_WIDE_BYTES: Final = 64 << 20
_SMALLEST = 1e-6
_SHORT = 1_024
"""So few are sorted sooner than parted."""
_SIGN, _ALL_BUT_SIGN = np.uint32(0x8000_0000), np.uint32(0x7FFF_0000)
_EXPONENTS_APART = np.float32(2.0**112)
_LONG: Final = 1 << 21
"""Numbers in a table that is gone through in half a millisecond."""
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


class Strangers(Protocol):
    """Knows the vectors of items that the catalogue lacks."""

    @property
    def private(self) -> int:
        """How many of them there are."""

    def at(self, places: NDArray[np.int64], /) -> NDArray[np.float32]:
        """float32[m, d]."""


class Ranker:
    """One loaded sequence model; its item vectors are mapped into memory, not read."""

    def __init__(
        self, session: Any, vectors: NDArray[np.float16], bias: NDArray[np.float32], *, history_length: int
    ) -> None:
        self.history_length = history_length
        self.items = len(vectors) - 1
        self.width = vectors.shape[1]
        self.bias = bias
        self.takes_strangers = False
        """Whether a history may hold items that the catalogue lacks; graphs of older centers do not know how."""
        self._session = session
        self._vectors = vectors
        # Widening float16 costs ten times the product itself, so a table of bearable size is widened once.
        self._wide = _all_wide(vectors) if vectors.size * 4 <= MOST_WIDE_BYTES else None
        self._lengths = _lengths(vectors if self._wide is None else self._wide)

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
        ranker.takes_strangers = _STRANGERS in {put.name for put in session.get_overridable_initializers()}
        try:
            ranker.rank(np.ones(1, np.int64), k=min(10, items))
        except ModelFailedError as error:
            raise UntrustedReleaseError(str(error)) from error
        return ranker

    def rank(self, rows: NDArray[np.int64], *, k: int, vectors: Strangers | None = None) -> Ranked:
        """The k best rows after this history, oldest first, at least one row; only its newest part is read.

        Raises:
            ModelFailedError: the model failed, or answered with something that is no ranking.
        """
        return self.rank_many([rows], k=k, vectors=vectors)[0]

    def rank_many(
        self,
        histories: Sequence[NDArray[np.int64]],
        *,
        k: int,
        vectors: Strangers | None = None,
        options: ort.RunOptions | None = None,
    ) -> list[Ranked]:
        """The same of several histories in one run.

        Args:
            vectors: of items that the catalogue lacks, by their places; None: there are no such in the histories.
            options: of ONNX Runtime, through which another thread may stop the run.

        Raises:
            ModelFailedError: the model failed, or was stopped.
        """
        try:
            states, found, _ = self._session.run(_OUTPUTS, self.feeds(histories, k=k, vectors=vectors), options)
        except Exception as error:
            raise ModelFailedError(f"the model failed: {error}") from error
        found = found.astype(np.int64, copy=False)
        # As unsigned numbers those below 0 are the largest; what is not finite survives a sum.
        if found.size and (found.view(np.uint64).max() > self.items or not isfinite(states.sum())):
            raise ModelFailedError("the model's answer is no ranking")
        full = found.all()  # so a history has as many as were asked for, as nearly always
        return [
            Ranked(state=state, rows=rows if full else rows[rows > 0])
            for state, rows in zip(states, found, strict=True)
        ]

    def feeds(
        self, histories: Sequence[NDArray[np.int64]], *, k: int, vectors: Strangers | None = None
    ) -> dict[str, NDArray[Any]]:
        """What the graph is given: the newest part of each history, the shorter ones filled up with 0 in front.

        An item that the catalogue lacks stands there as -(n + 1), and its vector beside it (SPEC 9.14).
        """
        newest = [rows[-self.history_length :] for rows in histories]
        if len(newest) == 1:
            history = newest[0].reshape(1, -1)
        else:
            history = np.zeros((len(newest), max(map(len, newest))), np.int64)
            for line, rows in zip(history, newest, strict=True):
                line[len(line) - len(rows) :] = rows
        asked = {"history": history, "k": np.array([min(k, self.items)], np.int64)}
        if vectors is None or not vectors.private or not (strange := history > self.items).any():
            return asked
        strangers = np.zeros((*history.shape, self.width), np.float32)
        strangers[strange] = vectors.at(history[strange])
        return {**asked, "history": np.where(strange, -(self.items + 1), history), _STRANGERS: strangers}

    def at(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[m, d], the vectors of rows; zero of row 0."""
        return self._wide[rows] if self._wide is not None else _widened(self._vectors[rows])

    def score(self, state: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[n], what the model gives any rows: h . v + b."""
        scores: NDArray[np.float32] = self.at(rows) @ state
        scores += self.bias[rows]
        return scores

    def nbytes(self) -> int:
        """Bytes in memory beside the graph and what is mapped."""
        return self._lengths.nbytes + (self._wide.nbytes if self._wide is not None else 0)

    @property
    def is_long(self) -> bool:
        """Whether a look at every vector takes so long that it is done beside the event loop."""
        return self._vectors.size > _LONG

    def nearest(self, direction: NDArray[np.float32], *, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k rows that point most nearly this way, best first, with their cosines. Any thread may ask.

        Args:
            direction: float32[d] of length 1.
        """
        cosines = np.empty(len(self._vectors), np.float32)
        for start in range(0, len(cosines), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            part = _widened(self._vectors[rows]) if self._wide is None else self._wide[rows]
            np.matmul(part, direction, out=cosines[rows])
        cosines /= self._lengths
        cosines[0] = -np.inf
        rows_found = best(cosines, k)
        return rows_found, cosines[rows_found]

    def cosines(self, rows: NDArray[np.int64], direction: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[n], of these rows with this direction.

        Args:
            direction: float32[d] of length 1.
        """
        cosines = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            np.matmul(self.at(rows[part]), direction, out=cosines[part])
        cosines /= self._lengths[rows]
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


def _all_wide(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    """The same table, a part at a time: what is beside it in memory stays small."""
    wide = np.empty(vectors.shape, np.float32)
    for start in range(0, len(vectors), _CHUNK_ROWS):
        wide[start : start + _CHUNK_ROWS] = _widened(vectors[start : start + _CHUNK_ROWS])
    return wide


def _lengths(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """float32[n], at least a very small number, so that anything may be divided by it.

    Args:
        vectors: float16[n, d] or float32[n, d].
    """
    lengths = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), _CHUNK_ROWS):
        part = vectors[start : start + _CHUNK_ROWS]
        wide = part if part.dtype == np.float32 else _widened(part)
        np.einsum("nd,nd->n", wide, wide, out=lengths[start : start + len(part)])
    np.sqrt(lengths, out=lengths)
    return np.maximum(lengths, _SMALLEST, out=lengths)


def _widened(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    """The same finite numbers as float32, in a third of the time that numpy takes.

    Exponent and fraction go where float32 has them; the exponents are then too small by 112, which a product mends,
    those of numbers below the normal ones among them.
    """
    wide = vectors.view(np.uint16).astype(np.uint32)
    wide <<= 16
    sign = wide & _SIGN
    wide &= _ALL_BUT_SIGN
    wide >>= 3
    wide |= sign
    numbers = wide.view(np.float32)
    numbers *= _EXPONENTS_APART
    return numbers


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
    falling = -scores
    if len(falling) <= _SHORT:
        top = falling.argsort(kind="stable")[: max(k, 0)]
    elif k <= 0:
        return np.empty(0, np.int64)
    else:
        top = np.sort(np.argpartition(falling, min(k, len(falling)) - 1)[:k])
        top = top[np.argsort(falling[top], kind="stable")]
    # What is forbidden stands last, what is no number after that, and what is without bounds first.
    if not len(top) or (isfinite(falling[top[0]]) and isfinite(falling[top[-1]])):
        return top
    return top[np.isfinite(falling[top])]
