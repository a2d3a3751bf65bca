import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from center.rounds import robustness
from center.rounds.robustness import ImplausibleAverageError, Verdict, check_average, judge, trimmed_mean
from protocol import lessons, privacy
from protocol.fixed_point import Segment
from protocol.privacy import UPDATE_SHARE, Privacy

CLIP = 2.0
LAYOUT = lessons.training_layout(1000, coordinate_clip=CLIP)


@pytest.fixture
def rng():
    return np.random.default_rng(20_261_121)


def honest(rng, count=7, d=500):
    """Averages of groups that learn the same thing from different users."""
    return list(rng.normal(0.1, 0.02, (count, d)))


def test_a_poisoned_group_moves_the_mean_and_not_the_trimmed_mean(rng):
    groups = honest(rng)
    clean = trimmed_mean(groups, trim=1)
    groups[3] = np.full(500, -1000.0)
    assert np.linalg.norm(np.mean(groups, axis=0) - clean) > 1000
    assert np.abs(trimmed_mean(groups, trim=1) - clean).max() < 0.05


def test_a_poisoner_who_stays_among_the_honest_gains_no_more_than_they_differ(rng):
    groups = honest(rng)
    low, high = np.min(groups, axis=0), np.max(groups, axis=0)
    poisoned = trimmed_mean([*groups, high + 1e-6, 1e9 * np.ones(500)], trim=2)
    assert np.all((low <= poisoned) & (poisoned <= high))


def test_more_poisoned_groups_than_are_trimmed_do_harm(rng):
    # What the trimmed mean does not promise: said here so that nobody believes it.
    groups = honest(rng)
    groups[:2] = [np.full(500, 1000.0)] * 2
    assert trimmed_mean(groups, trim=1).min() > 100


def test_without_trimming_it_is_the_mean(rng):
    groups = honest(rng)
    assert trimmed_mean(groups, trim=0) == pytest.approx(np.mean(groups, axis=0))


@given(seed=st.integers(0, 10_000), count=st.integers(3, 9), d=st.integers(1, 40), trim=st.integers(0, 4))
def test_it_is_the_mean_of_the_middle_of_each_coordinate(seed, count, d, trim):
    groups = np.random.default_rng(seed).integers(-3, 4, (count, d)).astype(np.float64)
    if 2 * trim >= count:
        with pytest.raises(ValueError, match="leaves none"):
            trimmed_mean(list(groups), trim=trim)
        return
    middle = [np.mean(sorted(column)[trim : count - trim]) for column in groups.T]
    assert trimmed_mean(list(groups), trim=trim) == pytest.approx(middle)
    assert trimmed_mean(list(groups[::-1]), trim=trim) == pytest.approx(middle)


def test_chunks_do_not_show(rng):
    groups = honest(rng, count=3, d=2 * (1 << 16) + 17)
    before = [group.copy() for group in groups]
    assert np.array_equal(trimmed_mean(groups, trim=1), np.median(groups, axis=0))
    assert all(np.array_equal(group, was) for group, was in zip(groups, before, strict=True))


def test_many_large_groups_are_not_stacked_whole():
    groups = [np.zeros(1_000_000) for _ in range(10)]
    tracemalloc.start()
    trimmed_mean(groups, trim=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000 + 16_000_000  # the answer, and a few chunks of ten rows; a whole stack were 80 MB


@pytest.mark.parametrize("count", [0, 1, 2])
def test_two_groups_cannot_outvote_each_other(count):
    with pytest.raises(ValueError, match="outvote"):
        trimmed_mean([np.zeros(3)] * count, trim=0)


@pytest.mark.parametrize("trim", [-1, 2, 50])
def test_trimming_that_leaves_nobody_is_refused(trim):
    with pytest.raises(ValueError, match="leaves none"):
        trimmed_mean([np.zeros(3)] * 4, trim=trim)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_cannot_hide_at_the_end_of_the_order(poison):
    with pytest.raises(ValueError, match="finite"):
        trimmed_mean([np.zeros(3), np.array([0.0, poison, 0.0]), np.zeros(3)], trim=1)


def test_groups_of_different_models_are_refused():
    with pytest.raises(ValueError, match="lengths"):
        trimmed_mean([np.zeros(3), np.zeros(4), np.zeros(3)], trim=1)


def sum_of_honest_edges(rng, layout, *, edges=10, clip=CLIP, examples=1.0):
    """Update and weight as decoded, all edges at their clip in one direction, every rounding as unlucky as can be."""
    update, weight = layout[0], layout[1]
    direction = np.abs(rng.standard_normal(update.length))
    direction *= clip / np.linalg.norm(direction)
    weights = examples * rng.uniform(0.01, 1.0, edges)
    step, weight_step = 2.0 ** -update.exponent(edges), 2.0 ** -weight.exponent(edges)
    rounded = sum(np.ceil(share * direction / step) * step for share in weights)
    return rounded, sum(math.floor(share / weight_step) * weight_step for share in weights)


@pytest.mark.parametrize("bits", [32, 16, 12])
def test_honest_edges_at_their_clip_are_believed_whatever_rounding_does(rng, bits):
    layout = lessons.training_layout(1000, coordinate_clip=CLIP, word_bits=bits)
    total, weight = sum_of_honest_edges(rng, layout)
    more = robustness.rounding_and_noise(layout, edges=10, weight=weight, clip=CLIP)
    average = total / weight
    assert np.linalg.norm(average) > CLIP
    check_average(average, clip=CLIP, slack=more)


def test_sites_with_hardly_any_examples_are_believed_though_their_weight_is_mostly_rounding(rng):
    layout = (Segment(name="update", length=1, bound=1e-6), Segment(name="weight", length=1, bound=1.0))
    total, weight = sum_of_honest_edges(rng, layout, clip=1e-6, examples=2e-7)
    more = robustness.rounding_and_noise(layout, edges=10, weight=weight, clip=1e-6)
    assert total[0] / weight > 1.02e-6
    check_average(total / weight, clip=1e-6, slack=more)


def test_an_edge_beyond_its_clip_is_noticed(rng):
    total, weight = sum_of_honest_edges(rng, LAYOUT, edges=9)
    total += 3 * CLIP * total / np.linalg.norm(total)
    weight += 1.0
    more = robustness.rounding_and_noise(LAYOUT, edges=10, weight=weight, clip=CLIP)
    assert more < 0.001 * CLIP
    with pytest.raises(ImplausibleAverageError, match="norm"):
        check_average(total / weight, clip=CLIP, slack=more)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_an_average_that_is_no_number_is_discarded(wrong):
    with pytest.raises(ImplausibleAverageError):
        check_average(np.array([0.0, wrong]), clip=CLIP)


def test_noise_is_not_taken_for_poison_and_poison_not_for_noise(rng):
    edges, users, d = 10, 2000, 5000
    private = Privacy(noise_multiplier=1.0, user_clip=1.0, colluders=1)
    bound = privacy.shared_bound(private, users=users)
    layout = lessons.training_layout(d, coordinate_clip=bound, private_bound=bound)
    variance = privacy.variance_of_sum(private, layout=layout, edges=edges)
    step = 2.0 ** -privacy.exponent(private, layout=layout, edges=edges)
    loud = rng.normal(0, math.sqrt(variance) * step, d)
    weight = users + rng.normal(0, math.sqrt(variance) * step) / private.unit("weight")
    clip = UPDATE_SHARE * private.user_clip
    more = robustness.rounding_and_noise(
        layout, edges=edges, weight=weight, clip=clip, noise=variance, weight_unit=private.unit("weight")
    )
    agreed = np.zeros(d)
    agreed[0] = users * clip
    check_average((agreed + loud) / weight, clip=clip, slack=more)
    assert more < 8 * np.linalg.norm(loud) / weight
    with pytest.raises(ImplausibleAverageError):
        check_average((5 * agreed + loud) / weight, clip=clip, slack=more)


@pytest.mark.parametrize(
    ("before", "after", "max_drop", "verdict"),
    [
        (0.10, 0.12, 0.0, Verdict.KEEP),
        (0.10, 0.10, 0.0, Verdict.KEEP),
        (0.10, 0.096, 0.05, Verdict.KEEP),
        (0.10, 0.094, 0.05, Verdict.DISCARD),
        (0.10, 0.0, 0.5, Verdict.DISCARD),
        (0.10, 0.0, 1.0, Verdict.KEEP),
        (0.0, 0.0, 0.05, Verdict.KEEP),
        (0.10, math.nan, 0.5, Verdict.DISCARD),
        (math.nan, 0.10, 0.5, Verdict.DISCARD),
    ],
)
def test_a_step_that_makes_things_worse_is_taken_back(before, after, max_drop, verdict):
    assert judge(before, after, max_drop=max_drop) is verdict


def test_slack_needs_an_update_and_a_weight():
    with pytest.raises(KeyError):
        robustness.rounding_and_noise((Segment(name="counts", length=3, bound=1.0),), edges=3, weight=1.0, clip=1.0)
