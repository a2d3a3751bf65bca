"""The model's answers are the model's, whatever lies on the disk."""

import numpy as np
import pytest

from edge.serving.ranker import ModelFailedError, Ranker, best
from protocol.errors import UntrustedReleaseError


@pytest.fixture
def ranker(load_release):
    return load_release().ranker


def test_neighbours_of_what_was_bought_come_first(ranker):
    ranked = ranker.rank(np.array([6]), k=3)
    assert ranked.rows.tolist()[0] == 6
    assert set(ranked.rows.tolist()) == {5, 6, 7}


def test_scores_of_any_row_are_those_of_the_graph(ranker):
    ranked = ranker.rank(np.array([3, 4, 9]), k=12)
    scores = ranker.score(ranked.state, ranked.rows)
    assert (np.diff(scores) <= 1e-6).all()
    assert sorted(ranked.rows.tolist()) == list(range(1, 13))


def test_only_the_newest_part_of_a_long_history_is_read(ranker):
    long = np.array([12] * 50 + [1] * 5)
    assert ranker.rank(long, k=1).rows.tolist() == [1]


def test_more_items_are_asked_for_than_there_are(ranker):
    assert len(ranker.rank(np.array([1]), k=500).rows) == 12


def test_an_item_is_not_similar_to_itself(ranker):
    allowed = np.ones(13, bool)
    rows, cosines = ranker.similar(6, allowed, k=2)
    assert set(rows.tolist()) == {5, 7}
    assert (cosines <= 1).all()
    allowed[5] = False
    assert 5 not in ranker.similar(6, allowed, k=11)[0]


def test_history_with_an_impossible_row_is_an_error_not_a_crash(ranker):
    with pytest.raises(ModelFailedError):
        ranker.rank(np.array([999]), k=3)
    assert ranker.rank(np.array([1]), k=1).rows.tolist() == [1]


@pytest.mark.parametrize("damage", ["cut", "missing", "noise", "other model"])
def test_damaged_bundle_is_refused(make_bundle, damage):
    folder = make_bundle() / "recommend"
    if damage == "cut":
        (folder / "item_vectors.bin").write_bytes(b"\0" * 10)
    if damage == "missing":
        (folder / "item_bias.bin").unlink()
    if damage == "noise":
        (folder / "model.onnx").write_bytes(b"noise" * 100)
    if damage == "other model":
        (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes().replace(b"history", b"hist0ry"))
    with pytest.raises(UntrustedReleaseError):
        Ranker.load(folder, items=12, embedding_size=4, history_length=5)


def test_vectors_that_are_not_numbers_are_refused_before_serving(make_bundle):
    with pytest.raises(UntrustedReleaseError):
        Ranker.load(
            make_bundle(vectors=np.full((13, 4), np.nan)) / "recommend", items=12, embedding_size=4, history_length=5
        )


def test_best_leaves_out_what_is_forbidden():
    scores = np.array([1, -np.inf, 3, 3, 2], np.float32)
    assert best(scores, 10).tolist() == [2, 3, 4, 0]
    assert best(scores, 2).tolist() == [2, 3]
    assert best(np.empty(0, np.float32), 2).tolist() == []
