"""What a shop changes is on the shelf at once, at the place where it was."""

import math

import numpy as np
import pytest

from edge.records.events import Item
from edge.records.store import Store
from edge.serving.shelf import MOST_FOLLOWED, Shelf


@pytest.fixture
def shelf(stocked, catalogue):
    return Shelf.of(stocked, catalogue)


def at(shelf, item):
    """What the columns say of an item."""
    place = shelf.place(item)
    return {
        "offered": bool(shelf.offered[place]),
        "category": shelf.categories[shelf.category[place]],
        "brand": shelf.brands[shelf.brand[place]],
        "price": float(shelf.price[place]),
        "stock": float(shelf.stock[place]),
        "title": shelf.title(place),
    }


def test_what_the_site_says_stands_before_the_catalogue(shelf, stocked):
    assert at(shelf, "i1")["price"] == 1.5  # the catalogue's
    stocked.put_items([Item(item="i1", title="Tea of ours", category="drinks", brand="mine", price=2.25, stock=3)])
    assert shelf.follow()
    expected = {"category": "drinks", "brand": "mine", "price": 2.25, "stock": 3.0, "offered": True}
    assert at(shelf, "i1") == {**expected, "title": "Item i1"}
    stocked.put_items([Item(item="i1")])
    assert shelf.follow()
    expected = {"category": "tea", "brand": "own", "price": 1.5, "stock": math.inf, "offered": True}
    assert at(shelf, "i1") == {**expected, "title": "Item i1"}


def test_a_price_change_moves_nothing_else(shelf, stocked):
    before = {name: (shelf.place(name), at(shelf, name)) for name in ("i1", "i2", "own-pie")}
    numbering, version = shelf.numbering, shelf.version
    stocked.put_items([Item(item="own-pie", title="Our own pie", category="pie", price=4.0)])
    assert shelf.follow()
    assert shelf.numbering is numbering
    assert shelf.version > version
    after = {name: (shelf.place(name), at(shelf, name)) for name in before}
    assert after["own-pie"][1]["price"] == 4
    assert [after[name] for name in ("i1", "i2")] == [before[name] for name in ("i1", "i2")]
    assert after["own-pie"][0] == before["own-pie"][0]


def test_nothing_new_changes_no_version(shelf):
    version = shelf.version
    assert shelf.follow()
    assert shelf.version == version


def test_what_is_sold_out_is_not_offered_until_it_is_back(shelf, stocked):
    for stock, offered in ((0, False), (2, True)):
        stocked.put_items([Item(item="own-pie", stock=stock)])
        shelf.follow()
        assert at(shelf, "own-pie")["offered"] is offered


def test_what_is_taken_off_the_list_keeps_its_name_and_nothing_else(shelf, stocked):
    about = {"title": "Mine", "category": "drinks", "brand": "mine"}
    stocked.put_items(
        [Item(item=name, **about, price=2.25, stock=3, attributes={"grams": 50}) for name in ("i1", "own-pie")]
    )
    shelf.follow()
    assert shelf.column("grams").numbers[shelf.place("own-pie")] == 50
    stocked.remove_items(["i1", "own-pie"])
    assert shelf.follow()
    gone = {"offered": False, "stock": math.inf, "category": "drinks", "brand": "mine"}
    assert at(shelf, "i1") == {**gone, "price": 1.5, "title": "Item i1"}
    assert at(shelf, "own-pie") == {**gone, "price": pytest.approx(math.nan, nan_ok=True), "title": "Mine"}
    assert np.isnan(shelf.column("grams").numbers[shelf.place("own-pie")])


def test_a_new_item_gets_a_place_after_all_others(shelf, stocked):
    size = shelf.size
    stocked.put_items([Item(item=f"new {number}", title=f"New {number}", brand="own") for number in range(200)])
    assert shelf.follow()
    assert [shelf.place(f"new {number}") for number in range(200)] == list(range(size, size + 200))
    assert (shelf.size, len(shelf.offered), len(shelf.bought)) == (size + 200,) * 3
    assert (shelf.name(size + 7), shelf.title(size + 7)) == ("new 7", "New 7")
    assert shelf.bought[shelf.place("i7")] == 9


def test_an_item_that_was_only_seen_before_it_was_listed_keeps_its_place(shelf, stocked, buy):
    stocked.add_events([buy("ada", "a rumour"), buy("ada", "hearsay")])
    stocked.put_items([Item(item="hearsay", title="Hearsay")])
    assert shelf.follow()
    shelf.note_purchase("a rumour")
    assert shelf.name(shelf.place("a rumour")) == "a rumour"
    assert shelf.title(shelf.place("hearsay")) == "Hearsay"
    assert not shelf.offered[shelf.place("a rumour")]
    keys = np.array([key for key, name in stocked.item_names().items() if name in {"a rumour", "hearsay"}])
    assert sorted(shelf.name(place) for place in shelf.places(keys)) == ["a rumour", "hearsay"]


def test_a_shop_that_begins_to_list_its_items_sells_nothing_else(tmp_path, catalogue, buy):
    with Store.open(tmp_path / "new.db") as store:
        store.add_events([buy("ada", "i1"), buy("ada", "pear")])
        shelf = Shelf.of(store, catalogue)
        assert shelf.offered.sum() == 13
        store.put_items([Item(item="pear"), Item(item="i2")])
        assert shelf.follow()
        assert np.flatnonzero(shelf.offered).tolist() == [2, shelf.place("pear")]


def test_too_much_for_one_moment_is_taken_in_bit_by_bit(shelf, stocked):
    names = [f"new {number}" for number in range(MOST_FOLLOWED + 1)]
    stocked.put_items([Item(item=name) for name in names])
    stocked.put_items([Item(item="last", title="Last")])
    version = shelf.version
    assert not shelf.follow()
    assert (shelf.version, shelf.place("new 1")) == (version, None)
    changed = shelf.changed()
    assert len(changed) == MOST_FOLLOWED + 2
    shelf.take_in(changed[:100])
    assert [one.key for one in shelf.changed()] == [one.key for one in changed[100:]]
    assert shelf.follow()
    assert [shelf.place(name) is not None for name in names] == [True] * len(names)
    assert shelf.title(shelf.place("last")) == "Last"
    assert shelf.changed() == []


def test_attributes_are_numbers_or_words_and_follow(shelf, stocked):
    stocked.put_items(
        [
            Item(item="i1", attributes={"grams": 50, "organic": True, "tags": ["new", "vegan"]}),
            Item(item="own-pie", attributes={"grams": 300.5, "organic": False, "colour": "gold"}),
        ]
    )
    shelf.follow()
    one, pie = shelf.place("i1"), shelf.place("own-pie")
    grams, organic = shelf.column("grams"), shelf.column("organic")
    assert [grams.numbers[place] for place in (one, pie)] == [50, 300.5]
    assert np.isnan(grams.numbers[shelf.place("i2")])
    assert [organic.names[organic.codes[place]] for place in (one, pie, shelf.place("i2"))] == ["true", "false", ""]
    assert shelf.column("tags").names[1:] == ['["new", "vegan"]']
    assert shelf.column("weight") is None
    stocked.put_items([Item(item="i1", attributes={"grams": 75, "weight": "light"}), Item(item="fresh")])
    shelf.follow()
    assert shelf.column("grams").numbers[one] == 75
    assert shelf.column("organic").codes[one] == 0
    assert shelf.column("weight").codes[one] == 1
    assert len(shelf.column("grams").numbers) == len(shelf.column("organic").codes) == shelf.size


def test_an_attribute_that_turns_from_numbers_to_words_is_read_as_words(shelf, stocked):
    stocked.put_items([Item(item="i1", attributes={"size": 7}), Item(item="i2", attributes={"size": 8})])
    shelf.follow()
    assert shelf.column("size").numbers is not None
    stocked.put_items([Item(item="i2", attributes={"size": "large"})])
    shelf.follow()
    column = shelf.column("size")
    assert column.numbers is None
    assert [column.names[column.codes[shelf.place(item)]] for item in ("i1", "i2")] == ["7", "large"]


def test_a_name_with_quotes_is_a_name(shelf, stocked):
    name = "a\"] OR '1'='1"
    stocked.put_items([Item(item="i1", attributes={name: 1})])
    shelf.follow()
    assert shelf.column(name).numbers[shelf.place("i1")] == 1


def test_titles_need_no_look_into_the_books(shelf, stocked):
    place = shelf.place("own-pie")
    stocked.close()
    assert shelf.title(place) == "Our own pie"
