"""What is remembered is never another's, never old, and never grows."""

import numpy as np

from edge.records.store import Past
from edge.serving.personal import habits
from edge.serving.remembered import Remembered


def past(*items, days=1, purchased=True):
    return Past(
        item=np.array(items),
        time_ms=np.arange(len(items)) * days * 86_400_000,
        purchased=np.full(len(items), purchased),
    )


def test_a_past_that_differs_in_anything_is_another_one():
    remembered = Remembered()
    for each in (past(1, 2), past(2, 1), past(1, 2, days=30), past(1, 2, purchased=False), past(1, 2, 2)):
        for _ in range(2):
            found = remembered.habits(each)
            assert found.places.tolist() == habits(each).places.tolist()
            assert np.array_equal(found.columns, habits(each).columns)


def test_the_same_past_is_worked_out_once():
    remembered = Remembered()
    assert remembered.habits(past(1, 2)) is remembered.habits(past(1, 2))


def test_a_million_users_do_not_fill_the_memory():
    remembered = Remembered(most_bytes=20_000)
    kept = remembered.habits(past(*range(1, 40)))
    for number in range(100):
        remembered.habits(past(*range(number, number + 40)))
        assert 0 < remembered.nbytes <= 20_000
    assert remembered.habits(past(*range(1, 40))) is not kept
