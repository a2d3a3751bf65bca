"""What the sites have measured, against the thresholds."""

import pytest

from center.releases import gate
from center.releases.gate import GateFigures, Quality
from center.settings import GateSettings
from protocol import canonical
from protocol.errors import MalformedMessageError
from protocol.lessons import EVALUATED

GATE = GateSettings()


def quality(ndcg=0.30, *, base=0.30, events=1000.0):
    return Quality(events=events, ndcg=ndcg, recall=0.4, base_ndcg=base, base_recall=0.4)


def figures(deviation=0.0, **segments):
    return GateFigures(
        segments={name: segments.get(name, quality()) for name in EVALUATED}, sites=5, deviation=deviation
    )


@pytest.mark.parametrize(
    "held",
    [
        figures(),
        figures(all=quality(0.35)),
        figures(all=quality(0.2941)),
        figures(tail=quality(0.271)),
        figures(new_items=quality(0.01, events=99.0)),
        figures(new_users=quality(0.0, base=0.0)),
    ],
)
def test_a_candidate_that_holds_every_threshold_has_no_faults(held) -> None:
    assert gate.check(held, GATE) == []


@pytest.mark.parametrize(
    ("fallen", "word", "setting"),
    [
        (figures(all=quality(0.293)), "all users falls from 0.3000 to 0.2930 on 1000 events, more than 2%", "ndcg"),
        (figures(new_users=quality(0.26)), "new users", "segment"),
        (figures(new_items=quality(0.26)), "new items", "segment"),
        (figures(tail=quality(0.26)), "the tail", "segment"),
    ],
)
def test_what_falls_is_named_with_its_figures_and_its_setting(fallen, word, setting) -> None:
    (fault,) = gate.check(fallen, GATE)
    assert word in fault
    assert f"(gate.max_{setting}_drop)" in fault


def test_everything_that_falls_is_named() -> None:
    assert len(gate.check(figures(**dict.fromkeys(EVALUATED, quality(0.1))), GATE)) == 4


def test_too_few_events_judge_nothing_and_release_nothing() -> None:
    (fault,) = gate.check(figures(all=quality(events=99.0)), GATE)
    assert "99 events, 100 are needed" in fault


def test_a_drop_within_the_noise_is_no_drop() -> None:
    assert gate.check(figures(deviation=10.0, all=quality(0.28)), GATE) == []
    assert gate.check(figures(deviation=1.0, all=quality(0.28)), GATE) != []


def test_sums_become_means_and_noise_below_zero_becomes_nothing() -> None:
    names = ("events", "ndcg", "recall", "base_ndcg", "base_recall")
    assert Quality.of(dict(zip(names, (10, 5, 4, 3, 2), strict=True))) == Quality(
        events=10, ndcg=0.5, recall=0.4, base_ndcg=0.3, base_recall=0.2
    )
    assert Quality.of(dict.fromkeys(names, -1.5)) == Quality(events=0, ndcg=0, recall=0, base_ndcg=0, base_recall=0)


def test_figures_are_read_back_as_they_were_written() -> None:
    written = figures(deviation=0.5, tail=quality(0.1))
    assert GateFigures.from_json(canonical.decode(canonical.encode(written.to_json()))) == written
    with pytest.raises(MalformedMessageError):
        GateFigures.from_json({"segments": {}})
