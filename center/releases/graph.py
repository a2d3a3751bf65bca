"""The sequence model as an ONNX graph, written node by node, so that the same weights give the same bytes (SPEC 9.14).

It reads a history, scans the whole catalogue in 4-bit integers, and ranks the best candidates again in the precision of
the vectors, which lie in a file of float16 beside the graph and are mapped, not read. Only the last position of the
last block is computed.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from protocol.models.weights import Weights

FEWEST_CANDIDATES: Final = 40
VECTORS_FILE: Final = "item_vectors.bin"
_MORE_CANDIDATES = 24
_OPSET = 18
_CONTRIB = "com.microsoft"
_EPSILON = 1e-5
_NEVER = np.float32(-1e30)
_IR_VERSION = 9
_ROWS_AT_A_TIME = 65_536
_LARGE = 65_536
"""From so many rows on, candidates are looked for in the best blocks only: one pass is faster than a heap."""
_BLOCK = 256


class Graph:
    """Writes nodes in order; every value has a name."""

    def __init__(
        self, weights: Weights, vectors: NDArray[np.float16] | NDArray[np.float32], bias: NDArray[np.float32]
    ) -> None:
        """Write a graph of these.

        Args:
            vectors: float16[n + 1, d] for `quantized`, float32[n + 1, d] for `full`.
            bias: float32[n + 1].
        """
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
        self._add_strangers()
        state = self._encode(
            lambda rows: self._cast(self._op("Gather", ["vectors", rows], axis=0), TensorProto.FLOAT), "strangers"
        )
        asked = self._op("Add", ["k", self._ints(_MORE_CANDIDATES)])
        wanted = self._op("Max", [asked, self._ints(FEWEST_CANDIDATES)])
        candidates = self._scan(state, self._op("Min", [wanted, self._ints(self._config.items)]))
        exact = self._rescore(state, candidates)
        scores, order = self._top(exact, "k", name="scores")
        self._nodes.append(helper.make_node("GatherElements", [candidates, order], ["items"], axis=1))
        return self._model({"state": state, "scores": scores})

    def full(self) -> bytes:
        """Everything in float32, in one file."""
        table = self._constant(self._vectors)
        state = self._encode(lambda rows: self._op("Gather", [table, rows], axis=0))
        products = self._op("MatMul", [state, self._op("Transpose", [table], perm=[1, 0])])
        exact = self._op("Add", [products, self._searchable_bias(len(self._bias))])
        scores, items = self._top(exact, "k", name="scores")
        self._nodes.append(helper.make_node("Identity", [items], ["items"]))
        return self._model({"state": state, "scores": scores})

    def _searchable_bias(self, rows: int) -> str:
        """float32[rows]; row 0 is no item and never found, and neither are rows after the last."""
        if "bias" not in self._initializers:
            bias = np.full(rows, _NEVER, np.float32)
            bias[1 : len(self._bias)] = self._bias[1:]
            self._initializers["bias"] = numpy_helper.from_array(bias, "bias")
        return "bias"

    def _encode(self, gather: Any, strangers: str | None = None) -> str:
        """float32[batch, d], the state after the last position."""
        inputs = gather("history")
        length = self._op("Shape", ["history"], start=1, end=2)
        start = self._op("Sub", [self._ints(self._config.history_length), length])
        positions = self._op(
            "Slice",
            [self._parameter("position"), start, self._ints(self._config.history_length), self._ints(0)],
        )
        if strangers is not None:  # added here, where without any of them there is no batch yet
            positions = self._op("Add", [positions, strangers])
        x = self._op("Add", [inputs, positions])
        padded = self._padded()
        blocked = self._op("Add", [self._future(length), padded])
        for layer in range(self._config.layers - 1):
            x = self._block(x, blocked, layer)
        x = self._block(x, padded, self._config.layers - 1, only_last=True)
        return self._op("Squeeze", [self._norm(x, "norm"), self._ints(1)])

    def _padded(self) -> str:
        """float32[batch, 1, 1, time]: a very low number where a position is padding, which nobody looks at."""
        padding = self._op("Equal", ["history", self._constant(np.zeros(1, np.int64))])
        low, none = self._constant(_NEVER.reshape(1)), self._constant(np.zeros(1, np.float32))
        return self._op(
            "Unsqueeze", [self._op("Where", [padding, low, none]), self._constant(np.array([1, 2], np.int64))]
        )

    def _future(self, length: str) -> str:
        """float32[time, time]: a very low number where a position would look at a later one.

        Low numbers are finite: a padding that may look at nothing looks at everything, and nobody looks at it.
        """
        longest = self._config.history_length
        later = self._constant(np.triu(np.full((longest, longest), _NEVER, np.float32), 1))
        end = self._op("Concat", [length, length], axis=0)
        return self._op("Slice", [later, self._constant(np.zeros(2, np.int64)), end])

    def _block(self, x: str, blocked: str, layer: int, *, only_last: bool = False) -> str:
        d, heads = self._config.embedding_size, self._config.heads
        prefix = f"blocks.{layer}"
        normed = self._norm(x, f"{prefix}.norm1")
        weight, bias = self._tensors[f"{prefix}.qkv.weight"], self._tensors[f"{prefix}.qkv.bias"]
        asking, asked = normed, x
        if only_last:
            asking, asked = self._last(normed), self._last(x)
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

    def _scan(self, state: str, count: str) -> str:
        """int64[batch, candidates], so many rows with the best rough scores, in any order."""
        rows = len(self._vectors)
        if rows < _LARGE:
            return self._top(self._rough(state, rows), count)[1]
        rows += -rows % _BLOCK
        rough = self._rough(state, rows)
        return self._best_of_blocks(rough, count, blocks=rows // _BLOCK)

    def _rough(self, state: str, rows: int) -> str:
        """float32[batch, rows], rough scores: int4 blocks of the width of a vector, one scale each, and the bias."""
        packed, scales = pack_int4(self._vectors, rows=rows)
        return self._op(
            "MatMulNBits",
            [state, self._constant(packed), self._constant(scales), "", "", self._searchable_bias(rows)],
            domain=_CONTRIB,
            K=packed.shape[2] * 2 * packed.shape[1],
            N=rows,
            bits=4,
            block_size=packed.shape[2] * 2,
            accuracy_level=4,  # multiplies in int8: the other levels unpack to float first and are no faster than fp32
        )

    def _best_of_blocks(self, rough: str, count: str, *, blocks: int) -> str:
        """The same rows as a search through all: the c best lie in the c blocks that have the best maximum."""
        last = self._constant(np.array([2], np.int64))
        table = self._op("Reshape", [rough, self._constant(np.array([-1, blocks, _BLOCK], np.int64))])
        highest = self._op("ReduceMax", [table, last], keepdims=0)
        few = self._op("Min", [count, self._ints(blocks)])
        block = self._top(highest, few)[1]
        chosen = self._op("GatherND", [table, self._op("Unsqueeze", [block, last])], batch_dims=1)
        places = self._top(self._op("Reshape", [chosen, self._constant(np.array([0, -1], np.int64))]), count)[1]
        size = self._constant(np.array([_BLOCK], np.int64))
        which = self._op("Div", [places, size])
        start = self._op("Mul", [self._op("GatherElements", [block, which], axis=1), size])
        return self._op("Add", [start, self._op("Mod", [places, size])])

    def _rescore(self, state: str, candidates: str) -> str:
        """float32[batch, candidates], h . v + b in the precision of the vectors."""
        found = self._cast(self._op("Gather", ["vectors", candidates], axis=0), TensorProto.FLOAT)
        column = self._op("Unsqueeze", [state, self._ints(2)])
        products = self._op("Squeeze", [self._op("MatMul", [found, column]), self._ints(2)])
        return self._op("Add", [products, self._op("Gather", ["bias", candidates])])

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
        for key, value in (("location", VECTORS_FILE), ("offset", "0"), ("length", str(size))):
            tensor.external_data.add(key=key, value=value)
        self._initializers["vectors"] = tensor

    def _add_strangers(self) -> None:
        """An input that has a value when nobody gives one: nothing."""
        nothing = np.zeros((1, 1, 1), np.float32)
        self._initializers["strangers"] = numpy_helper.from_array(nothing, "strangers")

    def _model(self, aliases: Mapping[str, str]) -> bytes:
        for name, value in aliases.items():
            if name != value:
                self._nodes.append(helper.make_node("Identity", [value], [name]))
        d = self._config.embedding_size
        inputs = [
            helper.make_tensor_value_info("history", TensorProto.INT64, ["batch", "time"]),
            helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
        ]
        if "strangers" in self._initializers:
            sizes = ["strange_batch", "strange_time", "strange_size"]
            inputs.append(helper.make_tensor_value_info("strangers", TensorProto.FLOAT, sizes))
        graph = helper.make_graph(
            self._nodes,
            "sasrec",
            inputs,
            [
                helper.make_tensor_value_info("state", TensorProto.FLOAT, ["batch", d]),
                helper.make_tensor_value_info("items", TensorProto.INT64, ["batch", "k"]),
                helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", "k"]),
            ],
            initializer=list(self._initializers.values()),
        )
        self._initializers = {}  # onnx copies at every step: none of the steps is kept
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, producer_name="hanse", ir_version=_IR_VERSION)
        del graph
        data: bytes = model.SerializeToString(deterministic=True)
        return data


def pack_int4(table: NDArray[Any], *, rows: int | None = None) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Each row in one block of unsigned 4-bit numbers around 8, two a byte, the even one low; one scale a row.

    Args:
        table: float[rows, d].
        rows: so many come back, the last ones zero; None: as many as there are.

    Returns:
        uint8[rows, 1, width / 2] and float32[rows], where width is d filled up to a power of two of at least 16.
    """
    length, size = table.shape
    rows = length if rows is None else rows
    width = max(16, 1 << (size - 1).bit_length())
    packed = np.full((rows, width // 2), 0x88, np.uint8)
    scales = np.ones(rows, np.float32)
    for start in range(0, length, _ROWS_AT_A_TIME):
        part = table[start : start + _ROWS_AT_A_TIME].astype(np.float32)
        largest = np.abs(part).max(axis=1)
        scale = np.where(largest > 0, largest / 7, 1).astype(np.float32)
        codes = np.full((len(part), width), 8, np.uint8)
        codes[:, :size] = np.clip(np.rint(part / scale[:, None]), -8, 7).astype(np.int8) + 8
        packed[start : start + len(part)] = codes[:, 0::2] | (codes[:, 1::2] << 4)
        scales[start : start + len(part)] = scale
    return packed.reshape(rows, 1, width // 2), scales
