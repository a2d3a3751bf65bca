"""Lists that fade, grow, and are cut."""

import numpy as np
import pytest

from edge.neighbours.entries import LONGEST, Changes, added, unpacked
from edge.neighbours.visits import Entries

HALF_LIFE_MS = 1_000.0


def changes(*entries, sign=1):
    """(list, other, weight, time) each."""
    columns = np.array(entries, np.float64).T
    return Changes.of(
        Entries(
            list_id=columns[0].astype(np.int64),
            other=columns[1].astype(np.int64),
            weight=columns[2],
            time_ms=columns[3].astype(np.int64),
        ),
        half_life_ms=HALF_LIFE_MS,
        sign=sign,
    )


def put(rows, change, worth=lambda _list, _others, weights: weights):
    return added(rows, change, half_life_ms=HALF_LIFE_MS, worth=worth)


def weights(row):
    return dict(zip(*(column.tolist() for column in unpacked(row[2])), strict=True))


def test_after_a_half_life_half_is_left():
    rows, _ = put([], changes((2, 7, 1.0, 0)))
    rows, _ = put(rows, changes((2, 8, 1.0, 1_000)))
    assert rows[0][:2] == (2, 1_000)
    assert weights(rows[0]) == pytest.approx({7: 0.5, 8: 1.0})


def test_what_comes_late_counts_as_if_it_had_come_in_time():
    rows, _ = put([], changes((2, 8, 1.0, 1_000)))
    rows, _ = put(rows, changes((2, 7, 1.0, 0)))
    assert rows[0][1] == 1_000
    assert weights(rows[0]) == pytest.approx({7: 0.5, 8: 1.0})


def test_what_is_taken_out_leaves_no_trace():
    rows, _ = put([], changes((-3, 0, 0.3, 0), (-3, 7, 0.1, 0), (-3, 7, 0.2, 0)))
    assert put(rows, changes((-3, 7, 0.3, 0), (-3, 0, 0.3, 0), sign=-1)) == ([], [-3])


def test_lists_do_not_mix():
    rows, _ = put([], changes((-1, 0, 1.0, 0), (-1, 5, 1.0, 0), (2, 1, 1.0, 0), (3, 1, 2.0, 0)))
    assert [(row[0], weights(row)) for row in rows] == [(-1, {0: 1.0, 5: 1.0}), (2, {1: 1.0}), (3, {1: 2.0})]


def test_a_list_that_grows_too_long_keeps_what_is_worth_most():
    many = changes(*((2, other, 1.0 + other, 0) for other in range(1, 500)))
    rows, _ = put([], many)
    assert sorted(weights(rows[0])) == list(range(500 - LONGEST, 500))
    rows, _ = put([], many, worth=lambda _list, others, _weights: -others.astype(float))
    assert sorted(weights(rows[0])) == list(range(1, LONGEST + 1))
