"""A graph reads the file of vectors beside it and no other, however it asks; crafted with the real ONNX library."""

import os
import subprocess
import sys

import onnx
import pytest
from onnx import TensorProto, helper

from edge.serving.graph import ROADS, check_external, external_files
from edge.serving.release import Release
from protocol.errors import UntrustedReleaseError

FILE, SIZE = "item_vectors.bin", 16
MESSAGES = [getattr(onnx, name).DESCRIPTOR for name in ROADS]


def outside(location, *, offset="0", length=str(SIZE), name="w"):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=value)
    return tensor


def model_of(*, initializers=(), nodes=(), functions=(), sparse=()):
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    nodes = [*nodes, helper.make_node("Identity", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "g", shape[:1], shape[1:], list(initializers), sparse_initializer=list(sparse))
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=list(functions))


def check(model):
    check_external(model.SerializeToString(), file=FILE, size=SIZE)


def reaches_a_tensor(message, seen=()):
    if message.name == "TensorProto":
        return True
    inner = [field.message_type for field in message.fields if field.message_type and message.name not in seen]
    return any(reaches_a_tensor(one, (*seen, message.name)) for one in inner)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_every_road_to_a_tensor_is_walked(message):
    """A newer ONNX that keeps tensors in a new field must not be overlooked."""
    roads = {
        field.number: field.message_type.name
        for field in message.fields
        if field.message_type and reaches_a_tensor(field.message_type)
    }
    assert roads == ROADS[message.name]


def test_the_vectors_beside_the_graph_may_be_asked_for():
    check(model_of(initializers=[outside(FILE)]))
    check(model_of())


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "/etc/passwd",
        "x/../../secret.bin",
        "item_bias.bin",
        "./item_vectors.bin",
        "",
        "ITEM_VECTORS.BIN",
    ],
)
def test_no_other_file_may_be_asked_for(location):
    with pytest.raises(UntrustedReleaseError, match="the graph asks for the file"):
        check(model_of(initializers=[outside(location)]))


@pytest.mark.parametrize(
    "part", [{"offset": "4"}, {"length": "8"}, {"length": "-1"}, {"offset": "99999999999999999999"}]
)
def test_no_part_of_the_vectors_may_be_asked_for(part):
    with pytest.raises(UntrustedReleaseError, match="not the whole"):
        check(model_of(initializers=[outside(FILE, **part)]))


def test_the_vectors_are_asked_for_once():
    with pytest.raises(UntrustedReleaseError, match="2 tensors"):
        check(model_of(initializers=[outside(FILE), outside(FILE, name="v")]))


def hidden_in_a_constant():
    return model_of(nodes=[helper.make_node("Constant", [], ["c"], value=outside("../secret.bin"))])


def hidden_in_a_branch():
    branch = helper.make_graph([], "b", [], [], [outside("../secret.bin")])
    return model_of(nodes=[helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch)])


def hidden_in_a_function():
    node = helper.make_node("Constant", [], ["c"], value=outside("../secret.bin"))
    return model_of(functions=[helper.make_function("own", "f", [], ["c"], [node], [helper.make_opsetid("", 17)])])


def hidden_in_a_sparse_tensor():
    places = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    return model_of(sparse=[helper.make_sparse_tensor(outside("../secret.bin"), places, [4])])


def hidden_in_training():
    model = model_of()
    model.training_info.add().initialization.CopyFrom(helper.make_graph([], "t", [], [], [outside("../secret.bin")]))
    return model


def hidden_without_a_location_flag():
    tensor = outside("../secret.bin")
    tensor.data_location = TensorProto.DEFAULT
    return model_of(initializers=[tensor])


@pytest.mark.parametrize(
    "craft",
    [
        hidden_in_a_constant,
        hidden_in_a_branch,
        hidden_in_a_function,
        hidden_in_a_sparse_tensor,
        hidden_in_training,
        hidden_without_a_location_flag,
    ],
)
def test_a_hidden_request_is_found(craft):
    with pytest.raises(UntrustedReleaseError, match=r"secret\.bin"):
        check(craft())


def test_a_second_location_does_not_overrule_the_first():
    tensor = outside(FILE)
    tensor.external_data.add(key="location", value="../secret.bin")
    with pytest.raises(UntrustedReleaseError):
        check(model_of(initializers=[tensor]))


def test_a_second_graph_in_the_same_file_is_read_as_well():
    """Protobuf merges a message that stands twice: the reader of ONNX Runtime would see both."""
    twice = model_of().SerializeToString() + model_of(initializers=[outside("../secret.bin")]).SerializeToString()
    with pytest.raises(UntrustedReleaseError, match=r"secret\.bin"):
        check_external(twice, file=FILE, size=SIZE)


def test_nesting_without_end_is_refused():
    graph = helper.make_graph([], "g", [], [], [])
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("If", ["x"], ["z"], then_branch=graph)], "g", [], [], [])
    data = helper.make_model(graph).SerializeToString()
    with pytest.raises(UntrustedReleaseError, match="nested too deeply"):
        external_files(data)


@pytest.mark.parametrize("data", [b"\xff" * 12, b"\x3a\xff\x01", b"\x3b", b"\x3a", b"\x01\x00"])
def test_noise_is_refused(data):
    with pytest.raises(UntrustedReleaseError, match="not an ONNX file"):
        external_files(data)


def test_every_cut_of_a_model_is_read_or_refused(rng):
    data = model_of(initializers=[outside(FILE)]).SerializeToString()
    for end in range(len(data)):
        try:
            external_files(data[:end])
        except UntrustedReleaseError:
            continue
    for _ in range(500):
        noisy = bytearray(data)
        noisy[rng.integers(len(data))] = rng.integers(256)
        try:
            external_files(bytes(noisy))
        except UntrustedReleaseError:
            continue


def test_a_bundle_whose_graph_reads_elsewhere_does_not_load(make_bundle, catalogue, tmp_path):
    directory = make_bundle()
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    path = directory / "recommend" / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b"item_vectors.bin", b"../../../sec.bin"))
    with pytest.raises(UntrustedReleaseError, match=r"asks for the file .*sec\.bin"):
        Release.load(directory, catalogue, version=1, sha256="")


def test_a_graph_that_is_too_large_is_refused_unread(make_bundle, catalogue):
    directory = make_bundle()
    with (directory / "recommend" / "model.onnx").open("r+b") as file:
        os.truncate(file.fileno(), (1 << 30) + 1)  # sparse: it takes no room
    with pytest.raises(UntrustedReleaseError, match="too large for a graph"):
        Release.load(directory, catalogue, version=1, sha256="")


def test_a_file_in_onnx_runtimes_own_format_is_no_graph(make_bundle, catalogue):
    """Its reader has other doors; ours is told to read ONNX whatever the bytes look like."""
    directory = make_bundle()
    (directory / "recommend" / "model.onnx").write_bytes(b"\x10\x00\x00\x00ORTM" + bytes(64))
    with pytest.raises(UntrustedReleaseError):
        Release.load(directory, catalogue, version=1, sha256="")


def test_the_serving_process_needs_no_onnx_library():
    code = "import sys, edge.serving.graph, edge.serving.ranker; print('onnx' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
