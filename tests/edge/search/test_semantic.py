"""What means the same is found in other words; a submodel that fails is left out and named, and never a 500."""

import numpy as np
import pytest

from edge.records.events import Item
from edge.search.answers import Ask, Gap
from edge.search.fusing import SearchWeights
from edge.search.semantic import SUBMODEL
from edge.serving.filters import Filter
from edge.serving.ranker import ModelFailedError
from protocol.errors import UntrustedReleaseError


def found(search, text, **rest):
    return [hit.item for hit in search.search(Ask(text=text, **rest)).items]


@pytest.fixture
def shop(store, serve, open_search, load_towers):
    store.put_items([Item(item=f"i{n}", title=f"Item i{n}") for n in range(1, 13)])
    store.put_items(
        [Item(item="p1", title="Green settee"), Item(item="p2", title="A fish"), Item(item="p3", title="Sofa red")]
    )
    return open_search(serve(store, load_towers()))


def test_what_means_the_same_is_found_in_other_words(shop):
    assert found(shop, "couch", semantic=False) == []
    assert set(found(shop, "couch", limit=2)) == {"p3", "p1"}, "private items, by their own words"
    answer = shop.search(Ask(text="couch", limit=2))
    assert (answer.hits, answer.gaps, answer.skipped, answer.release) == (0, (), (), 3)


def test_items_of_the_catalogue_are_found_by_their_meaning_too(shop, catalogue):
    fish = {f"i{row}" for row in range(1, 13) if catalogue.categories[row] == "fish"}
    assert set(found(shop, "fish", limit=7)) == {*fish, "p2"}
    assert found(shop, "fish")[0] == "p2", "it holds the word in its title, and means it"


def test_a_filter_holds_for_what_is_found_by_its_meaning(shop):
    assert found(shop, "couch", filter=Filter(items=["p1", "p2"]))[0] == "p1"
    assert set(found(shop, "couch", filter=Filter(items=["p1", "p2"]))) == {"p1", "p2"}
    assert "p3" not in found(shop, "couch", filter=Filter(where="price == None and category == 'tea'"))


def test_a_release_without_the_submodel_searches_by_words(store, serve, open_search, load_release):
    store.put_items([Item(item="p3", title="Sofa")])
    answer = open_search(serve(store, load_release())).search(Ask(text="couch"))
    assert (answer.items, answer.gaps) == ([], ())


@pytest.mark.parametrize("path", ["model.onnx", "item_vectors.bin", "item_bias.bin", "tokens.bin"])
@pytest.mark.parametrize("damage", [lambda data: data[:-4], lambda _: None])
def test_a_release_with_a_damaged_submodel_is_refused(load_towers, path, damage):
    def spoil(files):
        data = damage(files.pop(f"search/{path}"))
        return files if data is None else {**files, f"search/{path}": data}

    with pytest.raises(UntrustedReleaseError):
        load_towers(spoil=spoil)


def test_a_submodel_of_other_items_is_refused(load_towers):
    with pytest.raises(UntrustedReleaseError, match="no usable submodel search"):
        load_towers(items=13)


def test_tokens_that_are_no_numbers_are_refused(load_towers):
    def spoil(files):
        tokens = np.frombuffer(files["search/tokens.bin"], "<f2").copy()
        tokens[100] = np.nan
        return {**files, "search/tokens.bin": tokens.tobytes()}

    with pytest.raises(UntrustedReleaseError, match="no vector"):
        load_towers(spoil=spoil)


class Broken:
    """A session that fails, or takes its time: what a bad model in a good file would do."""

    def __init__(self, clock, *, seconds=0.0, fails=True):
        self.asked = 0
        self._clock, self._seconds, self._fails = clock, seconds, fails

    def run(self, *_):
        self.asked += 1
        self._clock.now += self._seconds
        if self._fails:
            raise RuntimeError("out of memory")
        return np.zeros((1, 16), np.float32), np.ones((1, 1), np.int64), np.zeros((1, 1), np.float32)


def test_a_failing_model_is_named_then_left_alone_for_a_while(shop, clock):
    broken = Broken(clock)
    shop._service.loaded.release.semantic.ranker._session = broken
    for _ in range(5):
        answer = shop.search(Ask(text="sofa"))
        assert (answer.gaps, answer.skipped) == ((Gap.SEARCH_ERROR,), (SUBMODEL,))
        assert [hit.item for hit in answer.items] == ["p3"], "its words still find it"
    answer = shop.search(Ask(text="sofa"))
    assert (answer.gaps, broken.asked) == ((Gap.SEARCH_PAUSED,), 5)
    clock.now += 6
    shop.search(Ask(text="sofa"))
    assert broken.asked == 6


def test_a_slow_model_is_not_waited_for_a_second_time(shop, clock):
    slow = Broken(clock, seconds=1.0, fails=False)
    shop._service.loaded.release.semantic.ranker._session = slow
    shop.search(Ask(text="sofa"))
    answer = shop.search(Ask(text="sofa", within_ms=100))
    assert (answer.gaps, answer.skipped, slow.asked) == ((Gap.SEARCH_SLOW,), (SUBMODEL,), 1)
    assert [hit.item for hit in answer.items] == ["p3"]


def test_a_failing_recommender_makes_the_answer_nobodys_own(shop, clock, buy):
    shop._service.store.add_events([buy("ada", "i2")])
    shop._service.loaded.release.ranker._session = Broken(clock)
    answer = shop.search(Ask(text="fish", user="ada"))
    assert (answer.gaps, answer.skipped) == ((Gap.RECOMMEND_ERROR,), ("recommend",))
    assert answer.items


def test_a_model_may_not_name_rows_that_there_are_not(shop):
    class Wild:
        def run(self, *_):
            return np.zeros((1, 16), np.float32), np.full((1, 1), 99), np.zeros((1, 1))

    semantic = shop._service.loaded.release.semantic
    semantic.ranker._session = Wild()
    with pytest.raises(ModelFailedError):
        semantic.ask("sofa", k=1)


def test_weights_of_the_site_decide_what_counts(shop):
    def order(**weights):
        shop.weights = SearchWeights(weights=weights, searches=100, ndcg_before=0.1, ndcg_after=0.2)
        return found(shop, "green sofa", limit=3)

    assert order(words=1.0)[0] in {"p1", "p3"}
    assert order(meaning=-5.0, words=0.1) != order(meaning=5.0, words=0.1)
