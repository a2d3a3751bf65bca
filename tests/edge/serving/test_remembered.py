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


def test_what_a_model_said_is_not_another_s_and_not_of_fewer_items(load_release):
    one, other = load_release(1).ranker, load_release(2).ranker
    remembered, history = Remembered(), np.array([3, 4])
    said = one.rank(history, k=5)
    remembered.keep(one, history, said, k=5)
    assert remembered.ranked(one, np.array([9, 9, 3, 4][-2:]), k=5) is said
    assert remembered.ranked(one, np.array([4, 3]), k=5) is None
    assert remembered.ranked(one, history, k=6) is None
    assert remembered.ranked(other, history, k=5) is None


def test_a_shop_may_have_nothing_remembered(load_release):
    model, remembered = load_release().ranker, Remembered(most_bytes=0)
    remembered.keep(model, np.array([3]), model.rank(np.array([3]), k=5), k=5)
    remembered.habits(past(1, 2))
    assert remembered.nbytes == 0
    assert remembered.ranked(model, np.array([3]), k=5) is None
