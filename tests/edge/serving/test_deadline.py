"""Whoever runs too long is stopped, also after a quiet night."""

import time

import numpy as np
import pytest

from edge.serving.deadline import Pace, Watchdog
from edge.serving.ranker import ModelFailedError

from .models import moody_ranker

SLOW = np.array([12])


@pytest.fixture(scope="module")
def moody():
    return moody_ranker()


@pytest.fixture
def watchdog():
    made = Watchdog()
    yield made
    made.close()


def stopped(moody, watchdog):
    options = watchdog.watch(time.monotonic() + 0.02)
    with pytest.raises(ModelFailedError, match="terminate"):
        moody.rank_many([SLOW], k=3, options=options)
    watchdog.rest()
    return options.terminate


def test_it_wakes_when_there_is_something_to_watch_again(moody, watchdog, eventually):
    assert stopped(moody, watchdog)
    eventually(lambda: watchdog._asleep)
    assert stopped(moody, watchdog)


def test_a_run_that_is_over_stops_no_later_one(moody, watchdog):
    watchdog.watch(time.monotonic() - 1)
    watchdog.rest()
    later = watchdog.watch(time.monotonic() + 60)
    assert moody.rank_many([np.array([1])], k=3, options=later)[0].rows.tolist() == [1, 2, 3]
    assert not later.terminate


def test_what_is_slow_now_counts_a_tenth():
    pace = Pace()
    assert pace.expects(100) == 0
    pace.note(2.0, work=2)
    pace.note(4.0, work=2)
    assert pace.expects(10) == pytest.approx(11)
