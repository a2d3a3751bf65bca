"""Weights as they travel: safetensors with a strict set of names, shapes and kinds (SPEC 4.6). No torch in here."""

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from protocol.content import BUCKETS, mean_vectors
from protocol.errors import MalformedMessageError

ID_ROWS = "id_rows"
_CONFIG = "hanse"
_LARGEST_BYTES = 1 << 30
_MOST_ITEMS = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceConfig:
    """The shape of a sequence model.

    Attributes:
        items: length n of the shared catalogue.
        embedding_size: width d of item vectors.
        history_length: newest items that the model looks at.
        layers: transformer blocks.
        heads: attention heads; they divide d.
    """

    items: int
    embedding_size: int = 64
    history_length: int = 50
    layers: int = 2
    heads: int = 2

    def __post_init__(self) -> None:
        sizes = (self.items, self.embedding_size, self.history_length, self.layers, self.heads)
        if any(not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in sizes):
            raise MalformedMessageError("the sizes of a model are positive whole numbers")
        limits = (_MOST_ITEMS, 1024, 2048, 16, 64)
        if any(size > limit for size, limit in zip(sizes, limits, strict=True)) or self.embedding_size % self.heads:
            raise MalformedMessageError("a model of such sizes is not one of ours")

    def shapes(self, id_items: int) -> dict[str, tuple[int, ...]]:
        """Trainable parameters by name.

        Args:
            id_items: how many items have an id embedding of their own.
        """
        d = self.embedding_size
        named: dict[str, tuple[int, ...]] = {
            "id.weight": (id_items, d),
            "id_bias": (id_items,),
            "token.weight": (BUCKETS, d),
            "position": (self.history_length, d),
            "repeat": (1,),
            "norm.weight": (d,),
            "norm.bias": (d,),
        }
        for layer in range(self.layers):
            block: dict[str, tuple[int, ...]] = {
                "norm1.weight": (d,),
                "norm1.bias": (d,),
                "qkv.weight": (3 * d, d),
                "qkv.bias": (3 * d,),
                "out.weight": (d, d),
                "out.bias": (d,),
                "norm2.weight": (d,),
                "norm2.bias": (d,),
                "up.weight": (4 * d, d),
                "up.bias": (4 * d,),
                "down.weight": (d, 4 * d),
                "down.bias": (d,),
            }
            named |= {f"blocks.{layer}.{name}": shape for name, shape in block.items()}
        return named


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """A model's weights.

    Attributes:
        tensors: float32, exactly those of `SequenceConfig.shapes`.
        id_rows: int32[m], the catalogue rows that have an id embedding, rising.
    """

    config: SequenceConfig
    tensors: Mapping[str, NDArray[np.float32]]
    id_rows: NDArray[np.int32]

    def to_bytes(self) -> bytes:
        config = json.dumps(asdict(self.config), sort_keys=True, separators=(",", ":"))
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in sorted(self.tensors.items())}
        return save_tensors({**tensors, ID_ROWS: self.id_rows}, metadata={_CONFIG: config})

    def moved(self, vector: NDArray[np.float32]) -> Self:
        """The same model with other values, given as `flatten` orders them."""
        return type(self)(config=self.config, tensors=unflatten(vector, like=self.tensors), id_rows=self.id_rows)


def load(data: bytes) -> Weights:
    """Decode, refusing anything but a whole, finite model of ours.

    Raises:
        MalformedMessageError: no safetensors, another set of tensors, another shape or kind, or a value that is not
            finite.
    """
    config = _config(data)
    try:
        tensors = load_tensors(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise MalformedMessageError(f"these weights cannot be read: {error}") from error
    rows = tensors.pop(ID_ROWS, None)
    if rows is None or rows.dtype != np.int32 or rows.ndim != 1:
        raise MalformedMessageError("these weights do not say which items have an id embedding")
    if len(rows) and (rows[0] < 1 or rows[-1] > config.items or np.any(np.diff(rows) <= 0)):
        raise MalformedMessageError("the rows with an id embedding do not rise from 1 to the length of the catalogue")
    expected = config.shapes(len(rows))
    if tensors.keys() != expected.keys():
        raise MalformedMessageError("these weights have other parameters than the model")
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or tensor.shape != expected[name]:
            raise MalformedMessageError(f"{name} is {tensor.dtype}{list(tensor.shape)}, not {list(expected[name])}")
        if not np.isfinite(tensor).all():
            raise MalformedMessageError(f"{name} has a value that is not finite")
    return Weights(config=config, tensors=tensors, id_rows=rows)


def _config(data: bytes) -> SequenceConfig:
    """The header of safetensors is eight bytes of length and JSON."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length]) if length <= len(data) <= _LARGEST_BYTES else {}
        values: Any = json.loads(header["__metadata__"][_CONFIG])
        return SequenceConfig(**values)
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise MalformedMessageError("these are no weights of ours") from error


def flatten(tensors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """All values in one vector, the tensors in the order of their names."""
    return np.concatenate([np.ravel(tensors[name]) for name in sorted(tensors)])


def unflatten(
    vector: NDArray[np.float32], *, like: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """Undo `flatten`.

    Raises:
        ValueError: the vector has another length.
    """
    names = sorted(like)
    sizes = [like[name].size for name in names]
    if len(vector) != sum(sizes):
        raise ValueError(f"{len(vector)} values for {sum(sizes)} parameters")
    parts = np.split(vector, np.cumsum(sizes)[:-1])
    return {name: part.reshape(like[name].shape) for name, part in zip(names, parts, strict=True)}


def parameters(data: bytes) -> int:
    """Length d of the flattened weights."""
    return sum(tensor.size for tensor in load(data).tensors.values())


def initial(
    config: SequenceConfig, *, popularity: NDArray[np.float64], min_support: int, rng: np.random.Generator
) -> Weights:
    """First weights: small random ones, and what the exact sum of counts already says.

    Args:
        popularity: float64[n + 1], federation-wide counts by row.
        min_support: an item has an id embedding from so many events on.
    """
    rows = np.flatnonzero(popularity[1:] >= min_support).astype(np.int32) + np.int32(1)
    scale = 1 / np.sqrt(config.embedding_size)
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, shape in config.shapes(len(rows)).items():
        if name == "id_bias":
            value = np.log(popularity[rows] / min_support)
        elif name == "repeat":
            value = np.ones(shape)
        elif "norm" in name:
            value = np.full(shape, float(name.endswith("weight")))
        elif name.endswith("bias"):
            value = np.zeros(shape)
        elif name.startswith("position"):
            value = 0.1 * scale * rng.standard_normal(shape)
        else:
            value = 0.5 * scale * rng.standard_normal(shape)
        tensors[name] = value.astype(np.float32)
    return Weights(config=config, tensors=tensors, id_rows=rows)


def item_vectors(weights: Weights, tokens: NDArray[np.int32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """float32[n + 1, d] vectors and float32[n + 1] biases of the whole catalogue; row 0 is zero.

    Args:
        tokens: int32[n + 1, t] from `content.token_table`.
    """
    nothing = np.zeros((1, weights.config.embedding_size), np.float32)
    vectors = mean_vectors(np.concatenate([nothing, weights.tensors["token.weight"]]), tokens)
    vectors[weights.id_rows] += weights.tensors["id.weight"]
    bias = np.zeros(len(tokens), np.float32)
    bias[weights.id_rows] = weights.tensors["id_bias"]
    return vectors, bias
