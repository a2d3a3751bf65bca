"""Every candidate is heard once, by every voice, and the fast sum says what the voices say."""

import numpy as np
import pytest

from edge.records.store import Past
from edge.serving.fusion import VOICES, FusionWeights
from edge.serving.personal import habits
from edge.serving.ranker import Ranked
from edge.serving.slate import Market, Near, candidates, lay_out, slate_of

DAY_MS = 86_400_000
SIZE = 60


def past(*lines):
    item, day, bought = zip(*lines, strict=True)
    return Past(
        item=np.array(item, np.int64), time_ms=np.array(day, np.int64) * DAY_MS, purchased=np.array(bought, bool)
    )


class Model:
    """Knows the places up to 50; likes them as its state says."""

    def __init__(self, rng):
        self.vectors = rng.normal(size=(51, 4)).astype(np.float32)

    def known(self, places):
        return places <= 50

    def score(self, state, places):
        return self.vectors[places] @ state


@pytest.fixture
def market(rng):
    return Market(
        site=rng.integers(0, 90, SIZE).astype(np.float32),
        federation=rng.integers(0, 900, SIZE).astype(np.float32),
        popular=np.array([7, 8, 3]),
    )


@pytest.fixture
def some_past(rng):
    return Past(
        item=rng.integers(1, SIZE, 40), time_ms=np.arange(40) // 3 * DAY_MS, purchased=rng.random(40) < 0.6
    )  # fmt: skip


@pytest.fixture
def full(rng, market, some_past):
    """A slate on which everybody speaks; place 55 is one that the model does not know."""
    ranked = Ranked(state=rng.normal(size=4).astype(np.float32), rows=np.array([1, 2, 3, 40]))
    near = Near(places=np.array([9, 55]), weights=np.array([0.5, 0.25], np.float32))
    return slate_of(some_past, market, allowed=np.ones(SIZE, bool), model=Model(rng), ranked=ranked, near=near)


def test_slate_obeys_what_is_allowed():
    market = Market(site=np.ones(9), federation=np.ones(9), popular=np.array([7, 8]))
    allowed = np.ones(9, bool)
    allowed[[1, 7]] = False
    slate = slate_of(past((1, 0, True), (2, 1, True)), market, allowed=allowed)
    assert slate.places.tolist() == [2, 8]
    assert slate.voices()[0, VOICES.index("again")] == 1
    assert slate.voices()[1, VOICES.index("again")] == 0


def test_what_stands_on_the_page_is_no_candidate_whoever_names_it():
    named = [np.array([5, 3, 3]), np.array([5, 1])]
    places = candidates(named, allowed=np.ones(6, bool), hidden=np.array([5, 4, 2]))
    assert places.tolist() == [1, 3]
    assert candidates(named, allowed=np.zeros(6, bool)).tolist() == []


def test_the_fast_sum_is_the_sum_of_all_voices(rng, full):
    weights = FusionWeights(weights={name: float(value) for name, value in zip(VOICES, rng.normal(size=99))})  # noqa: B905
    assert full.scores(weights) == pytest.approx(full.voices() @ weights.vector(), abs=1e-4)
    assert full.voices()[full.places == 9, VOICES.index("companion")] == [0.5]


def test_the_model_is_heard_in_standard_deviations_and_only_of_what_it_knows(full):
    said = full.voices()[:, VOICES.index("sequence")]
    known = full.places <= 50
    assert said[~known].tolist() == [0.0] * int((~known).sum()) != []
    assert (said[known].mean(), said[known].std()) == pytest.approx((0, 1), abs=1e-5)


def test_a_voice_does_not_depend_on_who_else_stands_there(market, some_past, full):
    """An explanation asks again for fewer items, and must hear the same habits."""
    own = habits(some_past)
    fewer = lay_out(full.places[::2], own, market)
    habit = slice(VOICES.index("again"), VOICES.index("attention") + 1)
    assert (fewer.voices()[:, habit] == full.voices()[::2, habit]).all()


def test_votes_are_reciprocal_ranks(market):
    """By hand: two sources vote, popularity for everybody and companions for those near."""
    near = Near(places=np.array([3, 8]), weights=np.array([0.2, 0.9], np.float32))
    market = Market(site=np.arange(SIZE, dtype=np.float32), federation=market.federation, popular=np.array([3, 7, 8]))
    slate = slate_of(past((7, 0, False)), market, allowed=np.ones(SIZE, bool), near=near)
    weights = FusionWeights(weights={"companion": 1.0, "site": 1.0})
    assert slate.places.tolist() == [3, 7, 8]
    assert slate.votes(weights) == pytest.approx([1 / 63 + 1 / 62, 1 / 62, 1 / 61 + 1 / 61])


def test_an_empty_slate_is_no_error(market):
    nobody = Past(item=np.empty(0, np.int64), time_ms=np.empty(0, np.int64), purchased=np.empty(0, bool))
    slate = slate_of(nobody, market, allowed=np.zeros(SIZE, bool))
    assert slate.scores(FusionWeights.default()).tolist() == slate.votes(FusionWeights.default()).tolist() == []
