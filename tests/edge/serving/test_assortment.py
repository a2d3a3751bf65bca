"""What is popular is what sells, under every filter, and no older than a second."""

import numpy as np
import pytest

from edge.serving.assortment import Assortments
from edge.serving.shelf import Shelf


@pytest.fixture
def shelf(stocked, catalogue):
    return Shelf.of(stocked, catalogue)


def test_the_most_popular_of_what_a_filter_leaves(shelf, clock):
    odd = np.arange(shelf.size) % 2 == 1
    found = Assortments(clock=clock).of(shelf, odd)
    assert found.count == odd.sum()
    assert found.popular[0] == shelf.place("i7")
    assert set(found.popular.tolist()) == set(odd.nonzero()[0].tolist())


def test_a_purchase_is_seen_at_once_on_a_short_shelf(shelf, clock):
    assortments, mask = Assortments(clock=clock), shelf.offered
    assert assortments.of(shelf, mask).popular[0] == shelf.place("i7")
    for _ in range(20):
        shelf.note_purchase("i3")
    assert assortments.of(shelf, mask).popular[0] == shelf.place("i3")


def test_and_within_a_second_on_a_long_one(shelf, clock, monkeypatch):
    monkeypatch.setattr("edge.serving.assortment._SHORT", 5)
    assortments, mask = Assortments(clock=clock), shelf.offered
    assortments.of(shelf, mask)
    for _ in range(20):
        shelf.note_purchase("i3")
    assert assortments.of(shelf, mask).popular[0] == shelf.place("i7")
    clock.now += 1.1
    assert assortments.of(shelf, mask).popular[0] == shelf.place("i3")


def test_masks_of_many_filters_are_not_all_kept(shelf, clock):
    assortments = Assortments(clock=clock)
    for number in range(500):
        mask = np.zeros(shelf.size, bool)
        mask[number % shelf.size] = True
        assert assortments.of(shelf, mask).count == 1
        assert assortments.nbytes <= 64 * (mask.nbytes + 8)
