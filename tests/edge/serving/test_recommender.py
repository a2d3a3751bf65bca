"""An answer comes, whatever is broken or late, and says what it lacks."""

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest

from edge.arranging.scenario import BUILT_IN
from edge.neighbours.neighbours import Neighbours
from edge.neighbours.sums import HalfLives
from edge.records.events import Event, EventType, Item
from edge.serving.degradation import Reason, Rung
from edge.serving.filters import Filter
from edge.serving.fusion import FusionWeights
from edge.serving.query import Query
from edge.serving.release import Loaded
from edge.serving.service import Service

from .models import moody_ranker

NOW_MS = 1_795_000_000_000
DAY_MS = 86_400_000
SLOW, BAD = "i12", "i11"  # items of the moody model


def names(answer):
    return [entry.item for entry in answer.items]


def ask(service, **query):
    return asyncio.run(service.recommend(Query(**query)))


def visit(session, item, *, kind=EventType.VIEW, context=None, day=0):
    return Event(
        event_id=f"{session}-{item}-{day}",
        type=kind,
        user=None,
        item=item,
        time_ms=NOW_MS - day * DAY_MS,
        session=session,
        context=context or {},
    )


@pytest.fixture
def moody(load_release):
    """A release whose model hangs over i12 and fails at i11."""
    return replace(load_release(), ranker=moody_ranker())


@pytest.fixture
def serve(stocked):
    """Make a service with a deadline of its own."""
    made = []

    def make(release=None, **how):
        how = {"deadline_ms": 10_000, **how}
        service = Service(stocked, Loaded.of(stocked, release), draw=bytes, now_ms=lambda: NOW_MS, **how)
        made.append(service)
        return service

    yield make
    for service in made:
        service.close()


@pytest.fixture
def neighbours(stocked, buy):
    """Whoever buys i3 buys i9 with it; in the north they buy i5."""
    pairs = [buy(f"c{n}", item, day=50) for n in range(12) for item in ("i3", "i9")]
    north = [visit(f"n{n}", "i5", kind=EventType.PURCHASE, context={"region": "north"}) for n in range(30)]
    stocked.add_events([*pairs, *north])
    found = Neighbours(stocked, HalfLives(memory_ms=60 * DAY_MS, trend_ms=DAY_MS), now_ms=lambda: NOW_MS)
    found.follow()
    return found


def test_a_visitor_s_session_is_a_past_like_a_user_s(serve, load_release, stocked):
    stocked.add_events([visit("s1", "i11")])
    service = serve(load_release())
    answer = ask(service, session="s1", limit=4)
    assert (answer.rung, answer.reasons) == (Rung.SEQUENCE, ())
    assert {"i10", "i11", "i12"} <= set(names(answer))
    assert ask(service, session="s2").reasons == (Reason.UNKNOWN_SESSION,)


def test_what_stands_on_the_page_is_heard_and_not_shown_again(serve, load_release):
    service = serve(load_release())
    answer = ask(service, user="stranger", items=["i11"], limit=2)
    assert answer.rung is Rung.SEQUENCE
    assert set(names(answer)) <= {"i10", "i12", "i9", "i7"}
    assert "i11" not in names(ask(service, user="ada", items=["i11"], limit=100))


def test_without_a_model_a_stranger_sees_what_goes_with_the_page(serve, neighbours):
    answer = ask(serve(neighbours=neighbours), user="stranger", items=["i3"], limit=1)
    assert names(answer) == ["i9"]
    assert (answer.rung, answer.reasons, answer.skipped) == (Rung.COMPANIONS, (Reason.NO_RELEASE,), ())


def test_of_a_stranger_only_the_region_is_known(serve, neighbours):
    service = serve(neighbours=neighbours)
    answer = ask(service, user="stranger", context={"region": "north"}, limit=1)
    assert names(answer) == ["i5"]
    assert (answer.rung, answer.reasons) == (Rung.CONTEXT, (Reason.NO_RELEASE, Reason.UNKNOWN_USER))
    assert ask(service, user="stranger").rung is Rung.POPULARITY


def test_books_that_cannot_be_read_are_named_and_the_answer_comes(serve, neighbours, stocked, load_release):
    with stocked.writing() as db:
        db.execute("DROP TABLE neighbour_lists")
    service = serve(neighbours=neighbours)
    answer = ask(service, user="stranger", items=["i3"], limit=3)
    assert (answer.rung, len(answer.items)) == (Rung.POPULARITY, 3)
    assert answer.skipped == ("companions",)
    assert Reason.COMPANIONS_SILENT in answer.reasons
    heard = replace(FusionWeights.default(), weights={**FusionWeights.default().weights, "companion": 1.0})
    service.swap(Loaded.of(stocked, load_release(), heard))
    answer = ask(service, user="ada", limit=3)
    assert (answer.rung, answer.reasons) == (Rung.SEQUENCE, (Reason.COMPANIONS_SILENT,))


def test_companions_are_heard_beside_the_model_once_the_site_has_found_them_worth_it(
    serve, neighbours, stocked, load_release
):
    service = serve(load_release(), neighbours=neighbours)

    def scores(weight):
        weights = replace(FusionWeights.default(), weights={**FusionWeights.default().weights, "companion": weight})
        service.swap(Loaded.of(stocked, service.loaded.release, weights))
        return {entry.item: entry.score for entry in ask(service, history=["i3"], limit=12).items}

    deaf, hearing = scores(0.0), scores(5.0)
    assert hearing["i9"] > deaf["i9"] + 0.5
    assert hearing["i4"] == pytest.approx(deaf["i4"], abs=1e-4)


def test_a_model_that_hangs_is_stopped_at_the_deadline_and_named(serve, moody):
    service = serve(moody, deadline_ms=40)
    began = time.monotonic()
    answer = ask(service, history=[SLOW, SLOW], limit=3)
    assert time.monotonic() - began < 5  # it would compute for years
    assert (answer.rung, answer.reasons, answer.skipped) == (Rung.HABITS, (Reason.MODEL_SLOW,), ("recommend",))
    assert len(answer.items) == 3
    assert service.tally.errors == 1


def test_the_loop_answers_others_while_a_hanging_model_is_left_alone(serve, moody):
    """After some failures it is not even begun; and when it is well, it is heard again."""
    clock = [0.0]
    service = serve(moody, clock=lambda: clock[0])
    for _ in range(5):
        assert ask(service, history=[BAD]).reasons == (Reason.MODEL_ERROR,)
    assert ask(service, history=["i1"]).reasons == (Reason.MODEL_PAUSED,)
    assert b'hanse_edge_submodel_state{submodel="recommend"} 2.0' in service.metrics.page()
    clock[0] += 6
    assert ask(service, history=["i1"]).reasons == ()
    assert b'hanse_edge_submodel_state{submodel="recommend"} 0.0' in service.metrics.page()


def test_another_model_does_not_atone_for_the_one_before(serve, moody, load_release, stocked):
    service = serve(moody)
    for _ in range(5):
        ask(service, history=[BAD])
    service.swap(Loaded.of(stocked, load_release(9)))
    assert ask(service, history=["i1"]).reasons == ()


def test_a_shopper_in_a_hurry_gets_an_answer_and_harms_no_release(serve, moody):
    service = serve(moody)
    for _ in range(10):
        answer = ask(service, history=[SLOW], within_ms=5, limit=2)
        assert (answer.reasons, len(answer.items)) == ((Reason.MODEL_SLOW,), 2)
    assert ask(service, history=["i1"]).reasons == ()
    assert service.tally.errors == 0


def test_asked_together_or_alone_the_answer_is_the_same(serve, load_release, stocked, buy, rng):
    events = [buy(f"v{n}", f"i{rng.integers(1, 13)}", day=day) for n in range(40) for day in range(6)]
    stocked.add_events(events)
    service = serve(load_release())
    queries = [Query(user=f"v{n}", limit=5, filter=Filter(category=["tea"] if n % 2 else None)) for n in range(40)]

    async def together():
        return await asyncio.gather(*(service.recommend(query) for query in queries))

    for query, answer in zip(queries, asyncio.run(together()), strict=True):
        alone = service.ask(service.loaded, query)
        assert names(answer) == names(alone)
        assert [e.score for e in answer.items] == pytest.approx([e.score for e in alone.items], abs=1e-4)


def test_an_item_listed_while_the_model_is_waited_for_breaks_nothing(serve, load_release, stocked):
    service = serve(load_release())

    async def run():
        waiting = asyncio.create_task(service.recommend(Query(history=["i11"], limit=100)))
        await asyncio.sleep(0)  # it has read what it needs and waits for the model
        stocked.put_items([Item(item="brand-new", title="Just in")])
        service.follow_items()
        return await waiting

    answer = asyncio.run(run())
    assert answer.reasons == ()
    assert "brand-new" in names(answer)


def test_a_filter_that_leaves_little_is_filled_from_all_that_it_leaves(serve, load_release):
    service = serve(load_release())
    for category, count in (("fish", 6), ("pie", 1), (None, 13)):
        answer = ask(service, history=["i11"], filter=Filter(category=category and [category]), limit=50)
        assert len(names(answer)) == count


def test_votes_count_ranks_and_not_scores(serve, load_release):
    voting = replace(BUILT_IN["home"], fusion="votes")
    answer = ask(serve(load_release()), user="ada", limit=13, variant=voting)
    scores = [entry.score for entry in answer.items]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] <= scores[0] <= 3 / 61 + 1e-6


def test_a_scenario_may_be_deaf_to_popularity(serve, load_release):
    quiet = replace(BUILT_IN["home"], voices=("sequence",))
    service = serve(load_release())
    loud = ask(service, history=["i1"], limit=13)
    deaf = ask(service, history=["i1"], limit=13, variant=quiet)
    assert names(deaf).index("i7") > names(loud).index("i7")


def test_scores_asked_for_afterwards_are_those_of_the_answer(serve, load_release):
    """Explanations ask again, and must be told what the shopper saw."""
    service = serve(load_release())
    query = Query(user="ada", limit=100)
    answer = ask(service, user="ada", limit=100)
    places = np.array([service.loaded.shelf.place(name) for name in names(answer)])
    again = service.score(service.loaded, service.past(service.loaded, query), places)
    assert again == pytest.approx([entry.score for entry in answer.items], abs=1e-4)


def test_an_erased_user_s_habits_are_in_no_memory(serve, load_release):
    service = serve(load_release())
    ask(service, user="ada")
    assert service.recommender.nbytes() > 0
    before = service.recommender._remembered.nbytes
    service.forget(["ada"])
    assert before > service.recommender._remembered.nbytes == 0


def test_a_page_with_several_lists_asks_the_model_once(serve, load_release, stocked, buy):
    service = serve(load_release())
    runs = Counting(service.loaded.release.ranker)
    first = names(ask(service, user="ada", limit=3))
    assert names(ask(service, user="ada", limit=3)) == first
    service.score(service.loaded, service.past(service.loaded, Query(user="ada")), np.array([1, 2]))
    assert runs.count == 1
    stocked.add_events([buy("ada", "i12", day=95)])
    assert names(ask(service, user="ada", limit=3)) != first
    assert runs.count == 2


class Counting:
    """Counts how often the session of a model runs."""

    def __init__(self, ranker):
        self.count, self.session = 0, ranker._session
        ranker._session = self

    def run(self, *asked):
        self.count += 1
        return self.session.run(*asked)


def test_what_sells_in_a_region_is_offered_there_though_it_sells_nowhere_else(serve, stocked, buy):
    """It is not among the best sellers of the whole shop, and a filter or a long catalogue would have left it out."""
    stocked.put_items([Item(item=f"p{number}") for number in range(150)])
    stocked.add_events([buy(f"b{n}-{number}", f"p{number}") for number in range(150) for n in range(2)])
    stocked.add_events([visit("n1", "i5", kind=EventType.PURCHASE, context={"region": "north"})])
    found = Neighbours(stocked, HalfLives(memory_ms=60 * DAY_MS, trend_ms=DAY_MS), now_ms=lambda: NOW_MS)
    found.follow()
    service = serve(neighbours=found)
    answer = ask(service, user="stranger", context={"region": "north"}, limit=1)
    assert (names(answer), answer.rung) == (["i5"], Rung.CONTEXT)
