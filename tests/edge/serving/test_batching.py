"""Who is asked about together gets the same answer as alone, at the same time, and no one pays for another."""

import asyncio
import time

import numpy as np
import pytest

from edge.serving.batching import MOST_POSITIONS, Batching, Reading, grouped
from edge.serving.breaker import State
from edge.serving.deadline import Pace, Watchdog
from edge.serving.submodel import Submodel, Trouble

from .models import ITEMS, LENGTH, moody_ranker, real_ranker

SLOW, BAD = 12, 11  # items of the moody model


@pytest.fixture(scope="module")
def ranker(tmp_path_factory):
    return real_ranker(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def moody():
    return moody_ranker()


@pytest.fixture
def states():
    return []


@pytest.fixture
def submodel(states):
    return Submodel(clock=time.monotonic, changed=states.append)


@pytest.fixture
def batching():
    watchdog = Watchdog()
    yield Batching(watchdog=watchdog, clock=time.monotonic)
    watchdog.close()


class Counting:
    """The same session; notes the shape of every run."""

    def __init__(self, session):
        self.session, self.shapes = session, []

    def run(self, outputs, inputs, *options):
        self.shapes.append(inputs["history"].shape)
        return self.session.run(outputs, inputs, *options)


@pytest.fixture
def runs(ranker, monkeypatch):
    counting = Counting(ranker._session)
    monkeypatch.setattr(ranker, "_session", counting)
    return counting.shapes


def reading(model, submodel, history, *, seconds=10.0, hurried=False):
    return Reading(
        model=model,
        vectors=None,
        submodel=submodel,
        history=np.array(history),
        k=10,
        until=time.monotonic() + seconds,
        hurried=hurried,
    )


def together(batching, readings):
    async def run():
        return await asyncio.gather(*(batching.hear(one) for one in readings))

    return asyncio.run(run())


def test_histories_read_together_say_what_they_say_alone(ranker, submodel, batching, rng, runs):
    lengths = [*range(1, LENGTH + 5), 3, 3, 3]
    histories = [rng.integers(1, ITEMS + 1, length) for length in lengths]
    alone = [ranker.rank(history, k=10) for history in histories]
    runs.clear()
    heard = together(batching, [reading(ranker, submodel, history) for history in histories])
    assert len(runs) < len(histories) / 2
    for one, other in zip(alone, heard, strict=True):
        assert other.state == pytest.approx(one.state, abs=1e-4)
        assert other.rows.tolist() == one.rows.tolist()


def test_short_histories_are_not_filled_up_to_long_ones(ranker, submodel, batching, rng, runs):
    histories = [rng.integers(1, ITEMS + 1, length) for length in (2, 24, 2, 24)]
    together(batching, [reading(ranker, submodel, history) for history in histories])
    assert sorted(runs) == [(2, 2), (2, 24)]


def test_a_run_stays_small_enough_for_the_cache(ranker, submodel, rng):
    readings = [reading(ranker, submodel, rng.integers(1, 9, LENGTH)) for _ in range(100)]
    sizes = [len(group) for group in grouped(readings)]
    assert sum(sizes) == 100
    assert max(sizes) * LENGTH <= MOST_POSITIONS


def test_nobody_waits_for_others_to_come(ranker, submodel, batching, runs):
    """A single question is run in the very next turn of the loop."""

    async def run():
        heard = asyncio.create_task(batching.hear(reading(ranker, submodel, [1, 2])))
        for _ in range(4):
            await asyncio.sleep(0)
        return heard.done()

    assert asyncio.run(run())
    assert runs == [(1, 2)]


def test_where_requests_come_one_by_one_each_is_run_at_once_until_a_crowd_comes(ranker, submodel, batching, runs):
    async def run():
        for number in range(20):
            await batching.hear(reading(ranker, submodel, [number + 1]))
            await asyncio.sleep(0)
        at_once = asyncio.create_task(batching.hear(reading(ranker, submodel, [1])))
        await asyncio.sleep(0)
        assert at_once.done()
        runs.clear()
        await asyncio.sleep(0)
        for _ in range(2):
            await asyncio.gather(*(batching.hear(reading(ranker, submodel, [1, 2])) for _ in range(5)))

    asyncio.run(run())
    assert runs == [(1, 2), (4, 2), (5, 2)]


def test_more_than_32_are_read_in_several_turns(ranker, submodel, batching, rng):
    heard = together(batching, [reading(ranker, submodel, rng.integers(1, 9, 4)) for _ in range(100)])
    assert all(len(one.rows) == 10 for one in heard)


def test_whoever_gave_up_harms_no_one_else(ranker, submodel, batching):
    async def run():
        gone = asyncio.create_task(batching.hear(reading(ranker, submodel, [1])))
        stays = asyncio.create_task(batching.hear(reading(ranker, submodel, [2])))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert len(asyncio.run(run()).rows) == 10


def test_one_bad_history_spoils_no_other(moody, submodel, batching):
    heard = together(batching, [reading(moody, submodel, [1, item]) for item in (2, BAD, 3)])
    assert heard[1] is Trouble.FAILED
    assert heard[0].rows.tolist() == heard[2].rows.tolist() == list(range(1, 11))


def test_a_model_that_hangs_is_stopped_and_the_next_answer_comes(moody, submodel, batching):
    heard = batching.hear_now([reading(moody, submodel, [SLOW], seconds=0.05)])
    assert heard == [Trouble.SLOW]
    assert batching.hear_now([reading(moody, submodel, [1])])[0].rows.tolist() == list(range(1, 11))


def test_a_model_that_keeps_hanging_is_left_alone(moody, submodel, batching, states):
    for _ in range(5):
        submodel._pace = Pace()  # or it would be left out for being slow, which it is
        batching.hear_now([reading(moody, submodel, [SLOW], seconds=0.02)])
    assert states == [State.OPEN]
    assert batching.hear_now([reading(moody, submodel, [1])]) == [Trouble.PAUSED]


def test_whoever_is_in_a_hurry_stops_nobody_else_and_closes_no_shop(moody, submodel, batching, states):
    """Anybody may ask with a deadline of nothing; that must not take the model away from the others."""
    for _ in range(20):
        submodel._pace = Pace()
        hurried = reading(moody, submodel, [SLOW], seconds=0.01, hurried=True)
        heard = batching.hear_now([hurried, reading(moody, submodel, [1])])
        assert heard[0] is Trouble.SLOW
        assert heard[1].rows.tolist() == list(range(1, 11))
    assert states == []


def test_what_would_not_be_ready_in_time_is_not_begun(moody, batching):
    submodel = Submodel(clock=time.monotonic)
    submodel._pace.note(1.0, work=1)
    assert batching.hear_now([reading(moody, submodel, [SLOW], seconds=5)]) == [Trouble.SLOW]


def test_what_was_slow_once_is_tried_again_in_the_end(moody, batching):
    submodel = Submodel(clock=time.monotonic)
    submodel._pace.note(1.0, work=1)
    heard = [batching.hear_now([reading(moody, submodel, [1], seconds=1)])[0] for _ in range(60)]
    assert heard[0] is Trouble.SLOW
    assert heard[-1] is not Trouble.SLOW


def test_an_error_of_ours_reaches_all_who_wait(ranker, submodel, batching, monkeypatch):
    monkeypatch.setattr(ranker, "history_length", None)

    async def run():
        readings = [reading(ranker, submodel, [1]), reading(ranker, submodel, [2])]
        return await asyncio.gather(*(batching.hear(one) for one in readings), return_exceptions=True)

    assert [type(error) for error in asyncio.run(run())] == [TypeError, TypeError]
