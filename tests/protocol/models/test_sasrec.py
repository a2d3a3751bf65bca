import numpy as np
import pytest
import torch

from protocol.content import token_table
from protocol.models import weights as model_weights
from protocol.models.sasrec import SasRec
from protocol.models.weights import SequenceConfig, item_vectors

TOKENS = token_table([(f"thing {number}", f"maker {number % 3}", "ware") for number in range(30)])


@pytest.fixture(params=[0.0, 5.0], ids=["no item has an id", "some items have an id"])
def weights(request):
    config = SequenceConfig(items=30, embedding_size=16, history_length=8)
    popularity = np.append(0, np.arange(30)) * request.param
    return model_weights.initial(config, popularity=popularity, min_support=50, rng=np.random.default_rng(2))


@pytest.fixture
def model(weights):
    return SasRec(weights, TOKENS).eval()


def states(model, *rows):
    inputs = torch.tensor(rows)
    with torch.inference_mode():
        return model(model.vectors(inputs), inputs == 0).numpy()


def test_trimming_a_short_history_is_the_same_as_padding_it(model):
    padded, trimmed = states(model, [0, 0, 0, 0, 0, 3, 1, 4]), states(model, [3, 1, 4])
    assert padded[0, -3:] == pytest.approx(trimmed[0], abs=1e-5)


def test_a_neighbour_in_the_batch_changes_nothing(model):
    alone, together = states(model, [3, 1, 4]), states(model, [0, 0, 9], [3, 1, 4])
    assert together[1] == pytest.approx(alone[0], abs=1e-5)


def test_the_future_is_not_seen(model):
    assert states(model, [3, 1, 4])[0, :2] == pytest.approx(states(model, [3, 1, 27])[0, :2], abs=1e-6)
    assert np.abs(states(model, [3, 1, 4])[0, 2] - states(model, [3, 1, 27])[0, 2]).max() > 1e-3


def test_order_and_old_items_matter(model):
    assert np.abs(states(model, [3, 1, 4])[0, -1] - states(model, [1, 3, 4])[0, -1]).max() > 1e-4


def test_nothing_but_padding_is_no_nan(model):
    assert np.isfinite(states(model, [0, 0, 0])).all()


def test_center_and_trainer_see_the_same_item(model, weights):
    vectors, bias = item_vectors(weights, TOKENS)
    rows = torch.arange(31)
    with torch.inference_mode():
        assert model.vectors(rows).numpy() == pytest.approx(vectors, abs=1e-6)
        assert model.bias(rows).numpy() == pytest.approx(bias, abs=1e-6)


def test_parameters_are_those_that_travel(model, weights):
    assert {name: tuple(value.shape) for name, value in model.named_parameters()} == weights.config.shapes(
        len(weights.id_rows)
    )


def test_another_catalogue_is_refused(weights):
    with pytest.raises(ValueError, match="29 items"):
        SasRec(weights, TOKENS[:-1])
