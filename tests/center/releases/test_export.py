from itertools import pairwise

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from center.releases.export import FEWEST_CANDIDATES, export
from center.releases.graph import pack_int4
from protocol.content import BUCKETS, mean_vectors, token_table
from protocol.models import weights as model_weights
from protocol.models.sasrec import SasRec
from protocol.models.weights import SequenceConfig, item_vectors

ITEMS, SIZE, LENGTH = 600, 32, 10
LARGE = 66_001
TOKENS = token_table([(f"thing {number} of {number // 7}", f"maker {number % 5}", "ware") for number in range(ITEMS)])
POPULARITY = np.append(0, np.geomspace(500, 1, ITEMS)).round()


def make_weights(items=ITEMS, size=SIZE):
    config = SequenceConfig(items=items, embedding_size=size, history_length=LENGTH)
    rng = np.random.default_rng(4)
    weights = model_weights.initial(config, popularity=POPULARITY[: items + 1], min_support=20, rng=rng)
    # Biases and norms start at zero and one: an exporter that forgot one would not be noticed.
    moved = model_weights.flatten(weights.tensors)
    return weights.moved(moved + rng.normal(0, 0.05, len(moved)).astype(np.float32))


@pytest.fixture(scope="module")
def weights():
    return make_weights()


@pytest.fixture(scope="module")
def exported(weights):
    return export(weights, TOKENS, POPULARITY)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, exported):
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "recommend").mkdir()
    for path, data in exported.files.items():
        (folder / path).write_bytes(data)
    return folder / "recommend"


@pytest.fixture(scope="module")
def served(bundle):
    return session(str(bundle / "model.onnx"))


def session(model):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def ask(graph, *histories, k=10):
    asked = {"history": np.array(histories, np.int64), "k": np.array([k], np.int64)}
    return dict(zip(("state", "items", "scores"), graph.run(["state", "items", "scores"], asked), strict=True))


def reference(weights, *histories):
    """State and scores of the whole catalogue by torch in full precision."""
    model = SasRec(weights, TOKENS).eval()
    rows = torch.tensor(histories)
    with torch.inference_mode():
        state = model(model.vectors(rows), rows == 0)[:, -1].numpy()
    vectors, bias = item_vectors(weights, TOKENS)
    scores = state @ vectors.T + bias
    scores[:, 0] = -np.inf
    return state, scores


def histories(count, length=LENGTH):
    return np.random.default_rng(8).integers(1, ITEMS + 1, (count, length)).tolist()


def test_full_precision_graph_is_the_trained_network(weights, exported):
    asked = histories(20)
    answer = ask(session(exported.fp32), *asked)
    state, scores = reference(weights, *asked)
    assert answer["state"] == pytest.approx(state, abs=1e-4)
    best = np.argsort(-scores, axis=1)[:, :10]
    assert (answer["items"] == best).mean() > 0.99
    assert answer["scores"] == pytest.approx(np.take_along_axis(scores, best, 1), abs=1e-3)


def test_served_graph_ranks_as_the_trained_network(weights, served):
    asked = histories(100)
    answer = ask(served, *asked)
    _, scores = reference(weights, *asked)
    best = np.argsort(-scores, axis=1)[:, :10]
    overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(answer["items"].tolist(), best.tolist(), strict=True)])
    assert overlap > 0.98
    assert answer["scores"] == pytest.approx(np.take_along_axis(scores, answer["items"], 1), rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("length", [1, 2, LENGTH - 1, LENGTH])
def test_any_length_of_history_is_answered_like_the_padded_one(served, length):
    (history,) = histories(1, length)
    trimmed, padded = ask(served, history), ask(served, [0] * (LENGTH - length) + history)
    assert trimmed["state"] == pytest.approx(padded["state"], abs=1e-4)
    assert trimmed["items"].tolist() == padded["items"].tolist()


def test_users_of_one_batch_do_not_mix(served):
    one, other = histories(2)
    together = ask(served, one, other)
    assert together["state"][1:] == pytest.approx(ask(served, other)["state"], abs=1e-4)


@pytest.mark.parametrize("k", [1, 10, FEWEST_CANDIDATES, 200, ITEMS])
def test_as_many_different_items_as_asked_for_best_first(served, k):
    answer = ask(served, *histories(3), k=k)
    assert answer["items"].shape == (3, k)
    assert answer["items"].min() >= 1  # row 0 is padding and no answer
    for items, scores in zip(answer["items"], answer["scores"], strict=True):
        assert len(set(items.tolist())) == k
        assert all(better >= worse for better, worse in pairwise(scores))


def test_the_edge_can_score_any_item_from_the_mapped_table(bundle, served):
    # Similar items and the fusion read the table directly, so it has to mean what the graph means.
    vectors = np.memmap(bundle / "item_vectors.bin", "<f2", mode="r").reshape(ITEMS + 1, SIZE)
    bias = np.fromfile(bundle / "item_bias.bin", "<f4")
    answer = ask(served, *histories(4))
    for state, items, scores in zip(answer["state"], answer["items"], answer["scores"], strict=True):
        assert vectors[items].astype(np.float32) @ state + bias[items] == pytest.approx(scores, rel=1e-4, abs=1e-4)
    assert not vectors[0].any()
    assert np.fromfile(bundle / "popularity.bin", "<f4").tolist() == POPULARITY.tolist()


def test_an_edge_embeds_an_item_of_its_own_as_the_center_would(bundle, weights):
    # What has no id embedding is its words alone; the same words have to be the same vector on both sides.
    words = np.fromfile(bundle / "tokens.bin", "<f2").reshape(BUCKETS + 1, SIZE)
    vectors = np.fromfile(bundle / "item_vectors.bin", "<f2").reshape(ITEMS + 1, SIZE)
    wordy = np.setdiff1d(np.arange(1, ITEMS + 1), weights.id_rows)
    assert wordy.size > 100
    assert np.array_equal(mean_vectors(words.astype(np.float32), TOKENS).astype("<f2")[wordy], vectors[wordy])
    exact, _ = item_vectors(weights, TOKENS)
    assert vectors[wordy].astype(np.float32) == pytest.approx(exact[wordy], abs=1e-3)


def test_an_item_that_the_catalogue_lacks_is_read_like_one_that_it_has(served, bundle):
    vectors = np.fromfile(bundle / "item_vectors.bin", "<f2").reshape(ITEMS + 1, SIZE)
    known, strange = np.array(histories(3)), np.array(histories(3))
    known[0, :4] = 0  # a shorter history among longer ones
    strange[:] = known
    strangers = np.zeros((*known.shape, SIZE), np.float32)
    for user, step in ((0, 6), (1, 0), (2, LENGTH - 1)):
        strangers[user, step] = vectors[known[user, step]]
        strange[user, step] = -(ITEMS + 1)
    k = np.array([10])
    expected = ask(served, *known.tolist())
    state, items = served.run(["state", "items"], {"history": strange, "k": k, "strangers": strangers})
    assert state == pytest.approx(expected["state"], abs=1e-5)
    assert items.tolist() == expected["items"].tolist()
    unread, _ = served.run(["state", "items"], {"history": strange, "k": k})
    assert np.abs(unread - expected["state"]).max() > 0.01


def test_an_edge_that_knows_of_no_strangers_asks_as_before(served):
    assert {put.name for put in served.get_inputs()} == {"history", "k"}


@pytest.mark.parametrize("k", [10, 500])
def test_the_best_of_a_large_catalogue_are_the_best_of_all(large, k):
    # Large ones are searched by blocks, and there are fewer blocks than candidates at k = 500.
    graph, bias, vectors = large
    asked = np.random.default_rng(8).integers(1, LARGE + 1, (4, LENGTH))
    answer = ask(graph, *asked.tolist(), k=k)
    scores = answer["state"] @ vectors.T + bias
    scores[:, 0] = -np.inf
    best = np.argsort(-scores, axis=1)[:, :k]
    shares = [len(set(a) & set(b)) / k for a, b in zip(answer["items"].tolist(), best.tolist(), strict=True)]
    assert min(shares) > (0.95 if k > 10 else 0.99)
    assert answer["items"].min() > 0
    assert answer["items"].max() <= LARGE


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    config = SequenceConfig(items=LARGE, embedding_size=16, history_length=LENGTH)
    rng = np.random.default_rng(5)
    popularity = np.append(0, np.geomspace(500, 1, LARGE))
    weights = model_weights.initial(config, popularity=popularity, min_support=1, rng=rng)
    folder = tmp_path_factory.mktemp("large")
    (folder / "recommend").mkdir()
    for path, data in export(weights, np.zeros((LARGE + 1, 1), np.int32), popularity).files.items():
        (folder / path).write_bytes(data)
    place = folder / "recommend"
    vectors = np.fromfile(place / "item_vectors.bin", "<f2").reshape(LARGE + 1, 16).astype(np.float32)
    return session(str(place / "model.onnx")), np.fromfile(place / "item_bias.bin", "<f4"), vectors


def test_the_same_weights_give_the_same_bytes(weights, exported):
    # Blocks that two releases share travel once; a graph in random order would share none.
    assert export(weights, TOKENS, POPULARITY).files == exported.files


def test_the_large_table_lies_beside_the_graph(exported):
    assert len(exported.files["recommend/item_vectors.bin"]) == 2 * (ITEMS + 1) * SIZE
    graph = onnx.load_from_string(exported.files["recommend/model.onnx"]).graph
    (table,) = [tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert list(table.dims) == [ITEMS + 1, SIZE]
    assert exported.served_bytes == sum(len(data) for data in exported.files.values())


def test_a_shop_with_fewer_items_than_candidates_is_answered(tmp_path):
    few = export(make_weights(items=12), TOKENS[:13], POPULARITY[:13])
    (tmp_path / "recommend").mkdir()
    for path, data in few.files.items():
        (tmp_path / path).write_bytes(data)
    answer = ask(session(str(tmp_path / "recommend" / "model.onnx")), [1, 2], k=12)
    assert sorted(answer["items"][0].tolist()) == list(range(1, 13))


@pytest.mark.parametrize("size", [16, 24, 64])
def test_int4_is_off_by_half_a_step_at_most(size):
    table = np.random.default_rng(0).normal(size=(50, size)).astype(np.float32)
    packed, scales = pack_int4(table)
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(50, -1).astype(np.int32) - 8
    assert np.abs(codes[:, :size] * scales[:, None] - table).max(axis=1) == pytest.approx(scales / 2, rel=0.5)
    assert np.all(np.abs(codes[:, :size] * scales[:, None] - table) <= scales[:, None] / 2 + 1e-6)
    assert not codes[:, size:].any()


def test_int4_of_nothing_is_nothing():
    packed, scales = pack_int4(np.zeros((2, 16), np.float32))
    assert np.all(packed == 0x88)
    assert np.isfinite(scales).all()
