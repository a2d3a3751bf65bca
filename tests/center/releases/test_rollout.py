"""The state machine of a rollout: tables of single steps, and random figures over whole lives."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from center.releases import stages
from center.releases.health import Health
from center.releases.rollout import OVER, Due, Rollout, State
from center.releases.stages import Stage
from center.settings import RolloutSettings
from protocol.errors import BadInputError
from protocol.identity import EdgeId
from protocol.release import WHOLE_QUEUE, Place, Ring, queue_place

TERMS = RolloutSettings(bake_seconds=60, patience_hours=1)
SHA = "ab" * 32
CANARY = Stage(place=Place.CANARY, reach=WHOLE_QUEUE, sites=3)
EARLY = Stage(place=Place.EARLY, reach=WHOLE_QUEUE, sites=4)
ALL = Stage(place=Place.ALL, reach=WHOLE_QUEUE, sites=8)
WELL = Health(sites=3, kept=3, went_back=0, answers=100, errors=1, events=500, ndcg_new=0.20, ndcg_old=0.19)
BAKED = 1_000 + 60_000
HOUR = 3_600_000


def sites(count):
    return [EdgeId(f"site-{number:04}") for number in range(count)]


def candidate(**options):
    return Rollout.begin(8, SHA, previous=7, stages=[CANARY, EARLY, ALL], now_ms=1_000, **options)


def open_at(stage):
    rollout = candidate(waived="a test").published(now_ms=1_000)
    while rollout.stage < stage:
        rollout = rollout.judged(WELL, now_ms=1_000, terms=TERMS).published(now_ms=1_000)
    return rollout


def test_a_good_release_reaches_everybody_ring_by_ring():
    rollout = candidate().gated([], {"events": 500.0}, now_ms=2_000)
    seen = []
    while rollout.state is State.RUNNING:
        assert rollout.due(now_ms=2_000, terms=TERMS) is Due.SIGN
        rollout = rollout.published(now_ms=2_000)
        seen.append(rollout.reached.place)
        assert rollout.due(now_ms=61_999, terms=TERMS) is Due.NOTHING
        assert rollout.due(now_ms=62_000, terms=TERMS) is Due.HEALTH
        rollout = rollout.judged(WELL, now_ms=62_000, terms=TERMS)
        rollout = replace(rollout, since_ms=2_000)
    assert seen == [Place.CANARY, Place.EARLY, Place.ALL]
    assert rollout.state is State.FINISHED
    assert not rollout.active


def test_a_candidate_that_the_sites_refuse_is_never_signed_for_a_ring():
    rollout = candidate().gated(["NDCG@10 fell"], {}, now_ms=2_000)
    assert (rollout.state, rollout.why, rollout.reached, rollout.active) == (
        State.REFUSED,
        "NDCG@10 fell",
        None,
        False,
    )
    assert rollout.due(now_ms=10**12, terms=TERMS) is Due.NOTHING


@pytest.mark.parametrize(
    ("health", "state", "word"),
    [
        (WELL, State.RUNNING, ""),
        (replace(WELL, kept=1, went_back=2), State.REVERTED, "2 of 3 sites went back"),
        (replace(WELL, kept=0, went_back=2), State.REVERTED, "went back"),
        (replace(WELL, kept=2, went_back=1), State.RUNNING, ""),
        (replace(WELL, errors=3), State.REVERTED, "3 of 100 answers failed"),
        (replace(WELL, ndcg_new=0.17), State.REVERTED, "NDCG@10 fell from 0.1900 to 0.1700 on 500 events"),
        (replace(WELL, ndcg_new=0.172), State.RUNNING, ""),
        (replace(WELL, ndcg_new=0.0, events=199), State.RUNNING, ""),
        (replace(WELL, kept=1), State.RUNNING, "1 of 3 sites have tried it, 2 are needed"),
        (replace(WELL, kept=0, answers=0, errors=0, events=0), State.RUNNING, "0 of 3"),
    ],
)
def test_what_the_health_of_a_stage_leads_to(health, state, word):
    rollout = open_at(0).judged(health, now_ms=BAKED, terms=TERMS, summed=True)
    assert rollout.state is state
    assert word in rollout.why
    goes_on = state is State.RUNNING and not word
    assert rollout.stage == (1 if goes_on else 0)
    assert rollout.questions == 1
    assert rollout.signed is (state is State.RUNNING and not goes_on)


def test_few_early_failures_do_not_speak_for_a_large_ring():
    large = Health(sites=100, kept=0, went_back=10)
    assert open_at(0).judged(large, now_ms=BAKED, terms=TERMS).state is State.RUNNING
    assert open_at(0).judged(replace(large, went_back=35), now_ms=BAKED, terms=TERMS).state is State.REVERTED


def test_whoever_waits_too_long_pauses_and_says_why():
    waiting = replace(WELL, kept=1)
    rollout = open_at(0).judged(waiting, now_ms=1_000 + HOUR - 1, terms=TERMS)
    assert rollout.state is State.RUNNING
    paused = rollout.judged(waiting, now_ms=1_000 + HOUR, terms=TERMS)
    assert paused.state is State.PAUSED
    assert paused.why == "in 1 hours: 1 of 3 sites have tried it, 2 are needed"
    resumed = paused.resumed(now_ms=2 * HOUR)
    assert (resumed.state, resumed.stage, resumed.since_ms) == (State.RUNNING, 0, 2 * HOUR)


def test_an_unclear_sum_is_not_asked_for_again_before_another_bake_time():
    rollout = open_at(0).judged(replace(WELL, kept=1), now_ms=BAKED, terms=TERMS, summed=True)
    assert rollout.due(now_ms=BAKED + 59_999, terms=TERMS) is Due.NOTHING
    assert rollout.due(now_ms=BAKED + 60_000, terms=TERMS) is Due.HEALTH


def test_a_revert_is_signed_before_it_is_over():
    rollout = open_at(1).going_back("bad", now_ms=BAKED)
    assert (rollout.state, rollout.active, rollout.reached) == (State.REVERTED, True, EARLY)
    assert rollout.due(now_ms=BAKED, terms=TERMS) is Due.SIGN
    done = rollout.published(now_ms=BAKED, successor=9)
    assert (done.active, done.successor) == (False, 9)
    assert done.due(now_ms=10**12, terms=TERMS) is Due.NOTHING


def test_nothing_is_taken_back_of_what_nobody_was_offered():
    rollout = candidate().going_back("not this one", now_ms=BAKED, state=State.ABORTED)
    assert (rollout.state, rollout.active, rollout.due(now_ms=0, terms=TERMS)) == (State.ABORTED, False, Due.NOTHING)


def test_what_needs_another_key_waits_for_it_and_goes_on_as_it_was():
    due = open_at(0).judged(WELL, now_ms=BAKED, terms=TERMS)
    waiting = due.needs_approval(now_ms=BAKED)
    assert waiting.due(now_ms=10**12, terms=TERMS) is Due.NOTHING
    going_on = waiting.approved(["k1"], now_ms=BAKED)
    assert (going_on.state, going_on.stage, going_on.due(now_ms=BAKED, terms=TERMS)) == (State.RUNNING, 1, Due.SIGN)
    back = open_at(1).going_back("bad", now_ms=BAKED).needs_approval(now_ms=BAKED)
    assert back.goes_back
    assert back.approved(["k1"], now_ms=BAKED).state is State.REVERTED


@pytest.mark.parametrize(
    "step",
    [
        lambda r: r.paused("why", now_ms=1),
        lambda r: r.resumed(now_ms=1),
        lambda r: r.going_back("why", now_ms=1),
        lambda r: r.approved([], now_ms=1),
        lambda r: r.gated([], {}, now_ms=1),
        lambda r: r.judged(WELL, now_ms=1, terms=TERMS),
    ],
)
def test_what_is_over_stays_over(step):
    with pytest.raises(BadInputError, match="release 8 is refused"):
        step(candidate().gated(["bad"], {}, now_ms=1))


def test_the_last_stage_without_sites_needs_no_health():
    nobody = Rollout.begin(
        8, SHA, previous=0, stages=[Stage(place=Place.ALL, reach=WHOLE_QUEUE, sites=0)], now_ms=1, waived="x"
    )
    assert nobody.published(now_ms=1).state is State.FINISHED


def test_empty_rings_are_passed_over():
    assert [s.place for s in stages.plan({Ring.ALL: sites(4)}, SHA, TERMS)] == [Place.ALL]
    assert [s.place for s in stages.plan({Ring.EARLY: sites(4)}, SHA, TERMS)] == [Place.EARLY, Place.ALL]
    assert [s.sites for s in stages.plan({}, SHA, TERMS)] == [0]


def test_ring_all_grows_by_a_factor():
    planned = stages.plan({Ring.ALL: sites(1000)}, SHA, TERMS)
    assert [stage.reach for stage in planned] == [1000, 3000, 9000, WHOLE_QUEUE]
    assert sum(stage.sites for stage in planned) == 1000
    assert 60 < planned[0].sites < 140


def test_a_small_ring_all_is_let_in_at_once():
    assert len(stages.plan({Ring.ALL: sites(9)}, SHA, TERMS)) == 1
    assert len(stages.plan({Ring.ALL: sites(9)}, SHA, RolloutSettings(min_sites=5, growth=2))) > 1


@given(count=st.integers(0, 60), share=st.floats(0.01, 1), growth=st.floats(1.1, 10), digest=st.binary(min_size=32))
def test_every_site_is_in_one_stage_and_no_step_is_so_small_that_it_speaks_of_one_site(count, share, growth, digest):
    terms = RolloutSettings(first_share=share, growth=growth, min_sites=1)
    sha = digest[:32].hex()
    rings = {Ring.CANARY: sites(70)[60:63], Ring.ALL: sites(count)}
    planned = stages.plan(rings, sha, terms)
    let_in = [stages.members(planned, number, rings, sha) for number in range(len(planned))]
    assert sorted(edge for edges in let_in for edge in edges) == sorted([*rings[Ring.CANARY], *rings[Ring.ALL]])
    assert [len(edges) for edges in let_in] == [stage.sites for stage in planned]
    if count >= terms.min_ring:
        assert all(stage.sites >= terms.min_ring for stage in planned)
    for stage, edges in zip(planned[1:], let_in[1:], strict=True):
        assert all(queue_place(edge, sha) < stage.reach for edge in edges)


def shares():
    return st.floats(0, 1, allow_nan=False)


@st.composite
def healths(draw):
    size = draw(st.integers(0, 10))
    tried = draw(st.integers(0, size))
    back = draw(st.integers(0, tried))
    answers = draw(st.integers(0, 1000))
    return Health(
        sites=size,
        kept=tried - back,
        went_back=back,
        answers=answers,
        errors=draw(shares()) * answers,
        events=draw(st.integers(0, 1000)),
        ndcg_new=draw(shares()),
        ndcg_old=draw(shares()),
    )


@given(
    lookings=st.lists(
        st.one_of(
            healths(), st.sampled_from(["pause", "resume", "abort", "approval", "approve", "wait", "refuse", "hold"])
        ),
        max_size=40,
    ),
    hours=st.lists(st.floats(0, 3), min_size=40, max_size=40),
)
def test_whatever_the_figures_say_a_rollout_moves_in_order_and_never_past_bad_health(lookings, hours):
    rollout, now = candidate(), 1_000
    for looked, later in zip(lookings, hours, strict=False):
        was, now = rollout, now + int(later * HOUR)
        rollout = step(rollout, looked, now)
        assert rollout.history[: len(was.history)] == was.history  # what happened stays told
        assert rollout.stage in {was.stage, was.stage + 1}
        if rollout.stage > was.stage:
            assert not rollout.signed or rollout.stage == len(rollout.stages) - 1
            assert was.stage < 0 or (isinstance(looked, Health) and not looked.faults(TERMS))
            assert was.stage < 0 or looked.tried >= looked.needed(TERMS)
        if isinstance(looked, Health) and was.due(now_ms=now, terms=TERMS) is Due.HEALTH and looked.faults(TERMS):
            assert rollout.goes_back
        if was.goes_back:
            assert rollout.goes_back
        if was.state in OVER and was.signed:
            assert rollout == was
        if rollout.state is State.REFUSED:
            assert rollout.reached is None
        if rollout.state in {State.PAUSED, State.WAITING}:
            assert rollout.due(now_ms=10**15, terms=TERMS) is Due.NOTHING


def step(rollout, looked, now):
    due = rollout.due(now_ms=now, terms=TERMS)
    if due is Due.SIGN:
        return rollout.needs_approval(now_ms=now) if looked == "approval" else rollout.published(now_ms=now)
    if due is Due.GATE and looked in {"refuse", "hold"}:
        return rollout.gated(["bad"] if looked == "refuse" else [], {}, now_ms=now)
    if due is Due.HEALTH and isinstance(looked, Health):
        return rollout.judged(looked, now_ms=now, terms=TERMS, summed=True)
    if due in {Due.GATE, Due.HEALTH} and looked == "wait":
        return rollout.waited("nobody is there", now_ms=now, terms=TERMS)
    ways = {
        "pause": lambda: rollout.paused("a person", now_ms=now),
        "resume": lambda: rollout.resumed(now_ms=now),
        "abort": lambda: rollout.going_back("a person", now_ms=now, state=State.ABORTED),
        "approve": lambda: rollout.approved(["k"], now_ms=now),
    }
    if rollout.active and isinstance(looked, str) and looked in ways:
        with suppress(BadInputError):
            return ways[looked]()
    return rollout
