"""The standing of the slots: every step is one file, and a boot loop ends."""

import pytest

from edge.releases.slots import MOST_REFUSED, OnTrial, Refusal, Standing
from protocol.errors import MalformedMessageError, OutOfTurnError

ONE, TWO = "1" * 64, "2" * 64
TRIAL = OnTrial(slot="b", version=2, sha256=TWO, since_ms=5)


@pytest.fixture
def trying():
    return Standing().commit("a", ONE).begin(TRIAL)


def test_what_is_written_is_read_back(trying):
    standing = trying.refuse(Refusal(version=1, sha256=ONE, why="slow"))
    assert Standing.from_bytes(standing.to_bytes()) == standing
    assert Standing.from_bytes(Standing().to_bytes()) == Standing()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"committed":"c","format":1,"proven":[],"refused":[],"trial":null}',
        b'{"committed":"a","format":1,"proven":[],"refused":[{"version":1}],"trial":null}',
    ],
)
def test_noise_is_refused(data):
    with pytest.raises(MalformedMessageError):
        Standing.from_bytes(data)


def test_committing_ends_the_trial_and_proves_the_bundle(trying):
    done = trying.commit("b", TWO)
    assert (done.committed, done.trial, done.proven) == ("b", None, (ONE, TWO))


def test_going_back_remembers_why_and_keeps_the_committed_slot(trying):
    back = trying.refuse(Refusal(version=2, sha256=TWO, why="x" * 999))
    assert (back.committed, back.trial) == ("a", None)
    assert back.refusal_of(2).why == "x" * 300
    assert TWO not in back.proven


def test_refusing_another_release_does_not_end_the_trial(trying):
    assert trying.refuse(Refusal(version=9, sha256=ONE, why="no")).trial == TRIAL


def test_what_serves_cannot_be_tried_out(trying):
    with pytest.raises(OutOfTurnError, match="on trial already"):
        trying.begin(TRIAL)
    with pytest.raises(OutOfTurnError, match="slot a serves"):
        Standing().commit("a", ONE).begin(OnTrial(slot="a", version=2, sha256=TWO, since_ms=5))


def test_only_a_crash_counts_as_a_start(trying):
    assert trying.rest().start().trial.starts == 1
    assert trying.start().start().trial.starts == 3
    assert trying.rest().rest().trial.starts == 0
    assert Standing().start() == Standing().rest() == Standing()


def test_what_is_remembered_is_bounded():
    standing = Standing()
    for version in range(1, 101):
        standing = standing.refuse(Refusal(version=version, sha256=ONE, why="no")).commit("a", f"{version:064}")
    assert len(standing.refused) == MOST_REFUSED
    assert standing.refusal_of(100)
    assert not standing.refusal_of(1)
    assert len(standing.proven) == 4
