"""What goes with what, what is rising, and what sells here and now: as the routes and the service ask it."""

import numpy as np
import pytest

from edge.neighbours.neighbours import Neighbours
from edge.neighbours.visits import BOUGHT, VIEWED
from edge.records.events import Item
from edge.records.store import Store
from edge.serving.shelf import Shelf

NOW_MS = 1_795_000_000_000
DAY = 24 * 60


@pytest.fixture
def neighbours(store, half_lives):
    return Neighbours(store, half_lives, now_ms=lambda: NOW_MS)


@pytest.fixture
def ask(store, neighbours):
    """Count what there is, and ask by names."""

    def ask(*items, k=10, **how):
        neighbours.follow()
        shelf = Shelf.of(store, None)
        places = np.array([shelf.place(item) for item in items], np.int64)
        found, weights = neighbours.near(shelf, places, k, **how)
        return dict(zip((shelf.name(place) for place in found.tolist()), weights.tolist(), strict=True))

    return ask


def test_what_is_bought_together_is_named_best_first(store, diary, ask):
    for day in range(10):
        store.add_events(diary.basket("ada", ["pasta", "sauce"], minute=-day * DAY))
    store.add_events(diary.basket("bob", ["pasta", "soap"], minute=-3))
    found = ask("pasta", kinds=((BOUGHT, 1.0),))
    assert list(found) == ["sauce", "soap"]
    assert found["sauce"] > 4 * found["soap"]


def test_what_is_in_every_basket_does_not_win_everything(store, diary, ask):
    for day in range(40):
        other = ["pasta", "sauce"] if day % 8 == 0 else [f"thing{day}"]
        store.add_events(diary.basket(f"u{day}", ["bag", *other], minute=-day * DAY))
    assert list(ask("pasta", kinds=((BOUGHT, 1.0),)))[:2] == ["sauce", "bag"]


def test_one_basket_is_hardly_believed(store, diary, ask):
    store.add_events(diary.basket("ada", ["caviar", "nails"]))
    assert ask("caviar", kinds=((BOUGHT, 1.0),))["nails"] < 0.3


def test_what_was_only_looked_at_together_was_not_bought_together(store, diary, ask):
    store.add_events([diary.event("ada", "tent", kind="view"), diary.event("ada", "stove", kind="view", minute=1)])
    assert ask("tent", kinds=((BOUGHT, 1.0),)) == {}
    assert list(ask("tent", kinds=((VIEWED, 1.0),))) == ["stove"]
    assert list(ask("tent")) == ["stove"]


def test_several_items_are_heard_together_and_are_not_in_the_answer(store, diary, ask):
    for number in range(6):
        store.add_events(diary.basket(f"a{number}", ["pasta", "sauce"]))
        store.add_events(diary.basket(f"b{number}", ["cheese", "sauce", "wine"]))
    found = ask("pasta", "cheese", k=1)
    assert list(found) == ["sauce"]
    assert found["sauce"] > ask("pasta")["sauce"]


def test_nothing_is_known_before_anything_was_counted(store, neighbours):
    store.put_items([Item(item="tea")])
    shelf = Shelf.of(store, None)
    places, weights = neighbours.near(shelf, np.array([1, 0, 77]), 5)
    assert (len(places), len(weights)) == (0, 0)
    assert neighbours.prior(shelf, {}, NOW_MS) is None
    assert not np.isfinite(neighbours.trends(shelf, NOW_MS).score).any()


def test_an_event_changes_the_next_answer_though_the_last_was_kept(store, diary, ask):
    store.add_events(diary.basket("ada", ["tea", "milk"]))
    assert list(ask("tea")) == ["milk"]
    for number in range(5):
        store.add_events(diary.basket(f"u{number}", ["tea", "cake"]))
    assert next(iter(ask("tea"))) == "cake"


def test_an_erased_user_goes_out_of_the_next_answer(store, diary, ask, neighbours):
    store.add_events(diary.basket("ada", ["tea", "secret"]))
    store.add_events(diary.basket("bob", ["tea", "milk"]))
    assert set(ask("tea")) == {"secret", "milk"}
    store.erase(user="ada", also=neighbours.forget)
    assert set(ask("tea")) == {"milk"}


def test_an_edge_that_starts_again_knows_what_it_knew(tmp_path, store, diary, ask, half_lives):
    for number in range(5):
        store.add_events(diary.basket(f"u{number}", ["tea", "cake"]))
    before = ask("tea")
    with Store.open(tmp_path / "store.db") as again:
        later = Neighbours(again, half_lives, now_ms=lambda: NOW_MS)
        assert later.follow() == 0
        shelf = Shelf.of(again, None)
        places, weights = later.near(shelf, np.array([shelf.place("tea")]), 5)
        assert shelf.name(int(places[0])) == "cake"
        assert weights[0] == pytest.approx(before["cake"])


def test_new_events_are_counted_within_a_moment(store, diary, neighbours):
    seen = []

    def note(behind, seconds):
        seen.append((behind, seconds))

    followed = Neighbours(store, neighbours.half_lives, now_ms=lambda: NOW_MS, note=note)
    followed.start()
    try:
        store.add_events(diary.basket("ada", ["tea", "milk"]))
        shelf = Shelf.of(store, None)
        tea = np.array([shelf.place("tea")])
        for _ in range(500):
            if followed.near(shelf, tea, 5)[0].size:
                break
            followed._end.wait(0.02)
        assert shelf.name(int(followed.near(shelf, tea, 5)[0][0])) == "milk"
    finally:
        followed.stop()
    assert seen[-1] == (0, 0.0)
    assert followed.behind() == 0


def test_what_is_rising_stands_first_and_what_is_wanted_most_follows(store, diary, neighbours):
    for day in range(60):
        store.add_events([diary.event(f"u{n}", "bread", minute=-day * DAY - n) for n in range(12)])
        store.add_events([diary.event(f"v{n}", "butter", minute=-day * DAY - n) for n in range(3)])
    store.add_events([diary.event(f"w{n}", "umbrella", minute=-n) for n in range(9)])
    neighbours.follow()
    shelf = Shelf.of(store, None)
    found = neighbours.trends(shelf, NOW_MS)
    order = [shelf.name(int(place)) for place in np.argsort(-found.score)[:3]]
    assert order == ["umbrella", "bread", "butter"]
    assert found.rise[shelf.place("umbrella")] > 5
    assert 0.5 < found.rise[shelf.place("bread")] < 1.2


def test_who_is_unknown_is_offered_what_sells_in_the_region(store, diary, neighbours):
    rain, sun = {"region": "rain"}, {"region": "sun"}
    for number in range(60):
        store.add_events([diary.event(f"a{number}", "bread", minute=-number * 7)])
        store.add_events([diary.event(f"b{number}", "umbrella", minute=-number * 7, context=rain)])
        store.add_events([diary.event(f"c{number}", "hat", minute=-number * 7, context=sun)])
    neighbours.follow()
    shelf = Shelf.of(store, None)

    def first(context):
        return shelf.name(int(neighbours.prior(shelf, context, NOW_MS).argmax()))

    assert first(rain) == "umbrella"
    assert first(sun) == "hat"
    assert first({"region": "never heard of"}) in {"bread", "umbrella", "hat"}


def test_a_million_made_up_pages_do_not_fill_the_books(store, diary, neighbours):
    for start in range(0, 3_000, 500):
        pages = range(start, start + 500)
        store.add_events([diary.event(f"u{page}", "tea", context={"page": f"/{page}"}) for page in pages])
    neighbours.follow()
    with store.reading() as db:
        (names,) = db.execute("SELECT count(*) FROM neighbour_names").fetchone()
    assert names < 1_100


def test_pages_that_nobody_came_by_for_long_give_way_to_new_ones(store, diary, neighbours):
    old = [diary.event(f"u{n}", "tea", minute=-100 * DAY, context={"page": f"/old{n}"}) for n in range(1_000)]
    store.add_events(old)
    neighbours.follow()
    store.add_events([diary.event("ada", "tea", context={"page": "/new"})])
    neighbours.follow()
    with store.reading() as db:
        names = {name for (name,) in db.execute("SELECT name FROM neighbour_names")}
    assert "page=/new" in names
    assert "page=/old5" not in names
