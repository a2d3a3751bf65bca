"""How far a context is believed."""

import numpy as np
import pytest

from edge.neighbours.lifting import lift, strength_of
from edge.neighbours.visits import EVERYTHING


def shares(*values):
    return np.array([0.0, *values]) / sum(values)


def test_a_context_that_differs_by_chance_only_lifts_nothing(rng):
    shop = shares(*range(1, 41))
    counts = rng.multinomial(500, shop[1:]).astype(float)
    heard = lift(np.arange(0, 41), np.r_[500.0, counts], shop)
    assert heard.times == pytest.approx(np.ones(40), abs=0.35)
    assert np.abs(heard.times - 1).mean() < np.abs(counts / 500 / shop[1:] - 1).mean() / 2


def test_a_context_with_a_taste_of_its_own_is_believed():
    shop = shares(*[10.0] * 10)
    counts = np.array([300.0, *[20.0] * 9])
    heard = lift(np.array([EVERYTHING, *range(1, 11)]), np.r_[480.0, counts], shop)
    assert heard.times[0] == pytest.approx(300 / 48, rel=0.1)
    assert heard.times[1] == pytest.approx(20 / 48, rel=0.15)


def test_few_observations_are_hardly_believed():
    shop = shares(*[10.0] * 10)
    heard = lift(np.array([EVERYTHING, 1]), np.array([2.0, 2.0]), shop)
    assert 1 < heard.times[0] < 10


def test_strength_is_found_again(rng):
    shop = rng.dirichlet(np.ones(50) * 3)
    found = []
    for _ in range(200):
        counts = rng.multinomial(400, rng.dirichlet(shop * 80)).astype(float)
        found.append(1 / strength_of(counts, shop, 400.0))
    assert 1 / np.mean(found) == pytest.approx(80, rel=0.3)
