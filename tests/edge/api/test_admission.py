"""Refused in time, or not at all."""

import pytest

from edge.api.admission import Budget, Lane


def lane(**parts):
    return Lane(Budget(**{"most": 4, "wait_seconds": 0.5, **parts}))


def test_a_request_that_takes_long_is_no_reason_to_refuse_the_next():
    found = lane()
    for second in range(0, 100, 10):
        assert found.enter(now=0, waited=0) == 0
        found.leave(entered=second, now=second + 10)
    assert found.seconds > 5
    assert found.enter(now=0, waited=0) == 0


def test_whoever_would_wait_too_long_is_refused_when_that_does_not_pass():
    found, shed = lane(most=100), []
    found.note_shed = lambda: shed.append(1)
    for second in range(100):  # each takes 0.2 s
        found.enter(now=second, waited=0)
        found.leave(entered=second, now=second + 0.2)
    assert [found.enter(now=100, waited=0) for _ in range(4)] == [0] * 4
    assert found.enter(now=100.6, waited=0) == pytest.approx(0.8, rel=0.01)
    assert (found.inside, shed) == (4, [1])
    for turn in range(2):
        found.leave(entered=100, now=100.6 + turn / 5)
    assert found.enter(now=101, waited=0) == 0


def test_no_more_than_the_most_are_inside():
    found = lane()
    assert [bool(found.enter(now=0, waited=0)) for _ in range(6)] == [False] * 4 + [True] * 2
    found.leave(entered=0, now=0.001)
    assert found.enter(now=0, waited=0) == 0


def test_a_moment_of_hesitation_sends_nobody_away():
    found = lane(most=100)
    assert [found.enter(now=100, waited=3) for _ in range(50)] == [0] * 50


def test_a_queue_that_stays_is_cut_until_it_is_short_again():
    found = lane(most=100)
    assert found.enter(now=100, waited=0.6) == 0
    assert found.enter(now=100.4, waited=0.7) == 0
    assert found.enter(now=100.6, waited=0.8) == 0.8
    assert found.enter(now=100.7, waited=0.6) > 0
    assert found.enter(now=100.8, waited=0.4) == 0
    assert found.enter(now=100.9, waited=0.6) == 0  # the count begins anew


def test_requests_that_overlap_count_once_each():
    """32 at once, answered one after the other in 1 ms each: a request takes 1 ms and not 16."""
    found = lane(most=1000)
    for burst in range(50):
        for _ in range(32):
            found.enter(now=0, waited=0)
        for turn in range(1, 33):
            found.leave(entered=burst, now=burst + turn * 0.001)
    assert found.seconds == pytest.approx(0.001, rel=0.05)
    assert found.inside == 0


def test_bodies_under_way_have_room_or_wait():
    found = lane(body_bytes=100)
    assert found.receive(90) == 0
    assert found.receive(20) == 0.5
    found.receiving -= 90
    assert found.receive(500) == 0  # one alone may always come; its own limit is another matter
