"""Attacks and accidents by silence: whoever falls silent costs nothing up to a third, and silence reveals nothing."""

import itertools
from dataclasses import replace
from hashlib import sha256

import pytest

from protocol import round_keys
from protocol.announcement import Purpose
from protocol.errors import OutOfTurnError, PeerMisbehavedError, TooFewSurvivorsError
from protocol.messages import MaskedUpdate, Unmasking
from protocol.privacy import Privacy
from protocol.secret_sharing import Recombination


def spread(total: int):
    """All ways to spread so many dropouts over the three stages."""
    return [cut for cut in itertools.product(range(total + 1), repeat=3) if sum(cut) == total]


SPARE = {5: 1, 8: 2, 10: 3}
"""By size of the cohort: a third, rounded up, less one."""


def run(world, edges, cut):
    """The last so many towns drop before the upload, those before them before they sign, and so on."""
    there = world.names[:edges]
    play = world.play(edges=edges)
    uploaded = there[: edges - cut[0]]
    signed = uploaded[: len(uploaded) - cut[1]]
    opened = signed[: len(signed) - cut[2]]

    def to_the_end() -> None:
        play.upload(uploaded).sign(signed).unmask(opened)

    return play, uploaded, to_the_end


@pytest.mark.parametrize(("edges", "cut"), [(edges, cut) for edges, spare in SPARE.items() for cut in spread(spare)])
def test_dropouts_of_a_third_less_one_at_each_stage_in_turn_and_spread(world, edges, cut) -> None:
    play, uploaded, to_the_end = run(world, edges, cut)
    to_the_end()
    assert play.is_sum_of(uploaded)


@pytest.mark.parametrize(
    ("edges", "cut"), [(edges, cut) for edges, spare in SPARE.items() for cut in spread(spare + 1)]
)
def test_one_dropout_more_fails_cleanly(world, edges, cut) -> None:
    play, uploaded, to_the_end = run(world, edges, cut)
    with pytest.raises(TooFewSurvivorsError, match=f"{play.round.threshold} are needed"):
        to_the_end()
    with pytest.raises(OutOfTurnError):
        play.round.sums()
    if play.round.unmaskings:
        assert_nothing_can_be_rebuilt(play, uploaded)


def assert_nothing_can_be_rebuilt(play, uploaded) -> None:
    """One share fewer than the threshold: put together they are no seed that anybody has committed to."""
    opened = play.round.unmaskings
    assert len(opened) < play.round.threshold
    places = {name: place for place, name in enumerate(play.asked.cohort)}
    numbers = Recombination.at([places[name] + 1 for name in opened])
    row = 0
    for dealer in uploaded:
        for of in [dealer, *[name for name in play.asked.cohort if name not in uploaded]]:
            seed = numbers.combine([shares[row] for shares in opened.values()])
            fixed = MaskedUpdate.from_bytes(play.updates[dealer]).commitments[places[of]]
            edges = tuple(sorted({dealer, of}))
            assert round_keys.commitment(seed, announcement=play.asked.digest(), edges=edges) != fixed
            row += 1


@pytest.mark.parametrize("stage", ["after the upload", "after the signature"])
def test_the_double_drop(world, stage) -> None:
    """Visby drops before the upload; turku uploads, then vanishes.

    Turku's copy of the mask it shares with visby is gone with it: the others need the shares that turku dealt of it.
    """
    names = world.names[:10]
    uploaded, left = names[:9], names[:8]
    play = world.play(edges=10).upload(uploaded)
    play = play.sign(left).unmask(left) if stage == "after the upload" else play.sign(uploaded).unmask(left)
    assert play.is_sum_of(uploaded)


def test_the_double_drop_needs_the_shares_of_the_pair(world) -> None:
    """What is opened of turku is exactly its own mask and the one it shares with visby."""
    play = world.play(edges=10).upload(world.names[:9]).sign(world.names[:8])
    opened = [Unmasking.from_bytes(play.opened(name)) for name in world.names[:7]]
    numbers = Recombination.at(range(1, 8))
    rows = [numbers.combine([one.shares[row] for one in opened]) for row in (16, 17)]
    assert rows == [play.own_seed("turku"), play.pair_seed("turku", "visby")]


DIFFERENT = [
    {"round": 6},
    {"round": 6, "campaign": "autumn"},
    {"round": 6, "clip": 0.5},
    {"round": 6, "coordinate_clip": 0.5},
    {"round": 6, "weight_cap": 1},
    {"round": 6, "window": 1},
    {"round": 6, "training": {"epochs": 1.0}},
    {"round": 6, "privacy": Privacy(noise_multiplier=1e-6, user_clip=1.0, colluders=1)},
]


@pytest.mark.parametrize("change", DIFFERENT, ids=", ".join)
def test_differencing_by_chosen_dropouts(sites, change) -> None:
    """The sum of all five, then of the four without luebeck: the difference is luebeck. The second is refused."""
    sites.play(sites.asked())
    for name in sites.names:
        assert "has answered this question in round 5" in sites.update(name, sites.asked(**change)).error
    assert [sites.lessons[name].asked for name in sites.names] == [1] * 5


def test_differencing_by_chosen_dropouts_in_a_round_that_failed(sites) -> None:
    """Too few uploads came, says the center, and asks again: what it has may still be opened, so the answer stands."""
    sites.play(sites.asked(), upload=sites.names[:2], sign=())
    for name in sites.names[:2]:
        assert "has answered this question" in sites.update(name, sites.asked(round=6)).error
    assert sites.update("luebeck", sites.asked(round=6)).body  # has not been asked in round 5


def test_differencing_by_chosen_dropouts_after_a_restart(sites) -> None:
    sites.play(sites.asked())
    for name in sites.names:
        sites.start(name)
        assert "has answered this question" in sites.update(name, sites.asked(round=6)).error


def test_differencing_of_statistics(sites) -> None:
    """A window is asked once, whatever weights come with it; the next counts only what has come since."""
    asked = sites.asked(purpose=Purpose.POPULARITY, window=1)
    sites.play(asked)
    again = replace(asked, round=6)
    assert "has answered this question" in sites.update("bergen", again).error
    other = replace(again, weights_sha256=sha256(b"other").digest())
    assert "has answered this question" in sites.update("bergen", other, weights=b"other").error
    assert sites.update("bergen", replace(again, window=2)).body


def test_differencing_by_a_set_that_grows(world) -> None:
    """The set without luebeck, then with it, in one round: edges sign one."""
    play = world.play().upload(world.names[:4])
    for name in world.names[:4]:
        play.signature(name)
    wider = replace(play.round.survivors, edges=tuple(world.names[:5])).sign(world.center)
    for name in world.names[:4]:
        with pytest.raises(PeerMisbehavedError, match="another survivor set"):
            play.signature(name, wider)
