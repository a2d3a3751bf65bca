import numpy as np
import pytest

from simulation.datasets import Baskets
from simulation.quality import Quality, confidence_interval, evaluate

ITEMS = 50


class Oracle:
    """Knows the baskets, and may be wrong about the first so many users."""

    def __init__(self, test, *, wrong=0):
        self.test, self.wrong, self.asked = test, wrong, []

    def scores(self, positions):
        self.asked += positions.tolist()
        scores = np.zeros((len(positions), ITEMS + 1), np.float32)
        for row, position in zip(scores, positions, strict=True):
            row[self.test.of(position)] = -1 if position < self.wrong else 1
        return scores


@pytest.fixture
def baskets_of_150():
    rng = np.random.default_rng(1)
    baskets = [np.sort(rng.choice(np.arange(1, ITEMS + 1), rng.integers(1, 15), replace=False)) for _ in range(150)]
    return Baskets(
        users=tuple(f"user-{number}" for number in range(150)),
        rows=np.concatenate(baskets).astype(np.int32),
        offsets=np.append(0, np.cumsum([len(basket) for basket in baskets])).astype(np.int64),
    )


def small_only(test):
    return np.diff(test.offsets) <= 10


def test_every_user_is_asked_about_once(baskets_of_150):
    oracle = Oracle(baskets_of_150)
    quality = evaluate(oracle, baskets_of_150)
    assert oracle.asked == list(range(150))
    assert quality.ndcg.shape == quality.recall.shape == (150,)


def test_users_keep_their_place_across_chunks(baskets_of_150):
    quality = evaluate(Oracle(baskets_of_150, wrong=70), baskets_of_150)
    assert not quality.recall[:70].any()
    assert (quality.recall[70:] > 0).sum() == 80


def test_what_was_bought_is_all_found_when_it_fits(baskets_of_150):
    quality = evaluate(Oracle(baskets_of_150), baskets_of_150)
    # The oracle ties the items of a basket: they share a rank within the basket, so each of at most 10 is found.
    assert quality.recall[small_only(baskets_of_150)] == pytest.approx(1.0)


def test_sites_count_by_their_users():
    one, other = (Quality(ndcg=np.full(n, value), recall=np.full(n, value)) for n, value in ((1, 1.0), (3, 0.0)))
    assert Quality.over([one, other]).to_json()["ndcg@10"] == 0.25


def test_the_interval_holds_the_mean_and_narrows_with_users():
    values = np.random.default_rng(3).random(400)
    low, high = confidence_interval(values)
    assert low < values.mean() < high
    few_low, few_high = confidence_interval(values[:25])
    assert high - low < few_high - few_low
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.2)


def test_the_interval_is_the_same_in_every_report():
    values = np.random.default_rng(3).random(100)
    assert confidence_interval(values) == confidence_interval(values)
