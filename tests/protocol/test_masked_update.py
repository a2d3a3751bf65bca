"""A round as an edge sees it: what it accepts, and that it does each thing once."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import canonical, packing
from protocol.errors import (
    BadSignatureError,
    MalformedMessageError,
    NotAdmittedError,
    OutOfTurnError,
    PeerMisbehavedError,
)
from protocol.fixed_point import encode
from protocol.masked_update import EdgeRound, Phase
from protocol.masking import Sign, apply_masks
from protocol.messages import Abandonment, MaskedUpdate, Survivors, Unmasking
from protocol.round_keys import Use, mask_seed, own

NOW = 1_700_000_000_000


def test_an_announcement_in_order_is_accepted(world) -> None:
    turn = world.accept("bergen", world.announcement(), last_round=6, last_epoch=1)
    assert (turn.me, turn.phase) == ("bergen", Phase.ANNOUNCED)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"round": 6}, "round 6 is not newer than answered round 6"),
        ({"center_epoch": 0}, "center epoch 0 is older"),
        ({"roster_version": 2}, "announced on roster 2, this edge holds 3"),
        ({"federation": "other"}, "federation other"),
        ({"deadline_ms": NOW}, "was over before it arrived"),
        ({"key_epoch": 3}, "of key epoch 3, this edge is in 4"),
        ({"key_epoch": 5}, "of key epoch 5, this edge is in 4"),
        ({"cohort": ("bruges", "danzig", "kampen")}, "bergen is not in"),
        ({"cohort": ("bergen", "bruges")}, "would show one site to another"),
    ],
)
def test_an_edge_refuses_what_the_protocol_forbids(world, change, reason) -> None:
    with pytest.raises(PeerMisbehavedError, match=reason):
        world.accept("bergen", world.announcement(**change), last_round=6, last_epoch=1)


def test_an_edge_refuses_an_announcement_that_the_center_did_not_sign(world) -> None:
    forged = world.announcement().sign(Ed25519PrivateKey.from_private_bytes(b"x" * 32))
    with pytest.raises(BadSignatureError):
        world.accept("bergen", forged)


def test_an_edge_refuses_a_cohort_that_names_somebody_unknown(world) -> None:
    with pytest.raises(NotAdmittedError, match="sybil"):
        world.accept("bergen", world.announcement(cohort=("bergen", "bruges", "danzig", "sybil")))


def test_an_edge_is_summed_with_its_own_group_only(new_world) -> None:
    names = [f"e{number:02}" for number in range(24)]
    grouped = new_world(names, groups=[names[start::3] for start in range(3)])
    inside = tuple(names[::3])
    assert grouped.play(grouped.announcement(cohort=inside)).upload().sign().unmask().is_sum_of(inside)
    with pytest.raises(PeerMisbehavedError, match="e01 is not in the group"):
        grouped.accept("e00", grouped.announcement(cohort=(*inside[:1], "e01", *inside[1:])))


def test_keys_of_a_peer_that_never_came_are_no_keys(world) -> None:
    """Its root was lost on the way: the two share nothing, so they cannot be in one round."""
    keys = world.towns["bergen"].keys
    without = replace(keys, states={edge: state for edge, state in keys.states.items() if edge != "danzig"})
    with pytest.raises(PeerMisbehavedError, match="danzig and bergen share no keys in epoch 4"):
        world.accept("bergen", world.announcement(), keys=without)


def test_the_keys_of_a_round_serve_once(world) -> None:
    spent, _ = world.towns["bergen"].keys.at_round(7)
    with pytest.raises(PeerMisbehavedError, match="keys of round 7 have been deleted"):
        world.accept("bergen", world.announcement(), keys=spent)


def test_an_edge_masks_once(world) -> None:
    """Two vectors under the same masks would show their difference."""
    turn, _ = world.mask(world.accept("bergen", world.announcement()))
    with pytest.raises(OutOfTurnError, match="round 7 has been answered"):
        world.mask(turn)


def test_the_words_are_the_values_under_the_masks_that_the_protocol_says(world) -> None:
    """The definition once more, without the code that works chunk by chunk."""
    asked = world.announcement()
    values = {"update": np.linspace(-4, 4, 40, dtype=np.float32), "weight": 1.0}
    entropy, (_, secrets) = b"e" * 32, world.towns["danzig"].keys.at_round(7)
    digest = asked.digest()
    words = encode(values, layout=asked.layout, edges=5, seed=own(entropy, Use.ROUNDING, announcement=digest))
    masks = [(own(entropy, Use.OWN_MASK, announcement=digest), Sign.ADD)]
    for peer in ("bergen", "bruges", "kampen", "luebeck"):
        sign = Sign.ADD if peer > "danzig" else Sign.SUBTRACT
        masks.append((mask_seed(secrets[peer], announcement=digest), sign))
    apply_masks(words, masks)
    _, update = world.mask(world.accept("danzig", asked), values, entropy=entropy)
    assert bytes(MaskedUpdate.from_bytes(update).packed) == packing.pack(words, layout=asked.layout)


def test_both_ends_of_a_pair_commit_to_the_same_mask(world) -> None:
    play = world.play()
    updates = [MaskedUpdate.from_bytes(play.updates[name]) for name in world.names[:5]]
    for i, one in enumerate(updates):
        for j, other in enumerate(updates):
            assert (one.commitments[j] == other.commitments[i]) or i == j
    assert len({commitment for update in updates for commitment in update.commitments}) == 5 + 5 * 4 // 2


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 4.1])
def test_a_value_beyond_its_bound_is_never_encoded(world, wrong) -> None:
    update = np.zeros(40, np.float32)
    update[17] = wrong
    with pytest.raises(ValueError, match="update"):
        world.mask(world.accept("bergen", world.announcement()), {"update": update, "weight": 1.0})


def test_asked_again_an_edge_says_the_same(world) -> None:
    play = world.play().upload(world.names[:4])
    once = play.signature("bergen")
    assert play.signature("bergen") == once
    play.sign()
    opened = play.opened("bergen")
    assert play.opened("bergen") == opened
    assert play.signature("bergen") == once


def test_an_edge_signs_nothing_before_it_has_sent_its_update(world, answered) -> None:
    turn = world.accept("bergen", answered.asked)
    with pytest.raises(OutOfTurnError, match="round 7 is announced here"):
        turn.sign_survivors(
            answered.survivors, center=world.center.public_key(), identity_key=world.towns["bergen"].identity
        )


def test_an_edge_opens_nothing_before_it_has_signed(world) -> None:
    play = world.play().upload(world.names[:4]).sign()
    late = world.play().upload(world.names[:4])
    play.turns["bergen"] = late.turns["bergen"]
    with pytest.raises(OutOfTurnError, match="round 7 is masked here"):
        play.opened("bergen")


def test_a_survivor_set_of_another_round_is_not_signed(world, answered) -> None:
    other = replace(answered.round.survivors, announcement=world.announcement(round=8).digest())
    with pytest.raises(PeerMisbehavedError, match="of another round"):
        answered.signature("bergen", other.sign(world.center))


def test_a_survivor_set_that_the_center_did_not_sign_is_not_signed(world, answered) -> None:
    with pytest.raises(BadSignatureError):
        answered.signature("bergen", answered.round.survivors.sign(world.towns["bruges"].identity))


def test_a_survivor_set_beyond_the_cohort_is_not_signed(world, answered) -> None:
    wider = Survivors(announcement=answered.asked.digest(), edges=(*world.names[:4], "visby"))
    with pytest.raises(PeerMisbehavedError, match="reaches beyond the cohort"):
        answered.signature("bergen", wider.sign(world.center))


def test_a_refused_step_changes_nothing(world, answered) -> None:
    small = Survivors(announcement=answered.asked.digest(), edges=tuple(world.names[:3]))
    with pytest.raises(PeerMisbehavedError):
        answered.signature("bergen", small.sign(world.center))
    assert answered.turns["bergen"].phase is Phase.MASKED
    assert answered.sign().unmask().is_sum_of(world.names[:4])


def test_an_edge_opens_its_own_shares_as_well(signed) -> None:
    """The dealer itself is one of the t: its own share of its own secrets travels with what it opens of the others."""
    opened = Unmasking.from_bytes(signed.opened("bruges"))
    mine = signed.world.play().turns["bruges"].own_shares
    assert opened.shares[2:4] == (mine[1], mine[4])  # of its own mask, and of its mask with luebeck, which dropped


def test_a_round_survives_a_restart_at_every_stage(world) -> None:
    """Kill -9 between any two stages: what is on disk goes on where it stopped, and comes to the same sum."""
    play = world.play()
    for stage in (play.upload, play.sign, play.unmask):
        play.turns = {name: EdgeRound.from_bytes(turn.to_bytes()) for name, turn in play.turns.items()}
        stage()
    assert play.is_sum_of(world.names[:5])


def test_what_is_on_disk_of_a_round_in_any_phase_reads_back_the_same(world) -> None:
    play = world.play()
    turns = [world.accept("bergen", play.asked), play.turns["bergen"]]
    play.upload().sign()
    turns.append(play.turns["bergen"])
    play.unmask()
    turns += [play.turns["bergen"], given_up(world, world.accept("bergen", play.asked))]
    assert {turn.phase for turn in turns} == set(Phase)
    for turn in turns:
        again = EdgeRound.from_bytes(turn.to_bytes())
        assert again.to_bytes() == turn.to_bytes()
        assert (again.phase, again.opening_keys, again.own_shares) == (turn.phase, turn.opening_keys, turn.own_shares)


@pytest.mark.parametrize("field", ["me", "announcement", "phase", "opening_keys", "own_shares", "survivors", "reply"])
def test_a_damaged_round_on_disk_is_named_as_such(world, field) -> None:
    value = canonical.decode(world.play().turns["bergen"].to_bytes())
    del value[field]
    with pytest.raises(MalformedMessageError):
        EdgeRound.from_bytes(canonical.encode(value))


def given_up(world, turn: EdgeRound) -> EdgeRound:
    return turn.abandon(identity_key=world.towns[turn.me].identity)[0]


@pytest.mark.parametrize("stage", ["announced", "masked", "signed"])
def test_a_round_can_be_given_up_until_it_is_opened(world, stage) -> None:
    play = world.play()
    if stage == "announced":
        play.turns["bergen"] = world.accept("bergen", play.asked)
    if stage == "signed":
        play.upload().sign()
    turn, word = play.turns["bergen"].abandon(identity_key=world.towns["bergen"].identity)
    abandonment = Abandonment.from_bytes(word)
    abandonment.check(world.towns["bergen"].identity.public_key())
    assert (abandonment.edge, abandonment.announcement) == ("bergen", play.asked.digest())
    assert turn.abandon(identity_key=world.towns["bergen"].identity) == (turn, word)
    assert not turn.opening_keys
    assert not turn.own_shares


@pytest.mark.parametrize("over", ["unmasked", "abandoned"])
def test_nothing_secret_is_left_of_a_round_that_is_over(world, over) -> None:
    play = world.play().upload().sign()
    secret = [*play.turns["bergen"].opening_keys.values(), *play.turns["bergen"].own_shares]
    assert all(key.hex().encode() in play.turns["bergen"].to_bytes() for key in secret)
    if over == "unmasked":
        opened = Unmasking.from_bytes(play.opened("bergen")).shares
        secret = [key for key in secret if key not in opened]  # what it opened, the center has
        left = play.turns["bergen"].to_bytes()
    else:
        left = given_up(world, play.turns["bergen"]).to_bytes()
    assert len(secret) >= 8
    assert not any(key.hex().encode() in left for key in secret)


def test_secrets_do_not_show_in_a_traceback(world) -> None:
    turn = world.play().turns["bergen"]
    shown = repr(turn) + repr(world.towns["bergen"].keys)
    assert "opening_keys" not in shown
    assert not any(repr(state) in shown for state in world.towns["bergen"].keys.states.values())
