"""The graph that an edge asks is the towers themselves."""

import numpy as np
import pytest

from center.releases.export_search import SUBMODEL, TowerWeights, card, export_search
from edge.search.semantic import Semantic
from protocol.content import BUCKETS, buckets_of, mean_vectors, token_table
from protocol.errors import BadInputError

ITEMS = [(f"thing {n} {n % 7} of {n % 11}", f"brand {n % 5}", f"kind {n % 3}") for n in range(500)]


def draw(rng, *, inner=24, size=32):
    tokens, question, item = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((BUCKETS, inner), (inner, size), (inner, size))
    )
    return TowerWeights(tokens=tokens, question=question, item=item)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def semantic(rng, tmp_path):
    weights, tokens = draw(rng), token_table(ITEMS)
    for path, data in export_search(weights, tokens).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    return weights, tokens, Semantic.load(tmp_path, {SUBMODEL: card(weights, items=len(ITEMS))}, items=len(ITEMS))


def test_the_graph_ranks_as_the_towers_do(semantic):
    weights, tokens, loaded = semantic
    items = mean_vectors(np.r_[np.zeros((1, 24), np.float32), weights.tokens], tokens) @ weights.item
    for text in ("thing 3", "Brand 2 of 10", "unheard words entirely"):
        question = weights.tokens[buckets_of((text, "", ""))].sum(0) @ weights.question
        question /= np.linalg.norm(question)
        ranked = loaded.ask(text, k=10)
        assert ranked.state == pytest.approx(question, abs=1e-5)
        best = set(np.argsort(-(items[1:] @ question))[:10] + 1)
        assert len(best & set(ranked.rows)) >= 9, text
        scores = loaded.ranker.score(ranked.state, ranked.rows)
        assert scores == pytest.approx(items[ranked.rows] @ question, abs=0.02)


def test_an_item_of_a_site_alone_has_the_vector_it_would_have_in_the_catalogue(semantic):
    _, tokens, loaded = semantic
    own = mean_vectors(loaded.tokens.astype(np.float32), tokens[[7]]).astype(np.float16)
    assert (own[0] == loaded.ranker.at(np.array([7]))[0].astype(np.float16)).all()


def test_the_same_weights_are_the_same_bytes(rng):
    weights, tokens = draw(rng), token_table(ITEMS)
    assert export_search(weights, tokens) == export_search(weights, tokens)


def test_the_graph_knows_padding_from_words(semantic):
    _, _, loaded = semantic
    session = loaded.ranker._session
    words = np.array(buckets_of(("thing three", "", ""))) + 1
    padded = np.concatenate([np.zeros(5, np.int64), words])
    plain, filled = (
        session.run(["state"], {"history": row.reshape(1, -1), "k": np.array([1])})[0] for row in (words, padded)
    )
    assert plain == pytest.approx(filled, abs=1e-6)
    nothing = session.run(["state"], {"history": np.zeros((1, 3), np.int64), "k": np.array([1])})[0]
    assert not nothing.any()


@pytest.mark.parametrize("spoil", ["shape", "nan", "width"])
def test_weights_that_are_none_are_refused(rng, spoil):
    weights = draw(rng)
    tokens, question, item = weights.tokens, weights.question, weights.item
    if spoil == "shape":
        question = question[:, :16]
    elif spoil == "nan":
        tokens = tokens.copy()
        tokens[5, 5] = np.nan
    else:
        question, item = question[:, :24], item[:, :24]
    with pytest.raises(BadInputError):
        TowerWeights(tokens=tokens, question=question, item=item)
