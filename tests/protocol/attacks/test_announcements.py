"""Attacks by announcement: different things for different edges, numbers that come again or from afar, tiny cohorts."""

from dataclasses import replace

import numpy as np
import pytest

from edge.rounds import policy
from edge.settings import PolicySettings
from protocol.epoch_keys import MOST_STEPS_AHEAD
from protocol.errors import MalformedMessageError, PeerMisbehavedError, RefusedByPolicyError, UntrustedError
from protocol.fixed_point import Segment, decode
from protocol.masking import Sign, apply_mask
from protocol.messages import MaskedUpdate, UnmaskRequest, sealed_share

LAYOUT = (Segment(name="update", length=40, bound=4.0, bits=20), Segment(name="weight", length=1, bound=1.0))
different = pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": b"w" * 32},
        {"clip": 3.0},
        {"coordinate_clip": 3.0},
        {"weight_cap": 99},
        {"training": {"learning_rate": 0.1}},
        {"layout": (replace(LAYOUT[0], bound=4.5), LAYOUT[1])},
    ],
    ids=lambda change: next(iter(change)),
)


def cheated(world, change):
    """Luebeck is told something else than the other four."""
    asked = world.announcement()
    return world.play(asked, told={"luebeck": replace(asked, **change)})


@different
def test_same_cohort_with_different_weights_or_clip_per_edge(world, change) -> None:
    """An honest center's code takes no answer to anything but its own announcement."""
    play = cheated(world, change).upload(world.names[:4], close=False)
    with pytest.raises(PeerMisbehavedError, match="luebeck answered another announcement"):
        play.upload(["luebeck"])


@different
def test_same_cohort_with_different_weights_or_clip_does_not_add_up(world, change) -> None:
    """A center of its own making adds the words itself, and has even guessed every edge's own mask."""

    def added_up(play) -> bool:
        total = np.zeros(41, np.uint32)
        for name in play.asked.cohort:
            words = play.words(name)
            apply_mask(words, play.own_seed(name), Sign.SUBTRACT)
            total += words
        return play.is_plain(decode(total, layout=play.asked.layout, edges=5), play.asked.cohort)

    assert added_up(world.play())
    assert not added_up(cheated(world, change))


@different
def test_same_cohort_with_different_weights_or_clip_disagrees_in_every_commitment(world, change) -> None:
    play = cheated(world, change)
    told_otherwise = MaskedUpdate.from_bytes(play.updates["luebeck"]).commitments
    for place, name in enumerate(world.names[:4]):
        assert MaskedUpdate.from_bytes(play.updates[name]).commitments[4] != told_otherwise[place]


@different
def test_same_cohort_with_different_weights_or_clip_gets_no_shares(world, change) -> None:
    """The set with luebeck in it: luebeck does not sign it, and what it dealt does not open."""
    play, honest = cheated(world, change), world.play().upload()
    play.round = honest.round
    with pytest.raises(PeerMisbehavedError, match="of another round"):
        play.signature("luebeck")
    play.sign(world.names[:4])
    dealt = MaskedUpdate.from_bytes(play.updates["luebeck"]).sealed
    share = sealed_share(dealt, edges=5, dealer=4, receiver=0, secret=4)
    with pytest.raises(UntrustedError, match="a share is not what it is said to be"):
        play.opened("bergen", play.request("bergen", sealed=lambda sealed: {**sealed, "luebeck": (share,)}))


def test_replayed_round(world) -> None:
    asked = world.announcement().sign(world.center)
    world.accept("bergen", asked, last_round=6)
    for answered in (7, 8, 1000):
        with pytest.raises(PeerMisbehavedError, match=f"not newer than answered round {answered}"):
            world.accept("bergen", asked, last_round=answered)


def test_replayed_round_finds_no_keys(world) -> None:
    """Even where the number had been forgotten: the keys of round 7 are gone."""
    keys, _ = world.towns["bergen"].keys.at_round(7)
    with pytest.raises(PeerMisbehavedError, match="keys of round 7 have been deleted"):
        world.accept("bergen", world.announcement(), keys=keys, last_round=0)


def test_replayed_round_gets_the_stored_bytes(sites) -> None:
    """Sent again after a restart, the same announcement gets the same bytes, and nothing is computed."""
    once = sites.update("bergen", sites.asked()).body
    sites.start("bergen")
    assert sites.update("bergen", sites.asked()).body == once
    assert sites.lessons["bergen"].asked == 1


def test_round_number_far_ahead(world) -> None:
    """It would use up the whole future of the pair keys, or hours of the edge's time."""
    furthest = 5 + MOST_STEPS_AHEAD
    world.accept("bergen", world.announcement(round=furthest))
    with pytest.raises(PeerMisbehavedError, match="1001 ahead of this edge's keys"):
        world.accept("bergen", world.announcement(round=furthest + 1))


def test_round_number_far_ahead_does_not_use_up_the_numbers_before_it(sites) -> None:
    assert "ahead of this edge's keys" in sites.update("bergen", sites.asked(round=10**9)).error
    assert sites.ledgers["bergen"].standing().last_round == 0
    assert sites.update("bergen", sites.asked()).body


def test_same_round_with_another_vector_length(world) -> None:
    """Two vectors under one mask would show their difference."""
    longer = world.announcement(layout=(replace(LAYOUT[0], length=41), LAYOUT[1]))
    with pytest.raises(PeerMisbehavedError, match="round 7 is not newer"):
        world.accept("bergen", longer, last_round=7)


def test_same_round_with_another_vector_length_is_under_other_masks(world) -> None:
    """An edge that has not answered yet takes either; its masks for the one tell nothing of those for the other."""
    zeros = {"update": np.zeros(40, np.float32), "weight": 0.0}
    longer = {"update": np.zeros(41, np.float32), "weight": 0.0}
    asked = world.announcement()
    other = replace(asked, layout=(replace(LAYOUT[0], length=41), LAYOUT[1]))
    one = MaskedUpdate.from_bytes(world.mask(world.accept("bergen", asked), zeros)[1])
    two = MaskedUpdate.from_bytes(world.mask(world.accept("bergen", other), longer)[1])
    assert bytes(one.packed)[:32] != bytes(two.packed)[:32]
    assert not set(one.commitments) & set(two.commitments)


def test_same_round_with_another_vector_length_is_not_answered_twice(sites) -> None:
    assert sites.update("bergen", sites.asked()).body
    longer = sites.asked(layout=(replace(sites.asked().layout[0], length=21), sites.asked().layout[1]))
    assert "round 5 is not newer" in sites.update("bergen", longer).error
    assert sites.lessons["bergen"].asked == 1


@pytest.mark.parametrize("cohort", [("bergen",), ("bergen", "visby")])
def test_cohort_below_the_floor(world, cohort) -> None:
    """Of two, each learns the other's update by taking away its own."""
    with pytest.raises(PeerMisbehavedError, match="would show one site to another"):
        world.accept("bergen", world.announcement(cohort=cohort))
    world.accept("bergen", world.announcement(cohort=("bergen", "turku", "visby")))


@pytest.mark.parametrize(
    ("limits", "edges", "reason"),
    [
        ({"min_cohort": 5}, 4, "refuses a cohort of 4: it allows at least 5"),
        ({"min_cohort": 3, "max_colluders": 2, "min_honest": 1}, 5, "2 colluders would be more than a third"),
        ({"min_cohort": 3, "max_colluders": 1, "min_honest": 4}, 5, "only 3 honest edges, this site wants 4"),
    ],
)
def test_cohort_below_the_floor_of_this_site(world, limits, edges, reason) -> None:
    """The center cannot override what stands in edge.toml."""
    settings = PolicySettings(**limits)
    policy.check(world.announcement(10), policy=settings, robust=False, answered_today=0)
    with pytest.raises(RefusedByPolicyError, match=reason):
        policy.check(world.announcement(edges), policy=settings, robust=False, answered_today=0)


def test_cohort_below_the_floor_leaves_no_trace(sites) -> None:
    """A refusal uses neither the number nor the question up, and gives nothing away."""
    few = sites.asked(cohort=sites.names[:4])
    assert "at least 5" in sites.update("bergen", few).error
    assert sites.lessons["bergen"].asked == 0
    assert sites.update("bergen", sites.asked()).body


def test_cohort_of_sites_that_look_many(world) -> None:
    """One site named over and over is one site."""
    padded = world.announcement(cohort=("bergen", "visby", "visby", "visby"), prekeys=(bytes(32),) * 4)
    with pytest.raises(MalformedMessageError, match="each edge once"):
        world.accept("bergen", padded)


def test_request_of_another_round_opens_nothing(world, signed) -> None:
    """A set that was signed in one round, with the shares of another."""
    other = world.play(world.announcement(round=8)).upload(world.names[:4]).sign()
    foreign = UnmaskRequest.from_bytes(other.round.unmask_request("bergen"))
    with pytest.raises(UntrustedError, match="survivor signature is wrong"):
        signed.opened("bergen", signed.request("bergen", signatures=lambda _: foreign.signatures))
    with pytest.raises(UntrustedError, match="a share is not what it is said to be"):
        signed.opened("bergen", signed.request("bergen", sealed=lambda _: foreign.sealed))
