"""Weights -> the files an edge serves from: one ONNX graph, and the tables beside it (SPEC 9.6).

The graph is written node by node, so that the same weights give the same bytes. It reads a history, scans the whole
catalogue in 4-bit integers, and ranks the best candidates again in the precision of the vectors, which lie in a file of
float16 beside the graph and are mapped, not read. Only the last position of the last block is computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from protocol.models.weights import Weights, item_vectors

SUBMODEL = "recommend"
FEWEST_CANDIDATES = 40
_MORE_CANDIDATES = 24
_OPSET = 18
_CONTRIB = "com.microsoft"
_EPSILON = 1e-5
_NEVER = np.float32(-1e30)
_VECTORS_FILE = "item_vectors.bin"
_IR_VERSION = 9


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

    Args:
        tokens: int32[n + 1, t] of the shared catalogue.
        popularity: float64[n + 1], federation-wide counts.
    """
    vectors, bias = item_vectors(weights, tokens)
    halves = vectors.astype("<f2")
    graph = _Graph(weights, halves.astype(np.float32), bias)
    files = {
        f"{SUBMODEL}/model.onnx": graph.quantized(),
        f"{SUBMODEL}/{_VECTORS_FILE}": halves.tobytes(),
        f"{SUBMODEL}/item_bias.bin": bias.astype("<f4").tobytes(),
        f"{SUBMODEL}/popularity.bin": popularity.astype("<f4").tobytes(),
    }
    return Exported(files=files, fp32=_Graph(weights, vectors, bias).full())


class _Graph:
    """Writes nodes in order; every value has a name."""

    def __init__(self, weights: Weights, vectors: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        self._config = weights.config
        self._tensors = weights.tensors
        self._vectors = vectors
        self._bias = bias
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}
        self._count = 0

    def quantized(self) -> bytes:
        """Vectors in a float16 file beside it, the scan in 4-bit integers, candidates ranked again."""
        self._add_external_vectors()
        state = self._encode(lambda rows: self._cast(self._op("Gather", ["vectors", rows], axis=0), TensorProto.FLOAT))
        rough = self._op("Add", [self._scan(state), self._constant(self._searchable_bias())])
        asked = self._op("Add", ["k", self._ints(_MORE_CANDIDATES)])
        wanted = self._op("Max", [asked, self._ints(FEWEST_CANDIDATES)])
        count = self._op("Min", [wanted, self._ints(self._config.items)])
        _, candidates = self._top(rough, count)
        exact = self._rescore(state, candidates)
        scores, order = self._top(exact, "k", name="scores")
        self._nodes.append(helper.make_node("GatherElements", [candidates, order], ["items"], axis=1))
        return self._model({"state": state, "scores": scores})

    def full(self) -> bytes:
        """Everything in float32, in one file."""
        table = self._constant(self._vectors)
        state = self._encode(lambda rows: self._op("Gather", [table, rows], axis=0))
        products = self._op("MatMul", [state, self._op("Transpose", [table], perm=[1, 0])])
        exact = self._op("Add", [products, self._constant(self._searchable_bias())])
        scores, items = self._top(exact, "k", name="scores")
        self._nodes.append(helper.make_node("Identity", [items], ["items"]))
        return self._model({"state": state, "scores": scores})

    def _searchable_bias(self) -> NDArray[np.float32]:
        """Row 0 is no item and never found."""
        bias = self._bias.copy()
        bias[0] = _NEVER
        return bias

    def _encode(self, gather: Any) -> str:
        """float32[batch, d], the state after the last position."""
        inputs = gather("history")
        length = self._op("Shape", ["history"], start=1, end=2)
        start = self._op("Sub", [self._ints(self._config.history_length), length])
        positions = self._op(
            "Slice",
            [self._parameter("position"), start, self._ints(self._config.history_length), self._ints(0)],
        )
        x = self._op("Add", [inputs, positions])
        blocked = self._blocked(length)
        last = self._config.layers - 1
        for layer in range(self._config.layers):
            x = self._block(x, blocked, layer, only_last=layer == last)
        normed = self._norm(x, "norm")
        return self._op("Squeeze", [normed, self._ints(1)])

    def _blocked(self, length: str) -> str:
        """float32[batch, 1, time, time]: 0 where a position may look, a very low number where not."""
        padding = self._op("Equal", ["history", self._constant(np.zeros(1, np.int64))])
        padded = self._op("Unsqueeze", [padding, self._constant(np.array([1, 2], np.int64))])
        shape = self._op("Concat", [length, length], axis=0)
        ones = self._op("ConstantOfShape", [shape], value=helper.make_tensor("one", TensorProto.INT64, [1], [1]))
        later = self._op("Trilu", [ones, self._constant(np.array(1, np.int64))], upper=1)
        future = self._cast(later, TensorProto.BOOL)
        itself = self._cast(self._op("EyeLike", [ones], dtype=TensorProto.INT64), TensorProto.BOOL)
        other = self._op("And", [padded, self._op("Not", [itself])])
        forbidden = self._op("Or", [other, future])
        low, none = self._constant(_NEVER.reshape(1)), self._constant(np.zeros(1, np.float32))
        return self._op("Where", [forbidden, low, none])

    def _block(self, x: str, blocked: str, layer: int, *, only_last: bool) -> str:
        d, heads = self._config.embedding_size, self._config.heads
        prefix = f"blocks.{layer}"
        normed = self._norm(x, f"{prefix}.norm1")
        weight, bias = self._tensors[f"{prefix}.qkv.weight"], self._tensors[f"{prefix}.qkv.bias"]
        asking, asked = normed, x
        if only_last:
            asking, asked = self._last(normed), self._last(x)
            blocked = self._op("Slice", [blocked, *self._final_step(axis=2)])
        scale = np.float32((d // heads) ** -0.5)
        q = self._heads(self._linear(asking, weight[:d] * scale, bias[:d] * scale))
        k = self._heads(self._linear(normed, weight[d : 2 * d], bias[d : 2 * d]), perm=[0, 2, 3, 1])
        v = self._heads(self._linear(normed, weight[2 * d :], bias[2 * d :]))
        looks = self._op("Softmax", [self._op("Add", [self._op("MatMul", [q, k]), blocked])], axis=-1)
        mixed = self._op("Transpose", [self._op("MatMul", [looks, v])], perm=[0, 2, 1, 3])
        joined = self._op("Reshape", [mixed, self._constant(np.array([0, 0, d], np.int64))])
        x = self._op("Add", [asked, self._layer(joined, f"{prefix}.out")])
        inner = self._op("Relu", [self._layer(self._norm(x, f"{prefix}.norm2"), f"{prefix}.up")])
        return self._op("Add", [x, self._layer(inner, f"{prefix}.down")])

    def _scan(self, state: str) -> str:
        """float32[batch, n + 1], rough scores: int4 blocks of the width of a vector, one scale each."""
        packed, scales = pack_int4(self._vectors)
        rows = len(self._vectors)
        return self._op(
            "MatMulNBits",
            [state, self._constant(packed), self._constant(scales)],
            domain=_CONTRIB,
            K=packed.shape[2] * 2 * packed.shape[1],
            N=rows,
            bits=4,
            block_size=packed.shape[2] * 2,
            accuracy_level=4,  # multiplies in int8: the other levels unpack to float first and are no faster than fp32
        )

    def _rescore(self, state: str, candidates: str) -> str:
        """float32[batch, candidates], h . v + b in the precision of the vectors."""
        found = self._cast(self._op("Gather", ["vectors", candidates], axis=0), TensorProto.FLOAT)
        column = self._op("Unsqueeze", [state, self._ints(2)])
        products = self._op("Squeeze", [self._op("MatMul", [found, column]), self._ints(2)])
        return self._op("Add", [products, self._op("Gather", [self._constant(self._searchable_bias()), candidates])])

    def _top(self, scores: str, count: str, *, name: str = "") -> tuple[str, str]:
        values, places = name or self._fresh("TopK"), self._fresh("TopK")
        self._nodes.append(helper.make_node("TopK", [scores, count], [values, places], axis=1))
        return values, places

    def _heads(self, x: str, *, perm: list[int] | None = None) -> str:
        d, heads = self._config.embedding_size, self._config.heads
        split = self._op("Reshape", [x, self._constant(np.array([0, 0, heads, d // heads], np.int64))])
        return self._op("Transpose", [split], perm=perm or [0, 2, 1, 3])

    def _last(self, x: str) -> str:
        return self._op("Slice", [x, *self._final_step(axis=1)])

    def _final_step(self, *, axis: int) -> list[str]:
        return [self._ints(-1), self._ints(np.iinfo(np.int64).max), self._ints(axis)]

    def _norm(self, x: str, name: str) -> str:
        scale, shift = self._parameter(f"{name}.weight"), self._parameter(f"{name}.bias")
        return self._op("LayerNormalization", [x, scale, shift], axis=-1, epsilon=_EPSILON)

    def _layer(self, x: str, name: str) -> str:
        return self._linear(x, self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"])

    def _linear(self, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        product = self._op("MatMul", [x, self._constant(np.ascontiguousarray(weight.T))])
        return self._op("Add", [product, self._constant(bias)])

    def _parameter(self, name: str) -> str:
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(self._tensors[name]), name)
        return name

    def _ints(self, value: int) -> str:
        return self._constant(np.array([value], np.int64))

    def _constant(self, value: NDArray[Any]) -> str:
        name = self._fresh("constant")
        self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def _cast(self, x: str, to: int) -> str:
        return self._op("Cast", [x], to=to)

    def _op(self, kind: str, inputs: list[str], *, domain: str = "", **attributes: Any) -> str:
        output = self._fresh(kind)
        self._nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output

    def _fresh(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"

    def _add_external_vectors(self) -> None:
        tensor = TensorProto(name="vectors", data_type=TensorProto.FLOAT16, dims=self._vectors.shape)
        tensor.data_location = TensorProto.EXTERNAL
        size = 2 * self._vectors.size
        for key, value in (("location", _VECTORS_FILE), ("offset", "0"), ("length", str(size))):
            tensor.external_data.add(key=key, value=value)
        self._initializers["vectors"] = tensor

    def _model(self, aliases: Mapping[str, str]) -> bytes:
        for name, value in aliases.items():
            if name != value:
                self._nodes.append(helper.make_node("Identity", [value], [name]))
        d = self._config.embedding_size
        graph = helper.make_graph(
            self._nodes,
            "sasrec",
            [
                helper.make_tensor_value_info("history", TensorProto.INT64, ["batch", "time"]),
                helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
            ],
            [
                helper.make_tensor_value_info("state", TensorProto.FLOAT, ["batch", d]),
                helper.make_tensor_value_info("items", TensorProto.INT64, ["batch", "k"]),
                helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", "k"]),
            ],
            initializer=list(self._initializers.values()),
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, producer_name="hanse", ir_version=_IR_VERSION)
        data: bytes = model.SerializeToString(deterministic=True)
        return data


def pack_int4(table: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Each row in one block of unsigned 4-bit numbers around 8, two a byte, the even one low; one scale a row.

    Args:
        table: float32[rows, d].

    Returns:
        uint8[rows, 1, width / 2] and float32[rows], where width is d filled up to a power of two of at least 16.
    """
    rows, size = table.shape
    width = max(16, 1 << (size - 1).bit_length())
    largest = np.abs(table).max(axis=1)
    scales = np.where(largest > 0, largest / 7, 1).astype(np.float32)
    codes = np.full((rows, width), 8, np.uint8)
    codes[:, :size] = np.clip(np.rint(table / scales[:, None]), -8, 7).astype(np.int8) + 8
    packed = codes[:, 0::2] | (codes[:, 1::2] << 4)
    return packed.reshape(rows, 1, width // 2), scales
