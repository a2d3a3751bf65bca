"""What only this site sells is compared, read and ranked like what all sell, by the words it is described with."""

import asyncio

import numpy as np
import pytest

from edge.records.events import Item
from edge.records.store import Store
from edge.serving.degradation import Reason, Rung
from edge.serving.query import Query
from edge.serving.release import Loaded, Release
from protocol import content
from protocol.errors import UntrustedReleaseError

ANGLE = np.linspace(0, np.pi, 13)
"""Where the shared items of the tiny shop lie: item i stands between its neighbours by number."""


def words(**directions):
    """Embeddings in which some words of titles point somewhere, and all others nowhere."""
    table = np.zeros((content.BUCKETS + 1, 4), np.float32)
    for word, angle in directions.items():
        (bucket,) = content.buckets_of((word, "", ""))
        table[1 + bucket, :2] = np.cos(angle), np.sin(angle)
    return table


NEAR_6 = words(pie=ANGLE[6] + 0.02, tart=ANGLE[6] - 0.02, soup=ANGLE[1])
"""Pies and tarts lie about where i6 lies, soups where i1 lies."""


@pytest.fixture
def named(stocked):
    """The tiny shop, three of whose items no other shop sells."""
    stocked.put_items(
        [
            Item(item="own-pie", title="pie"),
            Item(item="own-tart", title="tart"),
            Item(item="own-mystery", title="nobody knows these words"),
        ]
    )
    return stocked


@pytest.fixture
def loaded(named, load_release):
    return Loaded.of(named, load_release(words=NEAR_6))


def places(loaded, *items):
    return np.array([loaded.shelf.place(item) for item in items])


def names(loaded, found):
    return [loaded.shelf.name(place) for place in found]


def test_a_private_item_has_the_vector_its_words_give_it(loaded, named):
    named.put_items([Item(item="own-both", title="pie and tart")])
    loaded.shelf.follow()
    tokens = content.token_table([("pie", "", ""), ("pie and tart", "", "")])
    expected = content.mean_vectors(NEAR_6.astype("<f2").astype(np.float32), tokens)[1:].astype("<f2")
    found = loaded.vectors.at(places(loaded, "own-pie", "own-both", "i6", "own-mystery"))
    assert np.array_equal(found[:2], expected.astype(np.float32))
    assert found[2] == pytest.approx([np.cos(ANGLE[6]), np.sin(ANGLE[6]), 0, 0], abs=1e-3)
    assert not found[3].any()
    assert loaded.vectors.known(places(loaded, "own-pie", "i6", "own-mystery")).tolist() == [True, True, False]


def test_similar_items_are_found_on_both_sides(loaded):
    everything = loaded.shelf.offered
    found, cosines = loaded.vectors.similar(loaded.shelf.place("i6"), everything, k=4)
    assert set(names(loaded, found)) == {"own-pie", "own-tart", "i5", "i7"}
    assert (np.diff(cosines) <= 0).all()
    found, cosines = loaded.vectors.similar(loaded.shelf.place("own-pie"), everything, k=3)
    assert names(loaded, found)[:2] == ["i6", "own-tart"]
    assert cosines[0] == pytest.approx(np.cos(0.02), abs=1e-3)
    mask = everything.copy()
    mask[places(loaded, "own-tart", "i6")] = False
    assert not {"own-tart", "i6"} & set(names(loaded, loaded.vectors.similar(6, mask, k=13)[0]))


@pytest.mark.usefixtures("named")
def test_the_shop_is_told_what_is_similar_to_its_own_item(make_service, load_release):
    answer = asyncio.run(make_service(load_release(words=NEAR_6)).similar("own-pie", limit=2))
    assert [one.item for one in answer.items] == ["i6", "own-tart"]
    assert (answer.rung, answer.reasons) == (Rung.SEQUENCE, ())


def test_an_item_without_a_known_word_has_its_category_as_before(make_service, named, load_release):
    named.put_items([Item(item="own-mystery", category="pies"), Item(item="own-pie", title="pie", category="pies")])
    answer = asyncio.run(make_service(load_release(words=NEAR_6)).similar("own-mystery", limit=2))
    assert [one.item for one in answer.items] == ["own-pie"]
    assert answer.reasons == (Reason.PRIVATE_ITEM,)


def test_the_model_reads_what_only_this_site_sells(loaded):
    ranker, vectors = loaded.release.ranker, loaded.vectors
    history = places(loaded, "own-pie", "own-tart", "own-mystery")
    assert names(loaded, vectors.readable(history)) == ["own-pie", "own-tart"]
    private = ranker.rank(vectors.readable(history), k=3, vectors=vectors)
    assert set(private.rows.tolist()) == {5, 6, 7}
    shared = ranker.rank(np.array([6, 6]), k=3)
    assert private.state == pytest.approx(shared.state, abs=0.01)


def test_a_private_item_among_shared_ones_counts_as_much(loaded):
    ranker, vectors = loaded.release.ranker, loaded.vectors
    mixed = ranker.rank(places(loaded, "i12", "own-pie"), k=3, vectors=vectors)
    expected = (vectors.at(places(loaded, "own-pie"))[0] + vectors.at(np.array([12]))[0]) / 2
    assert mixed.state == pytest.approx(expected, abs=1e-3)


def test_users_with_and_without_private_items_are_read_together(loaded):
    ranker, vectors = loaded.release.ranker, loaded.vectors
    histories = [places(loaded, "own-pie", "i3"), np.array([2, 3, 4, 5]), places(loaded, "own-tart")]
    together = ranker.rank_many(histories, k=3, vectors=vectors)
    alone = [ranker.rank(np.pad(one, (4 - len(one), 0)), k=3, vectors=vectors) for one in histories]
    assert [one.rows.tolist() for one in together] == [one.rows.tolist() for one in alone]


def test_a_private_item_is_ranked_by_the_same_score(loaded):
    vectors = loaded.vectors
    ranked = loaded.release.ranker.rank(np.array([6]), k=12)
    merged = vectors.with_private(ranked, loaded.shelf.offered)
    assert names(loaded, merged.rows)[:3] == ["i6", "own-pie", "own-tart"]
    scores = vectors.score(ranked.state, merged.rows)
    assert (np.diff(scores) <= 1e-6).all()
    assert len(merged.rows) == 14
    mask = loaded.shelf.offered.copy()
    mask[places(loaded, "own-tart")] = False
    assert "own-tart" not in names(loaded, vectors.with_private(ranked, mask).rows)
    assert "own-mystery" not in names(loaded, merged.rows)


@pytest.mark.usefixtures("named")
def test_a_visitor_who_bought_private_items_only_is_answered_by_the_model(make_service, load_release, buy):
    service = make_service(load_release(words=NEAR_6))
    asyncio.run(service.add_events([buy("zoe", "own-pie", day=80)]))
    answer = service.ask(service.loaded, Query(user="zoe", limit=8))
    assert (answer.rung, answer.reasons) == (Rung.SEQUENCE, ())
    assert {"own-tart", "i6"} <= {one.item for one in answer.items}


def test_a_new_item_is_similar_at_once_and_moves_with_its_words(loaded, named):
    named.put_items([Item(item=f"new {number}", title="soup") for number in range(200)])
    loaded.shelf.follow()
    assert names(loaded, loaded.vectors.similar(1, loaded.shelf.offered, k=200)[0])[0].startswith("new")
    named.put_items([Item(item="new 7", title="pie")])
    loaded.shelf.follow()
    assert set(names(loaded, loaded.vectors.similar(loaded.shelf.place("own-pie"), loaded.shelf.offered, k=3)[0])) == {
        "new 7",
        "i6",
        "own-tart",
    }


def test_an_item_that_came_after_the_question_harms_nothing(loaded, named):
    mask = loaded.shelf.offered.copy()
    named.put_items([Item(item="late", title="pie")])
    loaded.shelf.follow()
    ranked = loaded.release.ranker.rank(np.array([6]), k=3)
    assert "late" not in names(loaded, loaded.vectors.with_private(ranked, mask).rows)
    assert "late" not in names(loaded, loaded.vectors.similar(6, mask, k=20)[0])


def test_two_releases_on_one_shelf_each_have_vectors_of_their_own(loaded, load_release):
    other = loaded.with_release(load_release(4, words=words(pie=ANGLE[11], soup=ANGLE[2])))
    assert names(loaded, other.vectors.similar(other.shelf.place("own-pie"), other.shelf.offered, k=1)[0]) == ["i11"]
    assert names(loaded, loaded.vectors.similar(loaded.shelf.place("own-pie"), loaded.shelf.offered, k=1)[0]) == ["i6"]


def test_a_release_of_an_older_center_leaves_private_items_out(named, load_release):
    loaded = Loaded.of(named, load_release())
    assert not loaded.release.ranker.takes_strangers
    assert loaded.vectors.known(places(loaded, "own-pie", "i6")).tolist() == [False, True]
    assert loaded.vectors.readable(places(loaded, "own-pie", "i6")).tolist() == [6]
    ranked = loaded.release.ranker.rank(np.array([6]), k=3)
    assert loaded.vectors.with_private(ranked, loaded.shelf.offered) is ranked
    assert "own-pie" not in names(loaded, loaded.vectors.similar(6, loaded.shelf.offered, k=20)[0])


def test_words_are_of_no_use_to_a_graph_that_reads_no_strangers(loaded):
    loaded.release.ranker.takes_strangers = False
    assert loaded.vectors.readable(places(loaded, "own-pie", "i6")).tolist() == [6]
    assert loaded.vectors.known(places(loaded, "own-pie"))[0]


def test_a_site_without_a_catalogue_item_in_its_shelf_needs_no_words(tmp_path, load_release):
    with Store.open(tmp_path / "empty.db") as store:
        loaded = Loaded.of(store, load_release(words=NEAR_6))
        ranked = loaded.release.ranker.rank(np.array([6]), k=3)
        assert loaded.vectors.with_private(ranked, loaded.shelf.offered) is ranked
        assert loaded.vectors.nbytes() == 0


@pytest.mark.parametrize("damage", ["cut", "not a number", "a padding that means something"])
def test_damaged_words_are_refused_before_serving(make_bundle, catalogue, damage):
    table = NEAR_6.copy()
    if damage == "not a number":
        table[7, 1] = np.inf
    if damage == "a padding that means something":
        table[0, 0] = 1
    directory = make_bundle(words=table[:-1] if damage == "cut" else table)
    with pytest.raises(UntrustedReleaseError, match=r"tokens\.bin"):
        Release.load(directory, catalogue, version=3, sha256="0" * 64)


def test_a_private_item_that_is_described_anew_lies_near_others(loaded, named):
    own, mask = loaded.shelf.place("own-tart"), loaded.shelf.offered.copy()
    mask[places(loaded, "own-pie")] = False
    assert names(loaded, loaded.vectors.similar(own, mask, k=1)[0]) == ["i6"]
    kept = loaded.vectors.nearest.of(6, np.array([1, 0, 0, 0], np.float32))
    named.put_items([Item(item="own-tart", title="soup")])
    loaded.shelf.follow()
    assert names(loaded, loaded.vectors.similar(own, mask, k=1)[0]) == ["i1"]
    assert loaded.vectors.nearest.of(6, np.array([0, 1, 0, 0], np.float32)) is kept
