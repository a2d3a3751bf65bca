"""What is like an item is looked for once, beside the event loop where that takes long."""

import asyncio
import threading

import numpy as np
import pytest

from edge.serving import nearest, ranker
from edge.serving.degradation import Rung
from edge.serving.query import Query
from edge.serving.release import Loaded

EVERYTHING = np.ones(14, bool)


@pytest.fixture
def loaded(stocked, load_release):
    return Loaded.of(stocked, load_release())


@pytest.fixture
def looks(monkeypatch):
    """In which threads the whole table was gone through."""
    found, real = [], ranker.Ranker.nearest

    def noting(self, direction, *, k):
        found.append(threading.get_ident())
        return real(self, direction, k=k)

    monkeypatch.setattr(ranker.Ranker, "nearest", noting)
    return found


def like(loaded, place, mask=EVERYTHING, *, k=3):
    return loaded.vectors.similar(place, mask, k=k)[0].tolist()


def test_the_table_is_gone_through_once_for_an_item(loaded, looks):
    assert set(like(loaded, 6, k=2)) == {5, 7}
    mask = EVERYTHING.copy()
    mask[[5, 7]] = False
    assert set(like(loaded, 6, mask, k=2)) == {4, 8}
    assert len(looks) == 1
    assert like(loaded, 3, k=2)
    assert len(looks) == 2


def test_a_filter_that_leaves_none_of_the_nearest_finds_those_further_away(loaded, monkeypatch):
    monkeypatch.setattr(nearest, "DEEP", 3)
    mask = np.zeros(14, bool)
    mask[[1, 2, 12]] = True
    found, cosines = loaded.vectors.similar(6, mask, k=5)
    assert found.tolist() == [2, 1, 12]
    assert (np.diff(cosines) < 0).all()


def test_the_items_asked_for_last_are_remembered(loaded, looks, monkeypatch):
    monkeypatch.setattr(nearest, "_KEPT", 2)
    for place in (1, 2, 1, 3, 1, 2):
        like(loaded, place)
    assert len(looks) == 4  # 1, 2, 3, and 2 again
    loaded.vectors.nearest.forget()
    like(loaded, 1)
    assert len(looks) == 5


@pytest.mark.parametrize("long", [True, False])
def test_a_long_table_is_gone_through_beside_the_loop(make_service, load_release, looks, monkeypatch, long):
    monkeypatch.setattr(ranker, "_LONG", 0 if long else 1 << 30)
    service = make_service(load_release())

    async def both():
        return await asyncio.gather(service.similar("i6", limit=2), service.similar("i6", limit=2))

    answers = asyncio.run(both())
    assert [{one.item for one in answer.items} for answer in answers] == [{"i5", "i7"}] * 2
    assert answers[0].rung is Rung.SEQUENCE
    assert len(looks) == 1
    assert (looks[0] != threading.get_ident()) is long


def test_a_product_page_waits_for_it_beside_the_loop_too(make_service, load_release, looks, monkeypatch):
    monkeypatch.setattr(ranker, "_LONG", 0)
    service = make_service(load_release())
    answer = asyncio.run(service.recommend(Query(user="ada", limit=3, scenario="product", items=["i6"])))
    assert answer.items
    assert len(looks) == 1
    assert looks[0] != threading.get_ident()


def test_a_page_whose_scenario_asks_for_no_likes_waits_for_none(make_service, load_release, looks):
    service = make_service(load_release())
    asyncio.run(service.recommend(Query(user="ada", limit=3, scenario="basket", items=["i6"])))
    assert looks == []
