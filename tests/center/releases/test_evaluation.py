from dataclasses import replace

import numpy as np
import pytest

from center.releases.evaluation import Agreement, check, compare, sample_histories
from center.releases.export import export
from center.settings import GateSettings
from protocol.content import token_table
from protocol.errors import UntrustedReleaseError
from protocol.models import weights as model_weights
from protocol.models.weights import SequenceConfig

ITEMS, LENGTH = 400, 8
TOKENS = token_table([(f"thing {number}", "", "") for number in range(ITEMS)])
POPULARITY = np.append(0, np.geomspace(500, 20, ITEMS)).round()


@pytest.fixture
def rng():
    return np.random.default_rng(20_261_121)


def exported(seed=1):
    config = SequenceConfig(items=ITEMS, embedding_size=32, history_length=LENGTH)
    weights = model_weights.initial(config, popularity=POPULARITY, min_support=20, rng=np.random.default_rng(seed))
    return export(weights, TOKENS, POPULARITY)


def test_a_faithful_artifact_passes(rng):
    agreement = compare(exported(), POPULARITY, history_length=LENGTH, rng=rng, histories=50)
    assert agreement.top10_overlap > 0.98
    assert agreement.ndcg > 0.98
    assert agreement.histories == 50
    check(agreement, gate=GateSettings())


def test_an_artifact_of_other_weights_is_held_back(rng):
    mixed = replace(exported(), fp32=exported(seed=2).fp32)
    agreement = compare(mixed, POPULARITY, history_length=LENGTH, rng=rng, histories=50)
    with pytest.raises(UntrustedReleaseError, match="top-10 overlap"):
        check(agreement, gate=GateSettings())


def test_a_damaged_table_is_held_back(rng):
    good = exported()
    path = "recommend/item_vectors.bin"
    table = np.frombuffer(good.files[path], "<f2").reshape(ITEMS + 1, -1)
    rolled = np.roll(table, 1, axis=0).astype("<f2").tobytes()
    agreement = compare(
        replace(good, files={**good.files, path: rolled}), POPULARITY, history_length=LENGTH, rng=rng, histories=50
    )
    with pytest.raises(UntrustedReleaseError):
        check(agreement, gate=GateSettings())


def test_a_refusal_says_how_far_and_where_the_limit_stands():
    agreement = Agreement(top10_overlap=0.9499, ndcg=0.99, histories=10)
    with pytest.raises(UntrustedReleaseError, match=r"0\.9499 .* less than 0\.95"):
        check(agreement, gate=GateSettings())


def test_the_right_items_in_the_wrong_order_are_held_back():
    with pytest.raises(UntrustedReleaseError, match="NDCG"):
        check(Agreement(top10_overlap=1.0, ndcg=0.9, histories=10), gate=GateSettings())


def test_sampled_histories_are_such_as_shops_have(rng):
    histories = sample_histories(POPULARITY, length=LENGTH, count=500, rng=rng)
    assert {len(history) for history in histories} == set(range(1, LENGTH + 1))
    rows = np.concatenate(histories)
    assert rows.min() >= 1
    assert rows.max() <= ITEMS
    counts = np.bincount(rows, minlength=ITEMS + 1)
    assert counts[1:21].sum() > 3 * counts[-20:].sum()


def test_histories_can_be_sampled_before_anything_was_sold(rng):
    histories = sample_histories(np.zeros(ITEMS + 1), length=LENGTH, count=20, rng=rng)
    assert all(1 <= row <= ITEMS for history in histories for row in history)
