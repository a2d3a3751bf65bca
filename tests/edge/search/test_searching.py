"""What a shopper finds, and what not."""

import numpy as np
import pytest

from edge.records.events import Event, EventType, Item
from edge.search.answers import Ask, Gap, Sort
from edge.search.fusing import SearchWeights
from edge.serving.filters import Filter, Range, allowed
from protocol.errors import BadInputError


def found(search, text="", **rest):
    return [hit.item for hit in search.search(Ask(text=text, **rest)).items]


def test_items_with_every_word_stand_before_items_with_some(searched):
    answer = searched.search(Ask(text="green tea"))
    assert answer.items[0].item == "t1"
    assert answer.hits == 2, "t5 has green in its title and is of the category tea"
    assert set(found(searched, "green tea")) == {"t1", "t5", "t2", "t3"}


@pytest.mark.parametrize(
    ("typed", "item"),
    [
        ("GREEN TEAS", "t1"),
        ("cafe", "t4"),
        ("creme", "t4"),
        ("茶", "t5"),
        ("绿茶", "t5"),
        ("12 v kettle", "t3"),
        ("12v", "t3"),
        ("kettel", "t3"),
        ("shwoer", "t6"),
        ("showerhead", "t6"),
        ("sho", "t6"),
        ("tea kett", "t3"),
        ("t6", "t6"),
        ("acme shower", "t6"),
        ("bath", "t6"),
    ],
)
def test_it_is_found_however_it_is_written(searched, typed, item):
    assert found(searched, typed)[0] == item


@pytest.mark.parametrize(
    "typed", ['"green', "title:green", "green AND (", "a:[1 TO 2]", "+-!(){}^~*?\\/", "\x00", "/.*/", "green^100", "'"]
)
def test_nothing_that_is_typed_is_an_instruction(searched, typed):
    plain = "".join(letter if letter.isalnum() else " " for letter in typed)
    assert found(searched, typed) == found(searched, plain.rstrip() or "")


def test_what_is_sold_out_is_not_found(searched):
    assert found(searched, "kaese") == []
    searched._service.store.put_items([Item(item="t7", title="Käse", category="food", brand="own", stock=4)])
    searched._service.follow_items()
    searched.follower.step()
    assert found(searched, "kaese") == found(searched, "käse") == found(searched, "kase") == ["t7"]


def test_a_misspelt_question_says_what_was_probably_meant(searched):
    assert searched.search(Ask(text="shwoer haed")).corrected == "shower head"
    assert searched.search(Ask(text="shower")).corrected is None


def test_the_whole_title_stands_first(store, serve, open_search):
    store.put_items(
        [
            Item(item="a", title="Tea tea tea of tea"),
            Item(item="b", title="Tea"),
            Item(item="c", title="Green tea"),
            Item(item="d", title="Tea green and more of tea and green tea"),
        ]
    )
    search = open_search(serve(store))
    assert found(search, "tea")[0] == "b"
    assert found(search, "green tea")[0] == "c"


FILTERS = [
    Filter(category=["tea"]),
    Filter(brand=["own", "龙"]),
    Filter(brand=["acme"], category=["kitchen", "bath"]),
    Filter(price=Range(min=5, max=12)),
    Filter(price=Range(max=9)),
    Filter(price=Range(min=10, max=5)),
    Filter(in_stock=True),
    Filter(attributes={"sets": "a"}),
    Filter(attributes={"sets": ("b", "c")}),
    Filter(attributes={"volt": 12}),
    Filter(attributes={"volt": Range(min=10)}),
    Filter(attributes={"vegan": True}),
    Filter(attributes={"a.b": "x"}),
    Filter(where='price < 10 and brand != "acme"'),
    Filter(items=["t1", "t6"]),
    Filter(category=["nothing"]),
    Filter(category=[f"c{number}" for number in range(100)]),
]


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
@pytest.mark.parametrize("sort", list(Sort))
def test_a_filter_means_the_same_as_in_recommendations(searched, wanted, sort):
    shelf = searched._service.loaded.shelf
    mask = allowed(shelf, wanted)
    fits = {shelf.name(place) for place in np.flatnonzero(mask).tolist()}
    everything = "tea cafe shower kettle cup"  # at least two of them are in no title
    with_tea = {"t1", "t2", "t3", "t5"}
    answer = searched.search(Ask(text="tea", filter=wanted, sort=sort))
    assert {hit.item for hit in answer.items} == fits & with_tea
    assert answer.hits == len(fits & with_tea)
    answer = searched.search(Ask(filter=wanted, sort=sort))
    assert {hit.item for hit in answer.items} == fits
    assert answer.hits == len(fits)
    assert {hit.item for hit in searched.search(Ask(text=everything, filter=wanted, sort=sort)).items} <= fits


def test_a_name_that_no_item_has_is_refused(searched):
    with pytest.raises(BadInputError, match="no item has a colour"):
        searched.search(Ask(text="tea", filter=Filter(attributes={"colour": "red"})))
    with pytest.raises(BadInputError, match="no item has a colour"):
        searched.search(Ask(text="tea", facets=["colour"]))


def counts(answer, name):
    return {each["value"]: each["count"] for each in answer.facets[name]}


@pytest.mark.parametrize("wanted", [Filter(), Filter(where="price > 0 or price == None")], ids=["index", "shelf"])
def test_facets_count_all_that_fits_however_it_is_counted(searched, wanted):
    facets = ["category", "brand", "price", "sets", "volt", "vegan", "a.b"]
    answer = searched.search(Ask(text="tea", filter=wanted, facets=facets, limit=1))
    assert counts(answer, "category") == {"tea": 3, "kitchen": 1}
    assert counts(answer, "brand") == {"acme": 2, "own": 1, "龙": 1}
    assert counts(answer, "sets") == {"a": 1, "b": 1}
    assert counts(answer, "volt") == {12.0: 1}
    assert counts(answer, "vegan") == {True: 1}
    assert counts(answer, "a.b") == {}
    prices = answer.facets["price"]
    for each in prices:
        low, high = each["min"] or 0, each["max"] or 1000
        assert each["count"] == sum(low <= price < high for price in (4.5, 6.0, 30.0, 9.0))
    assert sum(each["count"] for each in prices) == 4


def test_facets_of_browsing_count_what_is_on_offer(searched):
    answer = searched.search(Ask(facets=["category", "stock"]))
    assert counts(answer, "category") == {"tea": 3, "kitchen": 2, "bath": 1}
    assert answer.hits == 6


@pytest.mark.parametrize("text", ["tea", ""])
@pytest.mark.parametrize("wanted", [Filter(), Filter(where="price > 0 or price == None")], ids=["index", "shelf"])
def test_orders_other_than_relevance(teas, serve, open_search, buy, text, wanted):
    teas.add_events([buy("ada", "t3"), buy("bob", "t3"), buy("ada", "t5")])
    service = serve(teas)
    searched = open_search(service)
    among = {"t1", "t2", "t3", "t5"} if text else {"t1", "t2", "t3", "t4", "t5", "t6"}
    price = {"t1": 4.5, "t2": 6, "t3": 30, "t4": 12, "t5": 9}
    asked = {"filter": wanted, "limit": 20}
    cheap = sorted(among, key=lambda item: price.get(item, 1e9))
    assert found(searched, text, sort=Sort.PRICE_UP, **asked) == cheap
    dear = sorted(among, key=lambda item: -price.get(item, -1e9))
    assert found(searched, text, sort=Sort.PRICE_DOWN, **asked) == dear
    assert found(searched, text, sort=Sort.POPULARITY, **asked)[:2] == ["t3", "t5"]
    teas.put_items([Item(item="t8", title="Newest tea", added_ms=1_900_000_000_000)])
    service.follow_items()
    searched.follower.step()
    assert found(searched, text, sort=Sort.NEWEST, **asked)[0] == "t8"


@pytest.mark.parametrize("sort", list(Sort))
@pytest.mark.parametrize("wanted", [Filter(), Filter(where="price < 900")], ids=["index", "shelf"])
def test_pages_join_without_gap_or_repetition(store, serve, open_search, sort, wanted, rng):
    store.put_items(
        Item(
            item=f"i{n}", title=f"tea {rng.integers(5)} {'green' if n % 3 else 'black'}", price=float(rng.integers(99))
        )
        for n in range(300)
    )
    search = open_search(serve(store))
    for text in ("tea", "green tea", ""):
        whole = found(search, text, sort=sort, filter=wanted, limit=300)
        pages = [found(search, text, sort=sort, filter=wanted, limit=30, offset=at) for at in range(0, 300, 30)]
        assert [item for page in pages for item in page] == whole
        complete = text == "green tea" and sort is not Sort.RELEVANCE
        assert len(set(whole)) == len(whole) == (200 if complete else 300), text
    assert found(search, "tea", offset=5000) == []


def test_titles_are_escaped_and_marked(searched):
    (first, *_) = searched.search(Ask(text="showers chrom", highlight=True)).items
    assert first.highlight == "<mark>Shower</mark> head &lt;<mark>chrome</mark>&gt;"
    assert searched.search(Ask(text="shower")).items[0].highlight is None


def test_without_an_index_an_answer_says_so_and_browsing_goes_on(teas, serve, open_search):
    search = open_search(serve(teas), ready=False)
    answer = search.search(Ask(text="tea"))
    assert (answer.items, answer.gaps) == ([], (Gap.INDEX_MISSING,))
    assert len(found(search)) == 6


def test_synonyms_work_in_the_directions_that_were_set(searched):
    store = searched._service.store
    assert found(searched, "douche") == []
    store.put_document("synonyms", "a", {"same": ["douche", "shower", "rain maker"]})
    store.put_document("synonyms", "b", {"from": "pot", "to": ["tea kettle"]})
    searched.read_synonyms()
    assert found(searched, "douche") == found(searched, "rain maker") == ["t6"]
    assert found(searched, "pots") == ["t3"]
    store.put_items([Item(item="pot", title="A pot")])
    searched._service.follow_items()
    searched.follower.step()
    assert "pot" not in found(searched, "tea kettle")
    assert found(searched, "pot")[0] == "pot", "what was typed stands before what means the same"
    store.drop_document("synonyms", "a")
    searched.read_synonyms()
    assert found(searched, "douche") == []


def test_what_was_typed_stands_before_what_means_the_same(store, serve, open_search):
    store.put_items([Item(item=f"the-{word}", title=f"Red {word}") for word in ("sofa", "couch", "settee")])
    store.put_document("synonyms", "a", {"same": ["sofa", "couch", "settee"]})
    search = open_search(serve(store))
    for word in ("sofa", "couch", "settee"):
        assert found(search, word)[0] == f"the-{word}"
        assert len(found(search, word)) == 3


def test_a_site_without_a_list_searches_the_shared_catalogue(store, serve, open_search, load_release):
    search = open_search(serve(store, load_release()))
    assert found(search, "item i7")[0] == "i7"
    assert search.search(Ask(text="tea")).hits == 6
    store.put_items([Item(item="i3", title="Only this")])
    search._service.follow_items()
    search.follower.step()
    assert found(search, "item") == []
    assert found(search, "only") == ["i3"]
    assert found(search, "tea") == ["i3"], "what the site does not say of an item, the catalogue says"


def test_an_index_of_another_catalogue_is_not_asked(store, serve, open_search, load_release):
    service = serve(store, load_release())
    search = open_search(service)
    from edge.serving.release import Loaded

    service.swap(Loaded.of(store, None))
    assert search.search(Ask(text="item")).gaps == (Gap.INDEX_MISSING,)


def test_who_asks_changes_the_order_and_not_the_items(store, serve, open_search, buy):
    store.put_items(Item(item=f"i{n}", title=f"green tea number {n}") for n in range(20))
    store.add_events([buy("ada", "i13", day=day) for day in range(5)])
    search = open_search(serve(store))
    nobody, ada = found(search, "green tea"), found(search, "green tea", user="ada", limit=20)
    assert ada.index("i13") < found(search, "green tea", limit=20).index("i13")
    assert set(ada) == set(found(search, "green tea", limit=20))
    assert found(search, "green tea", user="stranger") == nobody
    assert found(search, "green tea", user="ada", personal=False) == nobody


def test_what_was_asked_for_by_its_title_stands_first_whatever_is_liked(store, serve, open_search, buy):
    store.put_items(Item(item=f"i{n}", title=f"green tea number {n}") for n in range(20))
    store.add_events([buy("ada", "i13", day=day) for day in range(5)])
    search = open_search(serve(store))
    search.weights = SearchWeights(weights={"taste": 10.0}, searches=100, ndcg_before=0.1, ndcg_after=0.2)
    assert found(search, "green tea", user="ada")[0] == "i13"
    assert found(search, "green tea number 4", user="ada")[0] == "i4"
    assert found(search, "i7", user="ada")[0] == "i7"


def test_searches_of_three_people_are_suggested_to_others(searched, clock):
    store = searched._service.store

    def search_for(text, user):
        event = Event(
            event_id=f"{text}-{user}",
            type=EventType.SEARCH,
            user=user,
            item=None,
            time_ms=1_794_999_000_000,
            query=text,
        )
        store.add_events([event])

    for user in ("a", "b"):
        search_for("Green Tea with mint", user)
    clock.now += 10
    searched.look_again()
    assert "green tea with mint" not in [each.text for each in searched.suggest("gre").suggestions]
    search_for("green  tea with mint", "c")
    clock.now += 10
    searched.look_again()
    assert searched.suggest("gre").suggestions[0].text == "green tea with mint"
    assert searched.suggest("min").suggestions[0].text == "green tea with mint"
    store.erase(user="b")
    search_for("anything", "d")
    clock.now += 10
    searched.look_again()
    assert "green tea with mint" not in [each.text for each in searched.suggest("gre").suggestions]


def test_searches_that_are_run_are_counted_once_they_have_been_typed(searched, clock, buy):
    searched._service.store.add_events([buy(user, "t1") for user in "abc"])
    for user in "abc":
        for typed in ("g", "gr", "green", "green te", "green tea"):
            searched.search(Ask(text=typed, user=user))
    clock.now += 10
    searched.look_again()
    assert [each.text for each in searched.queries.common(most=10)] == ["green tea"]


def test_a_question_that_finds_nothing_is_answered_with_a_common_one(searched, clock, buy):
    searched._service.store.add_events([buy(user, "t1") for user in "abc"])
    for user in "abc":
        searched.search(Ask(text="earl grey", user=user))
    clock.now += 10
    searched.look_again()
    assert searched.search(Ask(text="erlgreyy")).corrected == "earl grey"


def test_suggestions_are_categories_brands_and_words_of_titles(searched):
    texts = {(each.text, each.kind) for each in searched.suggest("k").suggestions}
    assert ("kitchen", "category") in texts
    assert ("acme", "brand") in {(each.text, each.kind) for each in searched.suggest("ac").suggestions}
    assert ("shower head", "words") in {(each.text, each.kind) for each in searched.suggest("shower he").suggestions}
    assert [hit.item for hit in searched.suggest("shower he").items] == ["t6"]
    assert searched.suggest("").suggestions == []
    assert searched.suggest("food").suggestions == [], "all of it is sold out"


def test_a_word_that_very_many_items_hold_makes_nobody_fit_by_itself(store, serve, open_search):
    store.put_items(Item(item=f"i{n}", title=f"tea number{n}") for n in range(300))
    store.put_items([Item(item="z", title="Zebra cup"), Item(item="y", title="Zebra tea")])
    search = open_search(serve(store))
    assert found(search, "zebra tea", limit=100) == ["y", "z"]
    assert len(found(search, "unheard tea", limit=100)) == 100, "nothing rarer fits"
