"""A submodel that keeps failing is left alone, and gets its chance again."""

import pytest

from edge.serving.breaker import Breaker, State


@pytest.fixture
def told():
    return []


@pytest.fixture
def breaker(clock, told):
    return Breaker(clock=clock, changed=told.append)


def fail(breaker, times=5):
    for _ in range(times):
        breaker.note(failed=True)


def test_a_few_failures_among_many_answers_are_borne(breaker):
    for _ in range(50):
        breaker.note(failed=False)
        breaker.note(failed=False)
        breaker.note(failed=True)
    assert breaker.lets_through()


def test_one_that_always_fails_is_left_alone(breaker, told):
    fail(breaker, 4)
    assert breaker.lets_through()
    fail(breaker, 1)
    assert not breaker.lets_through()
    assert told == [State.OPEN]


def test_failures_of_long_ago_do_not_count(breaker, clock):
    fail(breaker, 4)
    clock.now += 31
    fail(breaker, 4)
    assert breaker.lets_through()


def test_it_is_tried_again_and_comes_back(breaker, clock, told):
    fail(breaker)
    clock.now += 4.9
    assert not breaker.lets_through()
    clock.now += 0.2
    assert breaker.lets_through()
    breaker.note(failed=False)
    assert breaker.lets_through()
    assert told == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_each_failed_try_doubles_the_rest_up_to_five_minutes(breaker, clock):
    fail(breaker)
    rests = []
    for _ in range(8):
        rest = 0.0
        while not breaker.lets_through():
            clock.now += 1
            rest += 1
        rests.append(rest)
        fail(breaker, 1)
    assert rests == [5, 10, 20, 40, 80, 160, 300, 300]


def test_once_well_it_needs_five_failures_again(breaker, clock):
    fail(breaker)
    clock.now += 6
    assert breaker.lets_through()
    breaker.note(failed=False)
    fail(breaker, 4)
    assert breaker.lets_through()
