import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ive, logsumexp

from protocol import cohort, privacy
from protocol.errors import MalformedMessageError
from protocol.fixed_point import Segment
from protocol.privacy import FIGURE_SHARE, FIGURES, ORDERS, UPDATE_SHARE, Privacy

PLAIN = Privacy(noise_multiplier=1.0, user_clip=1.0, colluders=1)


def layout(length=1000, bound=100.0, bits=32):
    return (
        Segment(name="update", length=length, bound=bound, bits=bits),
        Segment(name="weight", length=1, bound=bound, bits=bits),
    )


def skellam_log_pmf(furthest, variance):
    """log P(X = x) for x from 0; ratios of Bessel functions by the backward recurrence, which does not underflow."""
    ratio, ratios = 0.0, []
    for number in range(furthest + 2000, -1, -1):
        ratio = 1 / (2 * (number + 1) / variance + ratio)
        ratios.append(ratio)
    return np.log(ive(0, variance)) + np.concatenate([[0.0], np.cumsum(np.log(ratios[::-1]))])


def exact_divergence(order, shift, variance):
    """Renyi divergence between Skellam noise and itself moved by a whole number, summed term by term."""
    width = int(60 * math.sqrt(variance)) + 60 + 6 * (order + 1) * shift
    x = np.arange(-width, width + 1)
    log_pmf = skellam_log_pmf(width + shift, variance)
    there, moved = log_pmf[np.abs(x)], log_pmf[np.abs(x - shift)]
    assert logsumexp(there) == pytest.approx(0, abs=1e-9)
    return logsumexp(order * moved + (1 - order) * there) / (order - 1)


@pytest.mark.parametrize("variance", [0.5, 2.0, 20.0, 1000.0, 10_000.0])
@pytest.mark.parametrize("shift", [1, 3, 10, 50])
@pytest.mark.parametrize("order", [2, 3, 8, 32, 64])
def test_the_bound_never_promises_more_than_the_exact_divergence(order, shift, variance):
    bound = privacy.skellam_rdp(order, l1=shift, l2=shift, variance=variance)
    assert bound >= exact_divergence(order, shift, variance)


def test_with_much_noise_the_bound_is_that_of_gaussian_noise():
    bound = privacy.skellam_rdp(8, l1=100.0, l2=100.0, variance=1e10)
    assert bound == pytest.approx(8 * 100.0**2 / 2e10, rel=1e-4)


@pytest.mark.parametrize(
    ("order", "one_norm", "two_norm", "variance", "nats"),
    [
        (2, 1.0, 1.0, 1.0, 1 + 1.5),  # little noise: 3 D1 / (2 mu) is the smaller surplus
        (2, 1.0, 1.0, 100.0, 0.01 + 9 / 40_000),
        (3, 7.0, 4.0, 50.0, 0.48 + (5 * 16 + 42) / 10_000),
    ],
)
def test_the_bound_is_that_of_the_paper(order, one_norm, two_norm, variance, nats):
    assert privacy.skellam_rdp(order, l1=one_norm, l2=two_norm, variance=variance) == pytest.approx(nats)


@pytest.mark.parametrize("order", [1, 1.5, 2.5, 0, -3])
def test_orders_that_the_theorem_is_silent_about_are_refused(order):
    with pytest.raises(ValueError, match="whole orders"):
        privacy.skellam_rdp(order, l1=1.0, l2=1.0, variance=10.0)


def test_a_user_whose_figures_are_all_at_their_largest_keeps_within_the_clip():
    assert UPDATE_SHARE**2 + len(FIGURES) * FIGURE_SHARE**2 < 1
    figures = [PLAIN.unit(name) * largest for name, largest in FIGURES.items()]
    assert np.linalg.norm([UPDATE_SHARE, *figures]) < PLAIN.user_clip


def test_sums_come_back_in_the_units_of_any_other_round():
    private = Privacy(noise_multiplier=1.0, user_clip=0.5, colluders=0)
    sums = {
        "update": np.array([1.0, -2.0]),
        "weight": np.array([40 * private.unit("weight")]),
        "loss": np.array([40 * 3.5 * private.unit("loss")]),
        "ndcg": np.array([40 * 0.25 * private.unit("ndcg")]),
        "recall": np.array([0.0]),
    }
    plain = privacy.plain(sums, privacy=private)
    assert plain["update"].tolist() == [1.0, -2.0]
    assert [plain[name][0] for name in FIGURES] == pytest.approx([40.0, 140.0, 10.0, 0.0])


def test_a_site_with_no_more_users_than_asked_about_fits_its_weight():
    bound = privacy.shared_bound(PLAIN, users=500)
    assert 500 * PLAIN.unit("weight") <= bound < 501 * PLAIN.unit("weight")
    assert privacy.shared_bound(PLAIN, users=500, share=1.0) == 500 * PLAIN.user_clip


def test_rounding_cannot_move_a_site_further_than_the_books_say():
    rng = np.random.default_rng(1)
    k, d = 6, 40
    one_norm, two_norm = privacy.sensitivity(PLAIN, layout=layout(length=d - 1), exponent=k)
    furthest = np.zeros(2)
    for _ in range(2000):
        user = rng.standard_normal(d) * rng.choice([0.0, 1.0], d, p=[0.8, 0.2])
        user *= PLAIN.user_clip / max(np.linalg.norm(user), 1e-9)
        before, uniform = rng.normal(0, 5, d), rng.random(d)
        moved = np.floor((before + user) * 2**k + uniform) - np.floor(before * 2**k + uniform)
        furthest = np.maximum(furthest, [np.abs(moved).sum(), np.linalg.norm(moved)])
    assert furthest[0] <= one_norm
    assert furthest[1] <= two_norm
    assert furthest[1] > 0.9 * 2**k


@given(
    edges=st.integers(3, 200),
    noise_multiplier=st.floats(0.05, 50),
    user_clip=st.floats(0.01, 100),
    users=st.integers(16, 100_000),
    length=st.integers(1, 2_000_000),
    colluders=st.integers(0, 2),
)
def test_encoder_and_books_mean_the_same_scale(edges, noise_multiplier, user_clip, users, length, colluders):
    # If the encoder took a finer scale than the noise was made for, the noise would hide only half as much.
    asked = Privacy(noise_multiplier=noise_multiplier, user_clip=user_clip, colluders=colluders)
    words = layout(length=length, bound=privacy.shared_bound(asked, users=users))
    try:
        k = privacy.exponent(asked, layout=words, edges=edges)
    except MalformedMessageError:
        return
    room = privacy.variance_of_sum(asked, layout=words, edges=edges)
    share = privacy.variance_of_edge(asked, layout=words, edges=edges)
    assert words[0].exponent(edges, noise=room) == k
    assert room >= edges * share * (1 - 1e-12)
    honest = cohort.threshold(edges) - colluders
    _, two_norm = privacy.sensitivity(asked, layout=words, exponent=k)
    assert honest * share >= (noise_multiplier * two_norm) ** 2 * (1 - 1e-12)


def test_a_scale_that_would_fit_but_for_the_noise_is_not_taken():
    quiet = Privacy(noise_multiplier=0.01, user_clip=1.0, colluders=1)
    loud = Privacy(noise_multiplier=1000.0, user_clip=1.0, colluders=1)
    words = layout(bound=1.0)
    assert privacy.exponent(loud, layout=words, edges=10) < privacy.exponent(quiet, layout=words, edges=10)


def test_of_all_scales_that_fit_the_finest_is_taken():
    k = privacy.exponent(PLAIN, layout=layout(), edges=10)
    share = 10 / (cohort.threshold(10) - 1)
    _, two_norm = privacy.sensitivity(PLAIN, layout=layout(), exponent=k + 1)
    with_more = share * two_norm**2
    assert layout()[0].exponent(10, noise=with_more) < k + 1


def test_noise_that_no_word_can_hold_is_refused():
    loud = Privacy(noise_multiplier=2.0**20, user_clip=1.0, colluders=1)
    with pytest.raises(MalformedMessageError, match="headroom"):
        privacy.exponent(loud, layout=layout(length=1_000_000), edges=10)


@pytest.mark.parametrize("noise_multiplier", np.geomspace(1e3, 2.0**20, 200))
def test_noise_that_fills_the_words_to_the_last_step_is_refused_and_not_pondered_for_ever(noise_multiplier):
    # An announcement says the numbers; none may keep an edge busy.
    loud = Privacy(noise_multiplier=float(noise_multiplier), user_clip=1e-6, colluders=0)
    words = layout(length=1, bound=1e-6)
    try:
        room = privacy.variance_of_sum(loud, layout=words, edges=3)
    except MalformedMessageError:
        return
    assert words[0].exponent(3, noise=room) == privacy.exponent(loud, layout=words, edges=3)


def test_segments_on_different_scales_are_refused():
    # The sensitivity is that of one vector: a segment on a finer scale would need more noise than it gets.
    mixed = (*layout(), Segment(name="loss", length=1, bound=1.0))
    for ask in (privacy.exponent, privacy.variance_of_sum, privacy.rdp):
        with pytest.raises(MalformedMessageError, match="one bound"):
            ask(PLAIN, layout=mixed, edges=10)


def test_colluders_who_leave_their_noise_out_take_nothing_from_the_promise():
    bold = Privacy(noise_multiplier=1.0, user_clip=1.0, colluders=0)
    wary = Privacy(noise_multiplier=1.0, user_clip=1.0, colluders=3)
    assert privacy.rdp(bold, layout=layout(), edges=10) == privacy.rdp(wary, layout=layout(), edges=10)
    shares = [privacy.variance_of_edge(asked, layout=layout(), edges=10) for asked in (bold, wary)]
    assert shares[1] / shares[0] == pytest.approx(7 / 4)


def test_a_cohort_in_which_nobody_honest_need_survive_is_refused():
    with pytest.raises(MalformedMessageError, match="nobody"):
        privacy.share_of_noise(1.0, threshold=3, colluders=3)


def test_twice_the_noise_costs_a_quarter():
    loud = Privacy(noise_multiplier=2.0, user_clip=1.0, colluders=1)
    one, other = (privacy.rdp(asked, layout=layout(), edges=10, orders=(2, 32)) for asked in (PLAIN, loud))
    assert one == pytest.approx([1.0, 16.0], rel=1e-2)
    assert [a / b for a, b in zip(one, other, strict=True)] == pytest.approx([4.0, 4.0], rel=1e-2)
    assert len(privacy.rdp(PLAIN, layout=layout(), edges=10)) == len(ORDERS)


def test_privacy_survives_the_wire():
    assert Privacy.from_json(json.loads(json.dumps(PLAIN.to_json()))) == PLAIN
    whole = Privacy(noise_multiplier=1, user_clip=2, colluders=0)
    assert all(isinstance(whole.to_json()[name], float) for name in ("noise_multiplier", "user_clip"))


@pytest.mark.parametrize(
    "change",
    [
        {"noise_multiplier": 0.0},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": math.inf},
        {"noise_multiplier": math.nan},
        {"noise_multiplier": 1},
        {"user_clip": 0.0},
        {"user_clip": math.nan},
        {"user_clip": 1e300},
        {"user_clip": "1"},
        {"colluders": -1},
        {"colluders": True},
        {"colluders": 1.0},
        {"colluders": 201},
        {"epsilon": 1.0},
    ],
    ids=str,
)
def test_noise_that_hides_nothing_or_means_nothing_is_refused(change):
    with pytest.raises(MalformedMessageError):
        Privacy.from_json({**PLAIN.to_json(), **change})


def test_a_promise_with_a_part_missing_is_refused():
    with pytest.raises(MalformedMessageError):
        Privacy.from_json({"noise_multiplier": 1.0, "user_clip": 1.0})
