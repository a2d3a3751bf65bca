"""What a site tells of releases when it is asked: within bounds, once, and never of another release."""

from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from edge.records.store import Store
from edge.releases import evaluating
from edge.releases.trial_record import Outcome, TrialRecord
from edge.rounds.figures import EvaluationLesson, HealthLesson
from edge.rounds.ledger import Ledger, Question
from protocol import lessons
from protocol.announcement import Announcement, Purpose
from protocol.errors import MalformedMessageError, PeerMisbehavedError, UnavailableError, UntrustedReleaseError
from protocol.fixed_point import encode
from protocol.identity import EdgeId, FederationId
from protocol.lessons import EVALUATED, HEALTH
from protocol.privacy import Privacy

NOISE = Privacy(noise_multiplier=1.0, user_clip=2.0, colluders=0)
ASKED = Announcement(
    federation=FederationId("hanse"),
    campaign="release-8",
    round=5,
    key_epoch=1,
    roster_version=1,
    center_epoch=1,
    cohort=tuple(EdgeId(name) for name in ("bergen", "bruges", "visby")),
    prekeys=(bytes(32),) * 3,
    purpose=Purpose.HEALTH,
    submodel="recommend",
    weights_sha256=sha256(b"").digest(),
    window=80_001,
    layout=lessons.health_layout(),
    clip=1.0,
    coordinate_clip=1.0,
    weight_cap=100,
    deadline_ms=1,
    training={"release": 8.0},
)
EVALUATION = replace(
    ASKED, purpose=Purpose.EVALUATE, window=8, layout=lessons.evaluation_layout(), training={"release": 8.0}
)
RECORD = TrialRecord(
    version=8,
    sha256="0" * 64,
    outcome=Outcome.KEPT,
    answers=1000,
    errors=3,
    slow=40,
    overlap=0.75,
    queries=200,
    ndcg_new=0.25,
    ndcg_old=0.5,
    events=400,
)


def said(record, asked=ASKED, *, after=0):
    lesson = HealthLesson(record=lambda: record)
    assert lesson.layout(asked, b"") == lessons.health_layout()
    values = lesson.values(asked, b"", after=after)
    encode(values, layout=asked.layout, edges=200, seed=None)  # refuses what is missing or beyond its bound
    return values


def test_a_trial_that_is_over_is_told_in_full() -> None:
    assert said(RECORD) == {
        "reached": 1.0,
        "kept": 1.0,
        "went_back": 0.0,
        "answers": 1000.0,
        "errors": 3.0,
        "slow": 40.0,
        "overlap": 150.0,
        "queries": 200.0,
        "ndcg_new": 100.0,
        "ndcg_old": 200.0,
        "events": 400.0,
    }


@pytest.mark.parametrize("record", [None, replace(RECORD, version=7), replace(RECORD, version=9)])
def test_a_site_that_has_not_tried_the_release_says_so(record) -> None:
    assert said(record) == dict.fromkeys(HEALTH, 0.0)


@pytest.mark.parametrize(
    ("outcome", "kept", "went_back"),
    [(Outcome.ON_TRIAL, 0, 0), (Outcome.KEPT, 1, 0), (Outcome.WENT_BACK, 0, 1), (Outcome.SUPERSEDED, 0, 0)],
)
def test_how_it_ended_is_told_whenever_it_is_asked(outcome, kept, went_back) -> None:
    for after in (0, 8):
        values = said(replace(RECORD, outcome=outcome), after=after)
        assert (values["reached"], values["kept"], values["went_back"]) == (1, kept, went_back)


def test_a_trial_that_goes_on_tells_no_figures_and_uses_nothing_up() -> None:
    going_on = replace(RECORD, outcome=Outcome.ON_TRIAL)
    assert said(going_on)["answers"] == 0
    assert HealthLesson(record=lambda: going_on).until() < HealthLesson(record=lambda: RECORD).until()


def test_what_happened_in_a_trial_is_told_once_whatever_the_window(tmp_path) -> None:
    """Two rings that differ by one site would tell that site's quality."""
    ledger, lesson = Ledger(tmp_path / "state.db"), HealthLesson(record=lambda: RECORD)
    told = []
    for number in (1, 2):
        asked = replace(ASKED, round=number, window=80_000 + number)
        after = ledger.mark(asked)
        ledger.begin(asked, until=lesson.until(), now_ms=1)
        told.append(lesson.values(asked, b"", after=after)["events"])
        ledger.keep_answer(number, b"")
    ledger.close()
    assert told == [400, 0]


def test_a_busy_site_counts_as_its_bound_with_the_same_shares() -> None:
    values = said(replace(RECORD, answers=4 << 20, errors=1 << 20, slow=0, queries=1 << 20, events=1 << 20))
    assert (values["answers"], values["errors"]) == (1 << 20, 1 << 18)
    assert (values["overlap"], values["ndcg_new"]) == (0.75 * (1 << 16), 0.25 * 4096)


def test_a_record_that_cannot_be_is_cut_to_what_can() -> None:
    values = said(replace(RECORD, errors=5000, overlap=7.0, ndcg_new=-1.0))
    assert (values["errors"], values["overlap"], values["ndcg_new"]) == (1000, 200, 0)


def test_health_is_asked_without_weights_and_without_noise_and_of_one_release() -> None:
    lesson = HealthLesson(record=lambda: RECORD)
    with pytest.raises(PeerMisbehavedError, match="no weights"):
        lesson.layout(ASKED, b"weights")
    with pytest.raises(PeerMisbehavedError, match="without noise"):
        lesson.layout(replace(ASKED, privacy=NOISE), b"")
    with pytest.raises(MalformedMessageError, match="which release"):
        lesson.layout(replace(ASKED, training={}), b"")


@pytest.fixture
def evaluation(tmp_path, monkeypatch):
    """A lesson around sums that need no model: 10 events in each segment."""
    calls = []

    def evaluate(_store, candidate, serving, *, draw):
        calls.append((candidate, serving, draw))
        return {name: np.array([10.0, 4.0, 5.0, 2.0, 3.0]) for name in EVALUATED}

    monkeypatch.setattr("edge.rounds.figures.evaluate", evaluate)
    lesson = EvaluationLesson(
        candidate=lambda number: (lambda: "the candidate") if number == 8 else None,
        serving=lambda: None,
        store=lambda: Store.open(tmp_path / "store.db"),
    )
    return lesson, calls


def test_an_edge_without_the_candidate_refuses_before_anything_is_used_up(evaluation) -> None:
    lesson, _ = evaluation
    with pytest.raises(UnavailableError, match="candidate 9 has not arrived here yet"):
        lesson.layout(replace(EVALUATION, window=9), b"")
    with pytest.raises(PeerMisbehavedError, match="no weights"):
        lesson.layout(EVALUATION, b"weights")


def test_the_candidate_is_measured_beside_what_serves(evaluation) -> None:
    lesson, calls = evaluation
    assert lesson.layout(EVALUATION, b"") == lessons.evaluation_layout()
    values = lesson.values(EVALUATION, b"", after=0)
    assert [part.tolist() for part in values.values()] == [[10, 4, 5, 2, 3]] * 4
    assert calls == [("the candidate", None, 8)]
    replace_serving = replace(lesson, serving=lambda: lambda: "the release")
    replace_serving.values(EVALUATION, b"", after=0)
    assert calls[-1] == ("the candidate", "the release", 8)


def test_a_committed_release_that_does_not_load_leaves_popularity_as_the_measure(evaluation) -> None:
    lesson, calls = evaluation

    def broken():
        raise UntrustedReleaseError("a file is missing")

    replace(lesson, serving=lambda: broken).values(EVALUATION, b"", after=0)
    assert calls == [("the candidate", None, 8)]


def test_a_candidate_that_does_not_load_is_refused_without_a_word_of_this_machine(evaluation) -> None:
    lesson, _ = evaluation

    def broken():
        raise UntrustedReleaseError("/home/bergen/candidate/8/model.onnx is missing")

    with pytest.raises(UnavailableError) as refusal:
        replace(lesson, candidate=lambda _number: broken).values(EVALUATION, b"", after=0)
    assert str(refusal.value) == "candidate 8 does not load here"


def test_under_noise_one_user_moves_the_vector_by_less_than_the_clip(evaluation, monkeypatch) -> None:
    """Whether an item is new depends on all users, so that segment stays empty."""
    lesson, _ = evaluation
    monkeypatch.setattr("edge.rounds.figures.evaluate", lambda *_a, **_k: {name: np.ones(5) for name in EVALUATED})
    asked = replace(EVALUATION, privacy=NOISE, layout=lessons.evaluation_layout(private_bound=50.0))
    assert lesson.layout(asked, b"") == asked.layout
    values = lesson.values(asked, b"", after=0)
    assert not values["new_items"].any()
    assert 0.9 < np.linalg.norm(np.concatenate(list(values.values()))) / NOISE.user_clip < 1


def test_an_evaluation_is_one_question_a_candidate_and_no_statistic() -> None:
    first, other = Question.of(EVALUATION), Question.of(replace(EVALUATION, window=9))
    assert first != other
    assert first.statistic == ""
    assert evaluating.MOST_USERS <= lessons.EVENTS_BOUND
