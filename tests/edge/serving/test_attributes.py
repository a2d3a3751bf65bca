"""What a question asks of all items is read beside the event loop, and nothing that changes meanwhile is lost."""

import asyncio

import numpy as np
import pytest

from edge.records.events import Item
from edge.serving.filters import Filter
from edge.serving.query import Query


@pytest.fixture
def service(make_service, stocked):
    stocked.put_items([Item(item="i1", attributes={"grams": 50, "vegan": True}), Item(item="i2")])
    return make_service()


def grams(service, item):
    shelf = service.loaded.shelf
    return shelf.column("grams").numbers[shelf.place(item)]


def test_who_has_read_ahead_does_not_wait_for_the_store(service, stocked, monkeypatch):
    asyncio.run(service.know({"grams", "vegan", "heard of by nobody"}))
    monkeypatch.setattr(stocked, "reading", None)  # whoever reads the store now fails
    shelf = service.loaded.shelf
    assert shelf.attributes() == {"grams", "vegan"}
    assert grams(service, "i1") == 50
    assert np.isnan(grams(service, "i2"))
    assert shelf.column("vegan").names[1:] == ["true"]
    assert shelf.column("heard of by nobody") is None
    asyncio.run(service.know({"grams"}))


def test_what_changes_while_it_is_read_counts(service, stocked):
    numbering = service.loaded.shelf.numbering
    reading = numbering.begin_reading({"grams", "vegan"})
    reading.read()
    stocked.put_items(
        [Item(item="i1", attributes={"grams": 75}), Item(item="new", attributes={"grams": 5, "tasty": True})]
    )
    assert service.follow_items()
    numbering.finish_reading(reading)
    assert (grams(service, "i1"), grams(service, "new")) == (75, 5)
    assert service.loaded.shelf.column("vegan").codes[service.loaded.shelf.place("i1")] == 0
    assert "tasty" in service.loaded.shelf.attributes()


def test_a_number_that_has_become_a_text_meanwhile_is_read_anew(service, stocked):
    numbering = service.loaded.shelf.numbering
    reading = numbering.begin_reading({"grams"})
    reading.read()
    stocked.put_items([Item(item="i2", attributes={"grams": "a pinch"})])
    assert service.follow_items()
    numbering.finish_reading(reading)
    assert numbering.lacks({"grams"})
    column = service.loaded.shelf.column("grams")
    assert column.names[column.codes[service.loaded.shelf.place("i2")]] == "a pinch"


def test_a_name_under_which_nothing_is_said_is_not_read_again_and_again(service, stocked):
    stocked.put_items([Item(item="i3", attributes={"nothing": None})])
    asyncio.run(service.know({"nothing"}))
    assert not service.loaded.shelf.numbering.lacks({"nothing"})


def test_many_who_ask_the_same_read_it_once(service, monkeypatch):
    numbering, begun = service.loaded.shelf.numbering, []
    begin = numbering.begin_reading
    monkeypatch.setattr(numbering, "begin_reading", lambda names: begun.append(names) or begin(names))

    async def all_at_once():
        await asyncio.gather(*(service.know({"grams"}) for _ in range(5)))

    asyncio.run(all_at_once())
    assert begun == [{"grams"}]


def test_reading_that_fails_is_over_and_the_next_one_tries_again(service, stocked, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(stocked, "reading", None)
        with pytest.raises(TypeError):
            asyncio.run(service.know({"grams"}))
    asyncio.run(service.know({"grams"}))
    answer = asyncio.run(service.recommend(Query(history=["i7"], filter=Filter(where="grams > 40"))))
    assert [item.item for item in answer.items] == ["i1"]


def test_what_scenarios_ask_for_is_read_before_anybody_asks(service, stocked, monkeypatch):
    stocked.put_document("scenario", "light", {"name": "light", "filter": {"where": "grams < 100"}})

    async def look():
        finished, numbering = asyncio.Event(), service.loaded.shelf.numbering
        finish = numbering.finish_reading
        monkeypatch.setattr(numbering, "finish_reading", lambda reading: finish(reading) or finished.set())
        watching = asyncio.create_task(service.watch())
        await asyncio.wait_for(finished.wait(), 10)
        assert not numbering.lacks({"grams"})
        watching.cancel()

    asyncio.run(look())
