"""The model's answers are the model's, whatever lies on the disk."""

import numpy as np
import pytest

from edge.serving import ranker as ranker_module
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


@pytest.mark.parametrize("wide", [True, False])
def test_nearest_rows_are_those_of_the_whole_table(monkeypatch, wide):
    rng = np.random.default_rng(3)
    vectors = (rng.standard_normal((20_000, 8)) * rng.lognormal(0, 2, (20_000, 1))).astype(np.float16)
    vectors[0] = 0
    monkeypatch.setattr(ranker_module, "MOST_WIDE_BYTES", 1 << 30 if wide else 0)
    table = Ranker(None, vectors, np.zeros(20_000, np.float32), history_length=1)
    direction = rng.standard_normal(8).astype(np.float32)
    direction /= np.linalg.norm(direction)
    exact = vectors.astype(np.float64)
    cosines = exact @ direction / np.maximum(np.linalg.norm(exact, axis=1), 1e-6)
    cosines[0] = -np.inf
    rows, found = table.nearest(direction, k=300)
    assert rows.tolist() == np.argsort(-cosines)[:300].tolist()
    assert found == pytest.approx(cosines[rows], abs=1e-5)
    some = rng.permutation(20_000)[:9_000]
    assert table.cosines(some, direction) == pytest.approx(np.where(some, cosines[some], 0), abs=1e-5)
    assert np.array_equal(table.at(rows), vectors[rows].astype(np.float32))


def test_every_half_number_is_widened_to_itself():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(-1, 2)
    widened = ranker_module._widened(halves)
    assert widened.tobytes() == halves.astype(np.float32).tobytes()


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
