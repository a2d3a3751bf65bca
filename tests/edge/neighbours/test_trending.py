"""What is a trend, and what is only popular."""

import numpy as np

from edge.neighbours.trending import trends


def order(lately, usually):
    found = trends(np.array(lately, float), np.array(usually, float))
    return [int(item) for item in np.argsort(-found.score, kind="stable") if np.isfinite(found.score[item])]


def test_what_is_wanted_more_than_usual_stands_before_what_is_always_wanted():
    assert order([0, 100, 30, 20], [0, 1000, 20, 200])[:2] == [2, 1]


def test_a_busy_evening_is_no_trend():
    lately = np.array([0.0, 100, 50, 20]) * 7
    assert (trends(lately, np.array([0.0, 1000, 500, 200])).score <= 0).all()


def test_one_look_at_a_forgotten_item_is_no_trend():
    found = trends(np.array([0.0, 100, 0.2]), np.array([0.0, 1000, 0.2]))
    assert found.score[2] <= 0


def test_without_a_past_the_most_wanted_is_first():
    assert order([0, 3, 9, 1], [0, 3, 9, 1]) == [2, 1, 3]


def test_what_nobody_wants_is_not_named():
    assert order([0, 0, 2], [0, 5, 2]) == [2]
