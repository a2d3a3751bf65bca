"""Real graphs that misbehave, and a real exported one: what the tests of batches and deadlines run."""

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, checker, helper

from center.releases.export import export
from edge.serving.ranker import Ranker
from protocol.content import token_table
from protocol.models import weights as model_weights
from protocol.models.weights import SequenceConfig

ITEMS, SIZE, LENGTH = 300, 16, 24


def real_ranker(folder, *, items=ITEMS, length=LENGTH):
    """A sequence model of weights drawn at random, exported as a center does."""
    rng = np.random.default_rng(4)
    popularity = np.append(0, np.geomspace(500, 1, items)).round()
    config = SequenceConfig(items=items, embedding_size=SIZE, history_length=length)
    weights = model_weights.initial(config, popularity=popularity, min_support=20, rng=rng)
    flat = model_weights.flatten(weights.tensors)
    weights = weights.moved(flat + rng.normal(0, 0.2, len(flat)).astype(np.float32))
    tokens = token_table([(f"thing {number}", f"maker {number % 5}", "ware") for number in range(items)])
    for path, data in export(weights, tokens, popularity).files.items():
        (folder / path).parent.mkdir(exist_ok=True, parents=True)
        (folder / path).write_bytes(data)
    return Ranker.load(folder / "recommend", items=items, embedding_size=SIZE, history_length=length)


def moody_ranker(items=12):
    """A model that ranks by number; item 11 makes it fail, and item 12 makes it compute for years."""
    ints = {"one": [1], "slow": [items], "bad": [items - 1], "forever": [10**15], "wrong": [10**6], "size": [2]}
    constants = [helper.make_tensor(name, TensorProto.INT64, [1], value) for name, value in ints.items()]
    constants += [
        helper.make_tensor("truth", TensorProto.BOOL, [], [True]),
        helper.make_tensor("first", TensorProto.INT64, [], [0]),
        helper.make_tensor("table", TensorProto.FLOAT, [items + 1, 2], np.arange(2.0 * items + 2).tolist()),
        helper.make_tensor("row", TensorProto.FLOAT, [1, items + 1], [-1e9, *range(items, 0, -1)]),
    ]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Cos", ["was"], ["is"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("was", TensorProto.FLOAT, ["batch", 2]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("is", TensorProto.FLOAT, ["batch", 2]),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["history"], ["largest"], keepdims=0),
        helper.make_node("Equal", ["largest", "slow"], ["is_slow"]),
        helper.make_node("Where", ["is_slow", "forever", "one"], ["turns"]),
        helper.make_node("Equal", ["largest", "bad"], ["is_bad"]),
        helper.make_node("Where", ["is_bad", "wrong", "first"], ["shift"]),
        helper.make_node("Add", ["history", "shift"], ["rows"]),
        helper.make_node("Gather", ["table", "rows"], ["seen"]),
        helper.make_node("ReduceMean", ["seen", "one"], ["mean"], keepdims=0),
        helper.make_node("Loop", ["turns", "truth", "mean"], ["state"], body=body),
        helper.make_node("ReduceSum", ["state", "one"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["row", "nothing"], ["all"]),
        helper.make_node("TopK", ["all", "k"], ["scores", "items"]),
    ]
    constants.append(helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]))
    graph = helper.make_graph(
        nodes,
        "moody",
        [
            helper.make_tensor_value_info("history", TensorProto.INT64, ["batch", "time"]),
            helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["batch", 2]),
            helper.make_tensor_value_info("items", TensorProto.INT64, ["batch", "found"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", "found"]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Ranker(session, np.zeros((items + 1, 2), np.float16), np.zeros(items + 1, np.float32), history_length=5)
