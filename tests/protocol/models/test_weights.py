import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from protocol.content import token_table
from protocol.errors import MalformedMessageError
from protocol.models import weights as model_weights
from protocol.models.weights import SequenceConfig, Weights, flatten, item_vectors, unflatten

POPULARITY = np.array([0, 50, 3, 20, 0, 19], np.float64)


@pytest.fixture
def weights():
    config = SequenceConfig(items=5, embedding_size=16, history_length=4, layers=1)
    return model_weights.initial(config, popularity=POPULARITY, min_support=20, rng=np.random.default_rng(1))


def changed(weights, **tensors):
    values = {**weights.tensors, "id_rows": weights.id_rows, **tensors}
    header = {"hanse": '{"embedding_size":16,"heads":2,"history_length":4,"items":5,"layers":1}'}
    return save_tensors({name: value for name, value in values.items() if value is not None}, metadata=header)


def test_weights_survive_the_road(weights):
    data = weights.to_bytes()
    again = model_weights.load(data)
    assert again.config == weights.config
    assert again.id_rows.tolist() == [1, 3]
    assert flatten(again.tensors).tobytes() == flatten(weights.tensors).tobytes()
    assert again.to_bytes() == data


def test_the_test_itself_writes_what_would_be_taken(weights):
    assert model_weights.load(changed(weights)).id_rows.tolist() == [1, 3]


@pytest.mark.parametrize(
    "tensors",
    [
        {"repeat": None},
        {"backdoor": np.zeros(1, np.float32)},
        {"repeat": np.zeros(2, np.float32)},
        {"repeat": np.zeros(1, np.float64)},
        {"repeat": np.array([np.nan], np.float32)},
        {"repeat": np.array([np.inf], np.float32)},
        {"id_rows": None},
        {"id_rows": np.array([1, 3], np.int64)},
        {"id_rows": np.array([3, 1], np.int32)},
        {"id_rows": np.array([1, 1], np.int32)},
        {"id_rows": np.array([0, 1], np.int32)},
        {"id_rows": np.array([1, 6], np.int32)},
        {"id_rows": np.array([1], np.int32)},
    ],
    ids=lambda tensors: " ".join(f"{name} {value}" for name, value in tensors.items()),
)
def test_anything_but_a_whole_finite_model_is_refused(weights, tensors):
    with pytest.raises(MalformedMessageError):
        model_weights.load(changed(weights, **tensors))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 100, -1])
def test_a_truncated_download_is_refused(weights, length):
    with pytest.raises(MalformedMessageError):
        model_weights.load(weights.to_bytes()[:length])


@pytest.mark.parametrize("header", ["{}", "[]", '{"items":0}', '{"items":5,"heads":3}', '{"items":"5"}', "x"])
def test_a_header_that_describes_no_model_is_refused(header):
    with pytest.raises(MalformedMessageError):
        model_weights.load(save_tensors({"id_rows": np.zeros(0, np.int32)}, metadata={"hanse": header}))


def test_another_programs_weights_are_refused():
    with pytest.raises(MalformedMessageError):
        model_weights.load(save_tensors({"weight": np.zeros(3, np.float32)}))


def test_a_model_too_large_for_any_shop_is_refused_before_memory_is_taken():
    with pytest.raises(MalformedMessageError):
        SequenceConfig(items=1 << 40)


def test_center_and_edge_agree_on_the_order_of_parameters(weights):
    vector = np.arange(len(flatten(weights.tensors)), dtype=np.float32)
    parts = unflatten(vector, like=weights.tensors)
    assert flatten(parts).tolist() == vector.tolist()
    assert parts["blocks.0.down.bias"].tolist() == vector[:16].tolist()  # the first name in order
    assert parts["token.weight"].ravel()[-1] == vector[-1]


def test_a_vector_of_another_model_is_refused(weights):
    with pytest.raises(ValueError, match="parameters"):
        unflatten(np.zeros(3, np.float32), like=weights.tensors)


def test_announced_length_is_that_of_the_flattened_weights(weights):
    data = weights.to_bytes()
    assert model_weights.parameters(data) == len(flatten(weights.tensors))
    assert model_weights.parameters(data) == sum(
        value.size for name, value in load_tensors(data).items() if name != "id_rows"
    )


def test_only_items_that_the_federation_knows_well_get_an_embedding_of_their_own(weights):
    assert weights.id_rows.tolist() == [1, 3]
    assert weights.tensors["id.weight"].shape == (2, 16)
    assert weights.tensors["id_bias"] == pytest.approx(np.log([50 / 20, 1.0]))


def test_two_centers_with_one_seed_begin_alike(weights):
    again = model_weights.initial(weights.config, popularity=POPULARITY, min_support=20, rng=np.random.default_rng(1))
    assert again.to_bytes() == weights.to_bytes()


def test_a_rare_item_stands_beside_those_of_like_description(weights):
    tokens = token_table(
        [("whole milk", "a", "dairy"), ("nails", "b", "tools"), ("x", "", ""), *[("milk", "a", "dairy")] * 2]
    )
    vectors, bias = item_vectors(weights, tokens)
    assert not vectors[0].any()
    assert vectors[4].tolist() == vectors[5].tolist()
    assert np.linalg.norm(vectors[2] - vectors[4]) > 0.1
    assert bias[[2, 4, 5]].tolist() == [0, 0, 0]
    own = weights.tensors["id.weight"][0]
    words = weights.tensors["token.weight"][tokens[1][tokens[1] > 0] - 1].mean(0)
    assert vectors[1] == pytest.approx(words + own, abs=1e-6)


def test_a_federation_of_private_catalogues_needs_no_shared_item():
    config = SequenceConfig(items=2, embedding_size=16, history_length=4)
    weights = model_weights.initial(config, popularity=np.zeros(3), min_support=1, rng=np.random.default_rng(0))
    assert isinstance(model_weights.load(weights.to_bytes()), Weights)
    assert len(weights.id_rows) == 0
