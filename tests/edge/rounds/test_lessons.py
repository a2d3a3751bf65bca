"""What a site remembers of a campaign, so that a center cannot lead its weights far astray in one step."""

import numpy as np
import pytest

from edge.rounds.lessons import LastWeights
from protocol.errors import PeerMisbehavedError, RefusedByPolicyError
from protocol.models import weights as model_weights

SHAPE = model_weights.SequenceConfig(items=3, embedding_size=2, history_length=2, layers=1, heads=1)


def weights(shape=SHAPE, *, moved=0.0):
    counts = np.ones(shape.items + 1)
    made = model_weights.initial(shape, popularity=counts, min_support=1, rng=np.random.default_rng(7))
    made.tensors["position"][0, 0] += np.float32(moved)
    return made


@pytest.fixture
def last(tmp_path):
    last = LastWeights(path=tmp_path / "last-weights", max_move=1.0)
    last.check("spring", weights())  # nothing is known yet
    last.keep("spring", weights().to_bytes())
    return last


def test_weights_may_move_as_far_as_the_operator_says(last) -> None:
    last.check("spring", weights(moved=0.9))
    with pytest.raises(RefusedByPolicyError, match=r"moved by 1\.5: it allows 1") as refusal:
        last.check("spring", weights(moved=1.5))
    assert "policy.max_move" in refusal.value.line()


def test_another_campaign_begins_where_it_likes(last) -> None:
    last.check("autumn", weights(moved=100.0))


def test_a_model_does_not_change_its_shape_within_a_campaign(last) -> None:
    other = model_weights.SequenceConfig(items=3, embedding_size=2, history_length=3, layers=1, heads=1)
    with pytest.raises(PeerMisbehavedError, match="shape"):
        last.check("spring", weights(other))
