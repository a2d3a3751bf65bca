"""Filters as a shop writes them, over real items in a real store."""

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from edge.records.events import Item
from edge.records.store import Store
from edge.serving.filters import ANYTHING, Filter, Range, allowed, matching, passing
from edge.serving.shelf import Shelf
from protocol.errors import BadInputError

TEAS = [
    Item(
        item="green",
        category="tea",
        brand="acme",
        price=4.0,
        stock=3,
        attributes={"vegan": True, "tags": ["bio", "new"]},
    ),
    Item(item="black", category="tea", brand="own", price=6.0, stock=0, attributes={"vegan": True, "caffeine": 40}),
    Item(item="pie", category="pie", brand="own", price=12.5, attributes={"vegan": False, "caffeine": 0, "size": "XL"}),
    Item(item="cup", category="cup", brand="acme", attributes={"size": 3, "tags": ["new"]}),
    Item(item="gift", price=0.0, stock=1),
]


@pytest.fixture
def stall(store):
    store.put_items(TEAS)
    return store


@pytest.fixture
def shelf(stall):
    return Shelf.of(stall, None)


def found(shelf, wanted, exclude=()):
    mask = allowed(shelf, wanted, exclude)
    return {shelf.name(place) for place in range(1, shelf.size) if mask[place]}


SOLD = {"green", "pie", "cup", "gift"}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, SOLD),
        ({"category": ["tea", "cup"]}, {"green", "cup"}),
        ({"category": []}, set()),
        ({"category": ["unheard of"]}, set()),
        ({"brand": ["own"]}, {"pie"}),
        ({"price": {"min": 4, "max": 12.5}}, {"green", "pie"}),
        ({"price": {"max": 4}}, {"green", "gift"}),
        ({"price": {}}, {"green", "pie", "gift"}),
        ({"in_stock": True}, SOLD),
        ({"attributes": {"vegan": True}}, {"green"}),
        ({"attributes": {"vegan": [True, False]}}, {"green", "pie"}),
        ({"attributes": {"tags": "new"}}, {"green", "cup"}),
        ({"attributes": {"tags": ["bio", "old"]}}, {"green"}),
        ({"attributes": {"caffeine": {"max": 10}}}, {"pie"}),
        ({"attributes": {"caffeine": 0}}, {"pie"}),
        ({"attributes": {"size": "XL"}}, {"pie"}),
        ({"attributes": {"size": {"min": 1}}}, {"cup"}),
        ({"attributes": {"vegan": True, "caffeine": 40}}, set()),
        ({"where": "price < 5 and not vegan == True"}, {"gift"}),
        ({"where": '"new" in tags and brand == "acme"'}, {"green", "cup"}),
        ({"where": "price is None"}, {"cup"}),
        ({"where": "stock > 1000"}, {"pie", "cup"}),
        ({"items": ["pie", "cup", "nobody", "black"]}, {"pie", "cup"}),
        ({"category": ["tea"], "brand": ["acme"], "where": "price < 4"}, set()),
    ],
)
def test_a_filter_leaves_what_it_says(shelf, wanted, expected):
    checked = TypeAdapter(Filter).validate_json(orjson.dumps(wanted))
    assert found(shelf, checked) == expected
    assert found(shelf, checked) == expected  # the second time it is looked up


def test_what_is_sold_out_matches_but_is_not_offered(shelf):
    wanted = Filter(category=["tea"])
    assert matching(shelf, wanted)[shelf.place("black")]
    assert not passing(shelf, wanted)[shelf.place("black")]


def test_an_excluded_item_does_not_stay_excluded_in_the_next_answer(shelf):
    wanted = Filter(category=["tea"])
    assert found(shelf, wanted, exclude=["green"]) == set()
    assert found(shelf, wanted) == {"green"}
    assert found(shelf, ANYTHING, exclude=["green"]) == SOLD - {"green"}
    assert found(shelf, ANYTHING) == SOLD


def test_a_new_price_is_filtered_by_at_once(stall, shelf):
    wanted = Filter(price=Range(max=5))
    assert found(shelf, wanted) == {"green", "gift"}
    stall.put_items([Item(item="pie", category="pie", price=1.0)])
    shelf.follow()
    assert found(shelf, wanted) == {"green", "gift", "pie"}


@pytest.mark.parametrize("wanted", [Filter(where="prize < 5"), Filter(attributes={"prize": 5})])
def test_a_misspelt_name_is_told_with_the_names_that_are_known(shelf, wanted):
    with pytest.raises(BadInputError) as refused:
        allowed(shelf, wanted)
    assert refused.value.line() == (
        "no item has a prize "
        "(known are brand, caffeine, category, price, size, stock, tags, vegan; did you mean price?)"
    )


def test_what_an_operator_wrote_long_ago_does_not_make_answers_fail(shelf):
    assert not passing(shelf, Filter(where="prize < 5"), strictly=False).any()
    with pytest.raises(BadInputError):
        passing(shelf, Filter(where="prize < 5"))


@pytest.mark.parametrize(
    "wanted",
    [
        {"colour": ["red"]},
        {"price": {"from": 3}},
        {"price": 3},
        {"price": {"min": "a lot"}},
        {"where": "price <"},
        {"where": "__import__('os')"},
        {"where": "x" * 1001},
        {"where": ""},
        {"category": "tea"},
        {"category": ["x"] * 1001},
        {"attributes": {f"a{number}": 1 for number in range(21)}},
        {"attributes": {"a": {"b": {"c": 1}}}},
        {"items": ["i"] * 1001},
        {"in_stock": "perhaps"},
    ],
)
def test_a_wrong_filter_is_refused(wanted):
    with pytest.raises(ValidationError):
        TypeAdapter(Filter).validate_json(orjson.dumps(wanted))


@pytest.mark.parametrize(
    "wanted",
    [
        {"attributes": {"caffeine": 1e300}},
        {"attributes": {"caffeine": [1e39, 0]}},
        {"attributes": {"caffeine": {"min": -1e300, "max": 1e300}}},
        {"attributes": {"size": {"min": 1e300}}},
        {"price": {"min": -1e300, "max": 1e300}},
        {"where": "price < 1e300 and caffeine in [1e300, 0]"},
    ],
)
def test_a_number_beyond_all_measure_is_no_fault_of_ours(shelf, wanted):
    checked = TypeAdapter(Filter).validate_json(orjson.dumps(wanted))
    assert found(shelf, checked) <= SOLD


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e999", "-1e999"])
@pytest.mark.parametrize(
    "body", ['{"attributes": {"size": %s}}', '{"attributes": {"caffeine": %s}}', '{"price": {"max": %s}}']
)
def test_a_number_beyond_all_numbers_is_refused(number, body):
    with pytest.raises(ValidationError):
        TypeAdapter(Filter).validate_json(body % number)


def test_a_number_that_is_none_is_refused():
    with pytest.raises(ValidationError):
        TypeAdapter(Filter).validate_json(b'{"price": {"min": NaN}}')


def test_a_million_unheard_of_names_leave_nothing_behind(shelf):
    for number in range(50):
        with pytest.raises(BadInputError):
            allowed(shelf, Filter(where=f"name{number} == 1"))
    assert not shelf.numbering._attributes._columns


def test_masks_that_are_kept_are_bounded(shelf, monkeypatch):
    monkeypatch.setattr("edge.serving.filters._KEPT_BYTES", 10 * shelf.size)
    for number in range(50):
        allowed(shelf, Filter(price=Range(min=number)))
    from edge.serving.filters import _MASKS

    assert len(_MASKS[shelf.numbering]._kept) == 10


values = st.none() | st.booleans() | st.sampled_from(["a", "b", "ö"]) | st.integers(0, 4)
ITEM = st.builds(
    dict,
    category=st.sampled_from(["", "tea", "pie"]),
    brand=st.sampled_from(["", "own", "acme"]),
    price=st.none() | st.integers(0, 8).map(lambda n: n / 4),
    stock=st.none() | st.integers(0, 2),
    size=values,
)
WANTED = st.builds(
    dict,
    category=st.none() | st.lists(st.sampled_from(["tea", "pie", "cup"]), max_size=2),
    brand=st.none() | st.lists(st.sampled_from(["own", "acme"]), max_size=2),
    low=st.none() | st.integers(0, 8).map(lambda n: n / 4),
    high=st.none() | st.integers(0, 8).map(lambda n: n / 4),
    in_stock=st.booleans(),
    size=st.none() | st.booleans() | st.sampled_from(["a", "b", "ö"]),
)


def naively(item, wanted):
    stock, price = item["stock"], item["price"]
    priced = wanted["low"] is not None or wanted["high"] is not None
    return (
        (stock is None or stock > 0)
        and (wanted["category"] is None or (item["category"] in wanted["category"]))
        and (wanted["brand"] is None or (item["brand"] in wanted["brand"]))
        and (not priced or price is not None)
        and (wanted["low"] is None or price >= wanted["low"])
        and (wanted["high"] is None or price <= wanted["high"])
        and (wanted["size"] is None or (item["size"] is not None and same(item["size"], wanted["size"])))
    )


def same(one, other):
    return type(one) is type(other) and one == other


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(ITEM, min_size=1, max_size=8), asked=st.lists(WANTED, min_size=1, max_size=5))
def test_a_mask_is_what_looking_at_each_item_gives(tmp_path_factory, items, asked):
    with Store.open(tmp_path_factory.mktemp("shop") / "store.db", durability="normal") as store:
        store.put_items(
            Item(
                item=f"i{number}",
                attributes={} if about["size"] is None else {"size": about["size"]},
                **{name: about[name] for name in ("category", "brand", "price", "stock")},
            )
            for number, about in enumerate(items)
        )
        store.put_items([Item(item="full", attributes={"size": "full"})])
        shelf = Shelf.of(store, None)
        for wanted in asked:
            priced = wanted["low"] is not None or wanted["high"] is not None
            mask = allowed(
                shelf,
                Filter(
                    category=wanted["category"],
                    brand=wanted["brand"],
                    price=Range(min=wanted["low"], max=wanted["high"]) if priced else None,
                    in_stock=wanted["in_stock"],
                    attributes={} if wanted["size"] is None else {"size": wanted["size"]},
                ),
            )
            expected = [naively(item, wanted) for item in items]
            assert [bool(mask[shelf.place(f"i{number}")]) for number in range(len(items))] == expected
