"""The benchmarks measure what they say, at sizes that take a moment. No speed is asserted: this machine may be busy."""

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import structlog

from center.settings import ModelSettings
from protocol.errors import TooFewSurvivorsError
from protocol.identity import EdgeId
from protocol.secure_sum import Phase
from simulation.bench import flower, growth, masking, plot, secure_sum, superlink_round, timing, word_bits
from simulation.bench.cohort import Cohort
from simulation.bench.superlink_round import PlainRound
from simulation.cli import main

HEADLINES = {
    "mask_ratio_vs_flower",
    "mask_gb_per_s",
    "shamir_ratio_vs_flower",
    "upload_bytes_per_parameter",
    "unmask_seconds",
    "round_ratio_vs_fedavg",
    "edge_memory_ratio",
}
SMALL = secure_sum.Size(
    round=superlink_round.Plan(sites=5, dropped=1, parameters=1000, training_seconds=0.3, repetitions=1),
    repetitions=1,
    parameters=1_000_000,
    upload_parameters=20_000,
    threshold=3,
    shares=5,
    sites=(3, 4),
    lengths=(1000, 2000),
    few=1000,
    company=4,
)


def is_positive(figure) -> bool:
    return math.isfinite(figure) and figure > 0


@pytest.fixture(scope="module")
def measured():
    """Everything once, the round over a real SuperLink included, and what was shown meanwhile."""
    shown: list[str] = []
    return secure_sum.run(SMALL, advance=shown.append), shown


@pytest.fixture
def report(measured):
    return measured[0]


@pytest.fixture
def untouched_log():
    yield
    structlog.reset_defaults()


def test_every_headline_is_a_figure_and_there_is_no_other(report):
    assert set(report) == HEADLINES | {"details"}
    assert all(is_positive(report[name]) for name in HEADLINES)


def test_progress_reaches_its_end(measured):
    assert len(measured[1]) == secure_sum.steps(SMALL)


def test_costs_are_followed_over_sites_and_parameters(report):
    grown = report["details"]["growth"]
    assert [row["sites"] for row in grown["by_sites"]] == [3, 4]
    assert [row["parameters"] for row in grown["by_parameters"]] == [1000, 2000]
    for row in grown["by_sites"] + grown["by_parameters"]:
        assert is_positive(row["mask_seconds"])
        assert is_positive(row["unmask_seconds"])
        assert row["upload_bytes"] > 4 * row["parameters"]


def test_a_narrower_word_makes_a_smaller_upload(report):
    sizes = report["details"]["upload"]["bytes_per_parameter"]
    assert sizes["16"] < sizes["20"] < sizes["24"] < sizes["32"]


def test_both_rounds_over_superlink_take_as_long_as_training_at_least(report):
    around = report["details"]["round"]
    assert all(
        seconds > SMALL.round.training_seconds for seconds in around["secure_seconds"] + around["fedavg_seconds"]
    )
    assert is_positive(around["epoch_seconds"])


def test_the_plot_is_written(report, tmp_path):
    for name in ("growth.svg", "growth.png"):
        plot.draw_growth(report["details"]["growth"], tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000


@pytest.mark.usefixtures("untouched_log")
def test_json_is_all_that_goes_to_standard_output(report, monkeypatch, capsys, tmp_path):
    def say_and_run(size, *, advance):
        assert size is secure_sum.QUICK
        advance("masking")
        structlog.get_logger().warning("no answer")
        return report

    monkeypatch.setattr(secure_sum, "run", say_and_run)
    path = tmp_path / "docs" / "growth.svg"
    assert main(["bench", "secure-sum", "--quick", "--json", "--plot", str(path)]) == 0
    assert json.loads(capsys.readouterr().out) == report
    assert path.exists()


@pytest.mark.usefixtures("untouched_log")
def test_people_get_a_table_with_the_goals(report, monkeypatch, capsys):
    monkeypatch.setattr(secure_sum, "run", lambda _size, **_: report)
    assert main(["bench", "secure-sum"]) == 0
    told = capsys.readouterr().out
    assert "by number of sites" in told
    assert "10x" in told


def test_flowers_masks_vanish_in_the_sum_as_ours_do():
    own, other, shared = (os.urandom(32) for _ in range(3))
    values = np.linspace(-1, 1, 50).astype(np.float32)
    first = flower.quantize_and_mask(values, own=own, before=[], behind=[shared])
    second = flower.quantize_and_mask(values, own=other, before=[shared], behind=[])
    total = (first + second - flower.expand(own, 50) - flower.expand(other, 50)) % (1 << 32)
    steps_a_unit = (1 << 22) / 16
    assert np.abs(total / steps_a_unit - 16 - 2 * values).max() < 3 / steps_a_unit


def test_sides_take_turns_and_the_first_turn_does_not_count():
    turns = []
    seconds = timing.in_turns({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, repetitions=2)
    assert turns == ["a", "b"] * 3
    assert set(seconds) == {"a", "b"}


def test_one_core_is_given_back():
    before = os.sched_getaffinity(0)
    with timing.one_core():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_a_machine_without_openssl_is_measured_too(monkeypatch):
    monkeypatch.setattr(masking.shutil, "which", lambda _name: None)
    figures = masking.expansion(words=1000, repetitions=1)
    assert figures["openssl_gb_per_s"] is None
    assert is_positive(figures["gb_per_s"])


def test_what_the_center_opens_in_the_benchmark_is_a_real_round():
    before = Cohort.of(8, parameters=100).about_to_open(dropped=2)
    assert before.total.any()
    after = before.close_phase()
    assert after.phase is Phase.SUMMED
    assert not after.total.any()


def test_shares_of_the_benchmark_are_checked_like_any_other():
    before = Cohort.of(8, parameters=100).about_to_open(dropped=2)
    first = min(before.unmaskings)
    wrong = {**before.unmaskings, first: (bytes(32), *before.unmaskings[first][1:])}
    with pytest.raises(TooFewSurvivorsError):
        replace(before, unmaskings=wrong).close_phase()


def test_most_dropouts_leave_a_threshold_of_edges():
    assert [growth.most_dropouts(edges) for edges in (3, 5, 8, 10, 200)] == [0, 1, 2, 3, 66]


def test_plain_averaging_is_driven_like_a_secure_round():
    cohort = Cohort.of(5, parameters=3)
    bare = replace(cohort.announcement, layout=cohort.announcement.layout[:1])
    began = PlainRound.announce(bare, roster=cohort.roster)
    for number in range(4):
        answer = np.full(3, number, dtype=np.float32).tobytes()
        began = began.receive(EdgeId(f"edge-00{number}"), Phase.MASKING, answer)
    assert began.threshold == 4
    assert began.missing == ("edge-004",)
    after = began.close_phase()
    assert after.phase is Phase.SUMMED
    assert (after.total.view(np.float32) == 6).all()


def test_words_of_fewer_bits_say_less():
    widths = tuple(word_bits.Width(bits=bits, coordinate_clip=1.0) for bits in (0, 32, 12))
    plan = word_bits.Plan(sites=3, fraction=0.01, rounds=2, widths=widths, weight_cap=10_000)
    shown: list[str] = []
    model = ModelSettings(embedding_size=8, history_length=10, batch_size=16, negatives=16)
    report = word_bits.run(plan, model=model, advance=shown.append)
    assert len(shown) == word_bits.steps(plan)
    floats, wide, narrow = report["widths"]
    assert floats["relative_error"] == [0, 0]
    assert 0 < wide["relative_error"][0] < narrow["relative_error"][0]
    assert narrow["bytes_per_parameter"] < wide["bytes_per_parameter"]
    assert all(len(row["ndcg@10"]) == 2 for row in report["widths"])
    assert report["coordinates"]["weighted"]["1"] <= report["coordinates"]["update"]["1"]
    json.dumps(report, allow_nan=False)
