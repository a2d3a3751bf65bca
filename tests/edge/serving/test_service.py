"""What a shop gets to see: the right items, and the truth about how they were found."""

import asyncio

import numpy as np
import pytest

from edge.records.events import EventType, Item
from edge.records.store import Store
from edge.serving.degradation import Reason, Rung
from edge.serving.filters import Filter
from edge.serving.query import Query
from edge.serving.release import Loaded, Release
from edge.serving.service import UnknownItemError
from protocol.errors import UntrustedReleaseError


def names(answer):
    return [entry.item for entry in answer.items]


def asked(service, query):
    return asyncio.run(service.recommend(query))


def test_before_the_first_release_popularity_answers_and_says_so(make_service):
    answer = asked(make_service(), Query(user="stranger", limit=3))
    assert names(answer)[0] == "i7"
    assert answer.release is None
    assert answer.rung is Rung.POPULARITY
    assert answer.reasons == (Reason.NO_RELEASE, Reason.UNKNOWN_USER)


def test_a_habit_is_served_before_the_first_release(make_service):
    answer = asked(make_service(), Query(user="ada", limit=3))
    assert names(answer)[0] == "i2"
    assert (answer.rung, answer.reasons) == (Rung.HABITS, (Reason.NO_RELEASE,))


def test_the_model_is_heard(make_service, load_release):
    answer = asked(make_service(load_release(7)), Query(history=["i11"], limit=4))
    assert {"i10", "i11", "i12"} <= set(names(answer))
    assert (answer.release, answer.rung, answer.reasons) == (7, Rung.SEQUENCE, ())


def test_an_event_posted_now_changes_the_next_answer(make_service, load_release, buy):
    service = make_service(load_release())
    before = names(asked(service, Query(user="eve", limit=3)))
    asyncio.run(service.add_events([buy("eve", "i12", day=90)]))
    after = asked(service, Query(user="eve", limit=3))
    assert names(after)[0] == "i12" != before[0]
    assert after.reasons == ()


def test_unknown_user_gets_popularity_and_is_told(make_service, load_release):
    answer = asked(make_service(load_release()), Query(user="stranger", limit=2))
    assert answer.reasons == (Reason.UNKNOWN_USER,)
    assert names(answer)[0] == "i7"


def test_history_of_unknown_items_only_is_said_to_be_unknown(make_service, load_release):
    answer = asked(make_service(load_release()), Query(history=["nobody", "knows"], limit=2))
    assert answer.reasons == (Reason.UNKNOWN_ITEMS,)
    assert len(answer.items) == 2


def test_private_item_crashes_nothing_and_can_be_recommended(make_service, load_release, buy):
    service = make_service(load_release())
    asyncio.run(service.add_events([buy("zoe", "own-pie", day=day) for day in (80, 90)]))
    answer = asked(service, Query(user="zoe", limit=5))
    assert names(answer)[0] == "own-pie"
    assert answer.items[0].title == "Our own pie"
    assert answer.reasons == (Reason.NO_SHARED_ITEMS,)
    asyncio.run(service.add_events([buy("zoe", "i3", day=91)]))
    mixed = asked(service, Query(user="zoe", limit=5))
    assert mixed.reasons == ()
    assert {"own-pie", "i3"} <= set(names(mixed))


def test_filter_holds_and_is_filled_from_the_model(make_service, load_release):
    answer = asked(make_service(load_release()), Query(history=["i11"], filter=Filter(category=["fish"]), limit=12))
    assert set(names(answer)) == {"i2", "i4", "i6", "i8", "i10", "i12"}
    assert set(names(answer)[:2]) <= {"i10", "i12", "i8"}


def test_a_category_nobody_has_gives_an_empty_answer(make_service, load_release):
    assert names(asked(make_service(load_release()), Query(user="ada", filter=Filter(category=["cars"])))) == []


def test_excluded_items_stay_out_whatever_rung_answers(make_service, load_release):
    for service in (make_service(), make_service(load_release())):
        answer = asked(service, Query(user="ada", exclude=["i2", "i7", "unheard-of"], limit=100))
        assert len(answer.items) == 11
        assert not {"i2", "i7"} & set(names(answer))


def test_what_is_sold_out_or_not_sold_here_is_not_recommended(tmp_path, load_release, buy):
    with Store.open(tmp_path / "small.db") as store:
        store.put_items([Item(item="i1", stock=0), Item(item="i2", stock=5), Item(item="i3")])
        store.add_events([buy("ada", "i1"), buy("ada", "i1", day=1)])
        loaded = Loaded.of(store, load_release())
        assert loaded.shelf.allowed(None, ()).nonzero()[0].tolist() == [2, 3]


def test_no_item_stands_twice(make_service, load_release):
    answer = asked(make_service(load_release()), Query(user="ada", limit=100))
    assert len(set(names(answer))) == len(answer.items) == 13
    assert [e.score for e in answer.items] == sorted((e.score for e in answer.items), reverse=True)


def test_swap_changes_the_release_between_two_answers(make_service, load_release, stocked):
    service = make_service(load_release(1))
    assert asked(service, Query(user="ada")).release == 1
    flipped = np.zeros((13, 4))
    flipped[1:, 0] = [1, -1] * 6
    service.swap(Loaded.of(stocked, load_release(2, vectors=flipped)))
    answer = asked(service, Query(history=["i1"], limit=3))
    assert answer.release == 2
    assert set(names(answer)) <= {"i1", "i3", "i5", "i7", "i9", "i11"}


def test_a_model_that_breaks_while_serving_is_named_not_raised(make_service, load_release):
    release = load_release()
    service = make_service(release)
    # A real failure of the real session: rows beyond its table, as after a mix-up of catalogues.
    release.ranker._session = _Broken(release)
    answer = asked(service, Query(user="ada", limit=3))
    assert answer.reasons == (Reason.MODEL_ERROR,)
    assert names(answer)[0] == "i2"


class _Broken:
    """The same session, asked for rows that do not exist."""

    def __init__(self, release):
        self._real = release.ranker._session

    def run(self, outputs, inputs, *options):
        return self._real.run(outputs, {**inputs, "history": inputs["history"] + 10_000}, *options)


def test_similar_names_neighbours(make_service, load_release):
    answer = asyncio.run(make_service(load_release()).similar("i6", limit=2))
    assert set(names(answer)) == {"i5", "i7"}
    assert answer.rung is Rung.SEQUENCE


def test_similar_to_a_private_item_stays_in_its_category(make_service, load_release, stocked):
    stocked.put_items([Item(item="own-tart", category="pie")])
    answer = asyncio.run(make_service(load_release()).similar("own-tart", limit=5))
    assert names(answer) == ["own-pie"]
    assert answer.reasons == (Reason.PRIVATE_ITEM,)


def test_similar_to_what_nobody_knows_is_an_error(make_service, load_release):
    with pytest.raises(UnknownItemError):
        asyncio.run(make_service(load_release()).similar("i99", limit=5))


def test_event_of_an_item_that_is_not_listed_is_refused(make_service, stocked, buy):
    service, before = make_service(), stocked.event_count()
    with pytest.raises(UnknownItemError):
        asyncio.run(service.add_events([buy("ada", "i1", day=50), buy("ada", "ghost")]))
    assert stocked.event_count() == before


def test_events_of_many_requests_are_each_answered_for_themselves(make_service, buy):
    service = make_service()

    async def at_once():
        own = [service.add_events([buy(f"user{n}", "i1")]) for n in range(40)]
        return await asyncio.gather(*own, service.add_events([buy("ada", "i2", day=0)]))

    *fresh, echo = asyncio.run(at_once())
    assert all((outcome.added, outcome.duplicates) == (1, 0) for outcome in fresh)
    assert (echo.added, echo.duplicates) == (0, 1)


def test_first_purchase_of_a_new_shop_is_popular_at_once(tmp_path, buy):
    from edge.serving.service import Service

    with Store.open(tmp_path / "new.db") as store:
        service = Service(store, Loaded.of(store, None), draw=bytes, now_ms=lambda: 0)
        assert asked(service, Query(user="x")).items == []
        asyncio.run(service.add_events([buy("ada", "first-ever"), buy("ada", "seen", type=EventType.VIEW)]))
        assert names(asked(service, Query(user="stranger", limit=1))) == ["first-ever"]
        service.close()


def test_a_resent_batch_counts_its_new_purchases_and_no_others(make_service, buy):
    service = make_service()
    asyncio.run(service.add_events([buy("u1", "i7", day=1), buy("u99", "i7")]))  # the first is known already
    asyncio.run(service.look_again())
    assert service.loaded.shelf.bought[service.loaded.shelf.place("i7")] == 10


def test_many_items_at_once_are_all_there_and_answers_pass_in_between(make_service, load_release):
    service = make_service(load_release())
    half_way = []

    async def bystander():
        while service.loaded.shelf.place("new 999") is None:
            half_way.append(service.loaded.shelf.place("new 0") is not None)
            await asyncio.sleep(0)

    async def run():
        beside = asyncio.create_task(bystander())
        given = [Item(item=f"new {number}", category="pie") for number in range(1_000)]
        assert await service.change(lambda store: store.put_items(given)) == 1_000
        await beside

    asyncio.run(run())
    assert half_way.count(True) >= 2
    assert service.loaded.shelf.size == 14 + 1_000


def test_a_changed_price_is_known_to_the_next_answer(make_service, load_release):
    service = make_service(load_release())
    asyncio.run(service.change(lambda store: store.put_items([Item(item="own-pie", stock=0)])))
    assert "own-pie" not in names(service.ask(service.loaded, Query(user="ada", limit=100)))


def test_what_another_process_imports_is_sold_without_a_restart(make_service, load_release, tmp_path):
    service = make_service(load_release())
    assert service.loaded.shelf.place("new-pie") is None
    with Store.open(tmp_path / "store.db") as other:
        other.put_items([Item(item="new-pie", category="pie")])
    asyncio.run(service.look_again())
    assert {"new-pie"} <= set(names(asked(service, Query(user="ada", filter=Filter(category=["pie"])))))


def test_a_bundle_of_another_catalogue_is_refused(make_bundle, catalogue):
    directory = make_bundle()
    text = (directory / "card.json").read_text().replace(catalogue.sha256, "0" * 64)
    (directory / "card.json").write_text(text)
    with pytest.raises(UntrustedReleaseError, match="catalogue"):
        Release.load(directory, catalogue, version=1, sha256="")
