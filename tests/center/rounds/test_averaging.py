import numpy as np
import pytest

from center.rounds.averaging import ServerOptimizer, ServerState, apply_round, take_back
from protocol.errors import MalformedMessageError
from protocol.models import weights as model_weights
from protocol.models.weights import SequenceConfig, flatten

CONFIG = SequenceConfig(items=4, embedding_size=16, history_length=3, layers=1)
PLAIN = ServerOptimizer()


@pytest.fixture
def rng():
    return np.random.default_rng(20_261_121)


def first_weights(seed=0):
    popularity = np.array([0, 9, 9, 0, 0], np.float64)
    return model_weights.initial(
        CONFIG, popularity=popularity, min_support=1, rng=np.random.default_rng(seed)
    ).to_bytes()


@pytest.fixture
def state():
    return ServerState.begin(first_weights())


def values(state):
    return flatten(state.model.tensors)


def step(state, average, settings=PLAIN):
    return apply_round(state, average=average, validation=0.5, settings=settings)


def updates(state, rng, sites=3):
    return rng.normal(0, 0.1, (sites, len(values(state))))


def test_a_large_site_counts_as_much_as_its_examples(state, rng):
    parts, weights = updates(state, rng), np.array([1.0, 0.5, 0.25])
    after = step(state, weights @ parts / weights.sum())
    expected = values(state) + np.average(parts, axis=0, weights=weights)
    assert values(after) == pytest.approx(expected, abs=1e-6)
    assert after.completed == 1


def test_sites_that_agree_move_the_model_to_where_they_are(state, rng):
    one = updates(state, rng, sites=1)[0]
    after = step(state, one)
    assert values(after) == pytest.approx(values(state) + one, abs=1e-6)


def test_momentum_goes_on_in_the_direction_of_the_last_step(state, rng):
    one = updates(state, rng, sites=1)[0]
    heavy = ServerOptimizer(learning_rate=0.5, momentum=0.9)
    first = step(state, one, heavy)
    second = step(first, one, heavy)
    assert values(first) == pytest.approx(values(state) + 0.5 * one, abs=1e-6)
    assert values(second) == pytest.approx(values(first) + 0.5 * 1.9 * one, abs=1e-5)


def test_a_step_leaves_the_state_before_it_as_it_was(state, rng):
    before = state.to_bytes()
    step(state, updates(state, rng)[0], ServerOptimizer(momentum=0.9))
    assert state.to_bytes() == before


def test_a_resumed_campaign_goes_on_exactly_where_it_was(state, rng):
    heavy = ServerOptimizer(learning_rate=0.7, momentum=0.9)
    first, second = updates(state, rng, sites=2)
    straight = step(state, first, heavy)
    resumed = ServerState.from_bytes(straight.to_bytes())
    assert resumed.completed == 1
    assert step(resumed, second, heavy).to_bytes() == step(straight, second, heavy).to_bytes()


def test_the_checkpoint_holds_the_weights_that_edges_are_sent(state):
    assert ServerState.from_bytes(state.to_bytes()).weights() == first_weights()


@pytest.mark.parametrize("length", [0, 7, 8, 500, -1])
def test_half_a_checkpoint_is_refused(state, length):
    with pytest.raises(MalformedMessageError):
        ServerState.from_bytes(state.to_bytes()[:length])


def test_an_optimizer_of_another_model_is_refused(state):
    other = SequenceConfig(items=4, embedding_size=32, history_length=3, layers=1)
    model = model_weights.initial(other, popularity=np.zeros(5), min_support=1, rng=np.random.default_rng(0))
    mixed = ServerState(completed=0, model=model, velocity=state.velocity, previous=state.previous)
    with pytest.raises(MalformedMessageError, match="another model"):
        ServerState.from_bytes(mixed.to_bytes())


def test_a_step_taken_back_twice_leaves_a_quarter_of_it_and_no_momentum(state, rng):
    one = updates(state, rng, sites=1)[0]
    back = take_back(take_back(step(state, one, ServerOptimizer(momentum=0.9))))
    assert values(back) == pytest.approx(values(state) + one / 4, abs=1e-6)
    assert (back.completed, back.halvings) == (1, 2)
    assert not back.velocity.any()
    assert step(back, one).halvings == 0


def test_a_sum_of_another_length_is_refused(state):
    with pytest.raises(ValueError, match="parameters"):
        step(state, np.zeros(3))
