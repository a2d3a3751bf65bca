import numpy as np
import pytest

from protocol.ranking_metrics import ndcg, recall, target_ranks


def ranks_of(scores, *targets):
    offsets = np.cumsum([0, *(len(rows) for rows in targets)]).astype(np.int64)
    return target_ranks(np.array(scores, np.float32), np.concatenate(targets).astype(np.int32), offsets), offsets


def test_padding_never_outranks_an_item():
    ranks, _ = ranks_of([[9.0, 1.0, 2.0, 3.0]], [1, 3])
    assert ranks.tolist() == [3.0, 1.0]


def test_a_constant_score_earns_no_more_than_chance():
    # Whoever breaks ties by row number calls a model that learnt nothing perfect.
    ranks, offsets = ranks_of(np.zeros((1, 101)), [1])
    assert ranks.tolist() == [50.5]
    assert recall(ranks, offsets, k=10).tolist() == [0.0]


def test_each_user_is_ranked_in_their_own_row():
    ranks, offsets = ranks_of([[0, 1, 2, 3], [0, 3, 2, 1]], [3], [3, 1])
    assert ranks.tolist() == [1.0, 3.0, 1.0]
    assert offsets.tolist() == [0, 1, 3]


def test_a_basket_larger_than_the_list_can_still_be_served_perfectly():
    ranks, offsets = ranks_of([np.arange(31, 0, -1)], np.arange(1, 21))
    assert recall(ranks, offsets, k=10).tolist() == [1.0]
    assert ndcg(ranks, offsets, k=10) == pytest.approx([1.0])


def test_ndcg_of_a_known_order():
    # Targets at ranks 2 and 4 of a basket of two: (1/log2 3 + 1/log2 5) / (1 + 1/log2 3).
    ranks, offsets = ranks_of([[0, 4, 3, 2, 1]], [2, 4])
    expected = (1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3))
    assert ndcg(ranks, offsets, k=10) == pytest.approx([expected])
    assert recall(ranks, offsets, k=3).tolist() == [0.5]


def test_a_user_without_targets_is_no_division_by_zero():
    ranks, offsets = ranks_of([[0, 1, 2], [0, 1, 2]], [2], [])
    assert recall(ranks, offsets, k=10).tolist() == [1.0, 0.0]
    assert ndcg(ranks, offsets, k=10).tolist() == [1.0, 0.0]
