"""Whoever runs too long is stopped, also after a quiet night."""

import time
from math import inf

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


def stopped(moody, watchdog, *, after=0.02):
    """Seconds until it was."""
    began = time.monotonic()
    options = watchdog.watch(began + after)
    with pytest.raises(ModelFailedError, match="terminate"):
        moody.rank_many([SLOW], k=3, options=options)
    watchdog.rest()
    assert options.terminate
    return time.monotonic() - began


def test_it_wakes_when_there_is_something_to_watch_again(moody, watchdog, eventually):
    assert stopped(moody, watchdog) >= 0.02
    eventually(lambda: watchdog._wakes_at == inf)
    assert stopped(moody, watchdog) >= 0.02


def test_a_run_that_must_end_sooner_than_the_one_before_wakes_it(moody, watchdog, eventually):
    watchdog.watch(time.monotonic() + 600)
    eventually(lambda: watchdog._wakes_at < inf)
    watchdog.rest()
    assert stopped(moody, watchdog) < 300


def test_runs_that_end_in_time_do_not_wake_it(watchdog, monkeypatch, eventually):
    watchdog.watch(time.monotonic() + 600)
    eventually(lambda: watchdog._wakes_at < inf)
    monkeypatch.setattr(watchdog._wake, "set", None)  # whoever calls it now fails
    for _ in range(3):
        watchdog.watch(time.monotonic() + 601)
        watchdog.rest()
    monkeypatch.undo()


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
