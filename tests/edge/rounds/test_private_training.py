import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge.rounds.private_training import PrivateLesson, popularity_privately, train_privately
from edge.rounds.training import Scorer, Sequences
from protocol import lessons
from protocol import privacy as books
from protocol.content import token_table
from protocol.errors import UnavailableError
from protocol.models import weights as model_weights
from protocol.models.weights import SequenceConfig, flatten
from protocol.privacy import FIGURES, Privacy

ITEMS = 24
TOKENS = token_table([(f"thing {number}", "", "") for number in range(ITEMS)])
PRIVACY = Privacy(noise_multiplier=1.0, user_clip=0.7, colluders=1)
WIDE = 1e6


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def lesson(**changes):
    return PrivateLesson(**{"privacy": PRIVACY, "bound": WIDE, "negatives": 16, **changes})


def columns(users):
    """Users given as baskets: [[1, 2], [3]] had 1 and 2, then 3."""
    lines = [(u, row, 1000 * time) for u, baskets in users.items() for time, rows in enumerate(baskets) for row in rows]
    return (np.array(column, np.int64) for column in zip(*lines, strict=True))


def sequences(users):
    if not users:
        nothing = np.zeros(0, np.int64)
        return Sequences.of(user=nothing, rows=nothing, time_ms=nothing)
    user, rows, time_ms = columns(users)
    return Sequences.of(user=user, rows=rows, time_ms=time_ms)


def first_weights(**changes):
    popularity = np.arange(ITEMS + 1, dtype=np.float64)
    config = SequenceConfig(items=ITEMS, embedding_size=16, history_length=6, layers=1)
    weights = model_weights.initial(config, popularity=popularity, min_support=1, rng=np.random.default_rng(3))
    tensors = {**weights.tensors, **{name: np.full_like(weights.tensors[name], by) for name, by in changes.items()}}
    return model_weights.Weights(config=weights.config, tensors=tensors, id_rows=weights.id_rows)


def learn(users, *, weights=None, seed=1, **changes):
    return train_privately(weights or first_weights(), TOKENS, sequences(users), lesson=lesson(**changes), seed=seed)


def count(users, *, privacy=PRIVACY, bound=WIDE):
    if not users:
        nothing = np.zeros(0, np.int64)
        return popularity_privately(nothing, nothing, items=ITEMS, privacy=privacy, bound=bound)
    user, rows, _ = columns(users)
    return popularity_privately(user, rows, items=ITEMS, privacy=privacy, bound=bound)


def vector(values):
    return np.concatenate([np.atleast_1d(value) for value in values.values()])


def without(users, gone):
    return {user: baskets for user, baskets in users.items() if user != gone}


def crowd(rng, users=6, baskets=6):
    return {
        user: [list(rng.integers(1, ITEMS + 1, rng.integers(1, 4))) for _ in range(rng.integers(1, baskets))]
        for user in range(users)
    }


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("user_clip", [0.01, 0.7, 30.0])
def test_taking_a_user_away_takes_no_more_than_the_clip(seed, user_clip):
    privacy = Privacy(noise_multiplier=1.0, user_clip=user_clip, colluders=1)
    rng = np.random.default_rng(seed)
    users = crowd(rng)
    gone = int(rng.integers(len(users)))
    whole = vector(learn(users, privacy=privacy))
    assert np.linalg.norm(whole - vector(learn(without(users, gone), privacy=privacy))) <= user_clip


def test_a_user_is_missed_by_exactly_what_that_user_said():
    # To the last bit: were the others computed or drawn a little differently, the clip would bound nothing.
    users = crowd(np.random.default_rng(5), users=8, baskets=8)
    whole = vector(learn(users))
    for gone in users:
        alone = vector(learn({gone: users[gone]}))
        assert np.array_equal(whole - vector(learn(without(users, gone))), alone)
        assert np.linalg.norm(alone) <= PRIVACY.user_clip


def test_who_buys_all_day_counts_no_more_than_others():
    rng = np.random.default_rng(2)
    modest = {user: [[1], [2], [3], [4]] for user in range(3)}
    greedy = {9: [[int(row)] for row in rng.integers(1, ITEMS + 1, 3000)]}
    whole, others = learn({**modest, **greedy}), learn(modest)
    assert np.linalg.norm(vector(whole) - vector(others)) <= PRIVACY.user_clip
    assert whole["weight"] - others["weight"] == others["weight"] / 3


def test_the_site_cannot_be_told_by_what_it_samples():
    # Were rivals drawn by what the site sells, each user's vector would say what the others buy.
    mine = {0: [[1], [2], [3], [4]]}
    for others in ([[20], [21], [22], [23]], [[5], [5], [5], [5]]):
        both = vector(learn({**mine, 1: others})) - vector(learn({1: others}))
        assert np.array_equal(both, vector(learn(mine)))


def test_a_step_along_the_sum_foretells_better():
    users = {user: [[1 + (user + step) % ITEMS] for step in range(8)] for user in range(40)}
    weights = first_weights()
    losses = []
    for seed in range(25):
        said = learn(users, weights=weights, seed=seed)
        plain = books.plain({name: np.atleast_1d(value) for name, value in said.items()}, privacy=PRIVACY)
        losses.append(plain["loss"][0] / plain["weight"][0])
        step = 0.5 * plain["update"] / plain["weight"][0]
        weights = weights.moved((flatten(weights.tensors) + step).astype(np.float32))
    assert plain["weight"][0] == pytest.approx(40)
    assert losses[-1] < 0.8 * losses[0]
    assert Scorer(weights, TOKENS).scores([np.array([3, 4, 5], np.int32)])[0].argmax() == 6


def test_a_site_says_what_the_layout_asks_for():
    said = learn(crowd(np.random.default_rng(1)))
    layout = lessons.training_layout(len(said["update"]), coordinate_clip=1.0, private_bound=WIDE)
    assert [segment.name for segment in layout] == list(said)
    assert [np.size(said[segment.name]) for segment in layout] == [segment.length for segment in layout]
    assert said["update"].dtype == np.float64
    counted = count(crowd(np.random.default_rng(1)))
    layout = lessons.popularity_layout(ITEMS, private_bound=WIDE)
    assert [(segment.name, segment.length) for segment in layout] == [(n, np.size(v)) for n, v in counted.items()]


@pytest.mark.parametrize("users", [{}, {0: [[1]]}, {0: [[1], [2]]}, {0: [[1, 2, 3]], 1: [[4]]}], ids=str)
def test_a_shop_whose_users_have_not_come_back_says_nothing(users):
    assert not np.any(vector(learn(users)))


def test_figures_are_those_of_each_user_and_not_of_the_clipped_update():
    users = {0: [[1], [2], [3], [4]], 1: [[5], [6], [7], [8]]}
    said = learn(users, privacy=Privacy(noise_multiplier=1.0, user_clip=1e-3, colluders=1))
    small = Privacy(noise_multiplier=1.0, user_clip=1e-3, colluders=1)
    plain = books.plain({name: np.atleast_1d(value) for name, value in said.items()}, privacy=small)
    assert plain["weight"][0] == pytest.approx(2, rel=1e-6)
    assert 0 <= plain["recall"][0] <= 2
    assert 2 < plain["loss"][0] < 2 * math.log(ITEMS) + 4


def test_sums_beyond_the_bound_are_cut_and_cut_sums_are_no_further_apart():
    users = {user: [[1], [2], [3], [4]] for user in range(10)}
    bound = 0.05
    said, fewer = learn(users, bound=bound), learn(without(users, 3), bound=bound)
    assert np.abs(vector(said)).max() <= bound
    assert np.linalg.norm(vector(said) - vector(fewer)) <= PRIVACY.user_clip


def test_weights_that_have_gone_mad_do_not_break_the_promise():
    said = learn({0: [[1], [2], [3]]}, weights=first_weights(**{"token.weight": 1e30, "id_bias": 1e30}))
    assert np.isfinite(vector(said)).all()
    assert np.linalg.norm(vector(said)) <= PRIVACY.user_clip


def test_a_share_of_the_users_is_drawn_each_on_their_own():
    users = {user: [[1 + user % ITEMS], [1 + 7 * user % ITEMS], [3], [4 + user % 5]] for user in range(200)}
    said = {number: learn(users, seed=number, share=0.5)["weight"] / PRIVACY.unit("weight") for number in (1, 2)}
    assert said[1] != said[2]
    assert all(60 < drawn < 140 for drawn in said.values())
    moved = vector(learn(users, share=0.5)) - vector(learn(without(users, 17), share=0.5))
    assert np.linalg.norm(moved) <= PRIVACY.user_clip


def test_half_a_sum_is_not_sent():
    users = {user: [[1], [2], [3]] for user in range(3)}
    with pytest.raises(UnavailableError, match="not ready"):
        learn(users, max_seconds=-1.0)
    calls = iter([False, True])
    with pytest.raises(UnavailableError):
        train_privately(first_weights(), TOKENS, sequences(users), lesson=lesson(), seed=1, stop=lambda: next(calls))


@given(seed=st.integers(0, 2**32), user_clip=st.floats(0.05, 50))
def test_taking_a_user_out_of_the_counts_takes_no_more_than_the_clip(seed, user_clip):
    privacy = Privacy(noise_multiplier=1.0, user_clip=user_clip, colluders=1)
    rng = np.random.default_rng(seed)
    users = crowd(rng, baskets=30)
    gone = int(rng.integers(len(users)))
    whole, fewer, alone = (
        vector(count(some, privacy=privacy)) for some in (users, without(users, gone), {gone: users[gone]})
    )
    assert np.linalg.norm(whole - fewer) <= user_clip
    assert np.array_equal(whole - fewer, alone)


def test_counts_of_modest_users_are_what_they_were():
    roomy = Privacy(noise_multiplier=1.0, user_clip=64.0, colluders=1)
    said = count({4: [[1, 2], [2]], 9: [[2], [0, 0]]}, privacy=roomy)
    assert said["counts"][:4].tolist() == [2, 1, 3, 0]
    assert said["weight"] / roomy.unit("weight") == 2


def test_a_shop_without_events_counts_nothing():
    assert not np.any(vector(count({})))
    assert len(count({})["counts"]) == ITEMS + 1


def test_all_figures_have_a_unit():
    assert set(FIGURES) == set(learn({})) - {"update"}
