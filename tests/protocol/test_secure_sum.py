"""A whole round between center and edges by arithmetic alone: no network, no clock, no chance."""

from dataclasses import replace

import numpy as np
import pytest

from protocol.errors import (
    BadSignatureError,
    MalformedMessageError,
    NotAdmittedError,
    OutOfTurnError,
    PeerMisbehavedError,
    TooFewSurvivorsError,
)
from protocol.fixed_point import Segment
from protocol.identity import EdgeId
from protocol.messages import MaskedUpdate
from protocol.privacy import Privacy
from protocol.secure_sum import Phase, Round


def flip(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("edges", [3, 4, 5, 8, 10])
def test_the_unmasked_sum_is_the_plain_sum(world, edges) -> None:
    play = world.play(edges=edges).upload().sign().unmask()
    assert play.is_sum_of(world.names[:edges])
    assert play.round.phase is Phase.SUMMED
    assert not play.round.liars


def test_the_sum_of_those_that_are_left_is_theirs_alone(world) -> None:
    play = world.play(edges=10).upload(world.names[2:]).sign().unmask()
    assert play.is_sum_of(world.names[2:])
    assert not play.is_sum_of(world.names)


def test_every_word_width_adds_up(world) -> None:
    layout = tuple(Segment(name=f"w{bits}", length=9, bound=1.0, bits=bits) for bits in range(8, 33))
    play = world.play(world.announcement(layout=layout)).upload(world.names[1:5]).sign().unmask()
    assert play.is_sum_of(world.names[1:5])


def test_extreme_values_of_all_edges_do_not_wrap_around(world) -> None:
    most = {"update": np.full(40, 4.0, np.float32), "weight": 1.0}
    play = world.play(values=dict.fromkeys(world.names[:5], most)).upload().sign().unmask()
    assert play.round.sums()["update"] == pytest.approx(np.full(40, 20.0))


def test_counts_come_out_exact(world) -> None:
    layout = (Segment(name="counts", length=3, bound=1000.0),)
    told = {name: {"counts": np.array([1, 7, 999], np.float32)} for name in world.names[:5]}
    play = world.play(world.announcement(layout=layout), values=told).upload().sign().unmask()
    assert play.round.sums()["counts"].tolist() == [5, 35, 4995]


def test_one_masked_update_tells_nothing_about_its_values(world) -> None:
    layout = (Segment(name="update", length=1000, bound=4.0),)
    zeros = {"update": np.zeros(1000, np.float32)}
    turn = world.accept("bergen", world.announcement(layout=layout))
    words = np.frombuffer(MaskedUpdate.from_bytes(world.mask(turn, zeros)[1]).packed, np.uint32)
    assert len(np.unique(words)) > 990  # uniformly random words hardly ever repeat


def test_the_noise_of_all_edges_is_in_the_sum(world) -> None:
    """Not more than the tail that the exponent leaves room for, and not nothing."""
    layout = (Segment(name="update", length=2000, bound=1.0, bits=24),)
    asked = world.announcement(layout=layout, privacy=Privacy(noise_multiplier=1.0, user_clip=1.0, colluders=1))
    zeros = {"update": np.zeros(2000, np.float32)}
    play = world.play(asked, values=dict.fromkeys(world.names[:5], zeros)).upload().sign().unmask()
    # Each of 5 edges adds 1 / (t - 1) = 1 / 3 of what the threshold of honest edges promises together.
    assert play.round.sums()["update"].std() == pytest.approx(np.sqrt(5 / 3), rel=0.1)


@pytest.mark.parametrize("stage", ["signing", "unmasking"])
def test_whoever_falls_silent_after_the_upload_is_in_the_sum(world, stage) -> None:
    silent = world.names[:5][2]
    there = [name for name in world.names[:5] if name != silent]
    play = world.play().upload()
    play = play.sign(there).unmask() if stage == "signing" else play.sign().unmask(there)
    assert play.is_sum_of(world.names[:5])


def test_the_sum_of_all_but_too_many_is_never_revealed(world) -> None:
    play = world.play().upload(world.names[:3], close=False)
    with pytest.raises(TooFewSurvivorsError, match="3 masked updates came from 5 edges, 4 are needed") as lost:
        play.round.close_phase()
    assert lost.value.missing == {"kampen", "luebeck"}
    with pytest.raises(OutOfTurnError):
        play.round.sums()


def test_masked_words_are_no_sum_before_the_round_is_over(signed) -> None:
    with pytest.raises(OutOfTurnError, match="is not summed"):
        signed.round.sums()


@pytest.mark.parametrize("stage", ["upload", "sign", "unmask"])
def test_redelivery_is_harmless(world, stage) -> None:
    play = world.play()
    answers = {
        "upload": lambda: play.updates["bruges"],
        "sign": lambda: play.upload().signature("bruges"),
        "unmask": lambda: play.upload().sign().opened("bruges"),
    }
    answer = answers[stage]()
    once = play.round.receive("bruges", play.round.phase, answer)
    assert once.receive("bruges", once.phase, answer) is once
    assert once.answered == {"bruges"}


def test_a_late_answer_changes_nothing(signed) -> None:
    """A straggler: its update arrives when the survivors are named already."""
    assert signed.round.receive("luebeck", Phase.MASKING, signed.updates["luebeck"]) is signed.round
    assert signed.round.receive("bergen", Phase.SIGNING, b"anything") is signed.round


def test_a_straggler_cannot_slip_into_a_later_stage(signed) -> None:
    with pytest.raises(PeerMisbehavedError, match="luebeck is not asked"):
        signed.round.receive("luebeck", Phase.UNMASKING, signed.updates["luebeck"])


def test_a_changed_answer_is_misbehaviour(world) -> None:
    turn = world.accept("bergen", world.announcement())
    once, changed = (world.mask(turn, entropy=bytes([i]) * 32)[1] for i in range(2))
    round_ = world.play().round.receive("bergen", Phase.MASKING, once)
    with pytest.raises(PeerMisbehavedError, match="bergen changed its answer while masking"):
        round_.receive("bergen", Phase.MASKING, changed)
    assert round_.receive("bergen", Phase.MASKING, once) is round_


def test_a_refused_answer_changes_nothing(world) -> None:
    play = world.play()
    with pytest.raises(BadSignatureError):
        play.round.receive("bergen", Phase.MASKING, flip(play.updates["bergen"], -1))
    assert not play.round.answered
    assert play.upload().sign().unmask().is_sum_of(world.names[:5])


def test_an_edge_cannot_answer_for_another(world) -> None:
    play = world.play()
    with pytest.raises(PeerMisbehavedError, match="bruges answered in the name of bergen"):
        play.round.receive("bruges", Phase.MASKING, play.updates["bergen"])


@pytest.mark.parametrize("at", [70, 200, 600, -1], ids=["words", "commitments", "shares", "signature"])
def test_an_update_that_was_changed_on_its_way_is_refused(world, at) -> None:
    play = world.play()
    with pytest.raises(BadSignatureError):
        play.round.receive("bergen", Phase.MASKING, flip(play.updates["bergen"], at))


def test_an_answer_to_another_round_is_refused(world) -> None:
    play, other = world.play(), world.play(world.announcement(round=8))
    with pytest.raises(PeerMisbehavedError, match="bergen answered another announcement"):
        play.round.receive("bergen", Phase.MASKING, other.updates["bergen"])


def test_words_of_another_length_are_refused(world) -> None:
    """Signed by the edge itself: the signature says who sent it, not that it makes sense."""
    play = world.play()
    honest = MaskedUpdate.from_bytes(play.updates["bergen"])
    for packed in (bytes(honest.packed) + b"\0", bytes(honest.packed)[:-1], b""):
        short = resigned(world, honest, packed=packed)
        with pytest.raises(MalformedMessageError, match="bytes of words"):
            play.round.receive("bergen", Phase.MASKING, short)


def test_commitments_for_another_cohort_are_refused(world) -> None:
    play = world.play()
    honest = MaskedUpdate.from_bytes(play.updates["bergen"])
    changed = resigned(world, honest, commitments=honest.commitments[:4], sealed=bytes(4 * 3 * 48))
    with pytest.raises(PeerMisbehavedError, match="bergen committed to 4 secrets"):
        play.round.receive("bergen", Phase.MASKING, changed)


def resigned(world, update: MaskedUpdate, **changes) -> bytes:
    parts = {"packed": bytes(update.packed), "commitments": update.commitments, "sealed": bytes(update.sealed)}
    return MaskedUpdate.signed(
        announcement=update.announcement,
        edge=update.edge,
        key=world.towns[update.edge].identity,
        **{**parts, **changes},
    ).to_bytes()


def test_a_stranger_is_not_in_the_round(world) -> None:
    play = world.play()
    with pytest.raises(PeerMisbehavedError, match="visby is not asked in round 7"):
        play.round.receive(EdgeId("visby"), Phase.MASKING, play.updates["bergen"])


def test_a_signature_of_another_survivor_set_is_not_counted(answered) -> None:
    other = replace(answered.round.survivors, edges=("bergen", "bruges", "danzig", "luebeck"))
    signature = answered.signature("bergen", other.sign(answered.world.center))
    with pytest.raises(PeerMisbehavedError, match="bergen signed another survivor set"):
        answered.round.receive("bergen", Phase.SIGNING, signature)


@pytest.mark.parametrize("stage", ["sign", "unmask"])
def test_what_was_changed_on_its_way_is_refused_at_every_stage(world, stage) -> None:
    play = world.play().upload()
    answer = play.signature("bergen") if stage == "sign" else play.sign().opened("bergen")
    with pytest.raises(BadSignatureError):
        play.round.receive("bergen", play.round.phase, flip(answer, -1))
    other = play.signature("bruges") if stage == "sign" else play.opened("bruges")
    with pytest.raises(PeerMisbehavedError, match="in the name of bruges"):
        play.round.receive("bergen", play.round.phase, other)


def test_shares_for_another_survivor_set_are_refused(world) -> None:
    play, other = world.play().upload().sign(), world.play().upload(world.names[:4]).sign()
    with pytest.raises(PeerMisbehavedError, match="bergen opened another survivor set"):
        play.round.receive("bergen", Phase.UNMASKING, other.opened("bergen"))


def test_every_stage_waits_for_those_it_has_asked(world) -> None:
    play = world.play()
    assert play.round.missing == tuple(world.names[:5])
    play.upload(world.names[:4])
    assert play.round.asked == tuple(world.names[:4])
    play.sign(["bruges"], close=False)
    assert play.round.missing == ("bergen", "danzig", "kampen")
    play.sign(["bergen", "danzig", "kampen"])
    assert play.round.missing == tuple(world.names[:4])


@pytest.mark.parametrize("stage", ["sign", "unmask"])
def test_too_few_at_a_later_stage_are_named(world, stage) -> None:
    play = world.play().upload()
    play = play.sign(world.names[:3], close=False) if stage == "sign" else play.sign().unmask(["bruges"], close=False)
    with pytest.raises(TooFewSurvivorsError, match="came from 5 edges, 4 are needed") as lost:
        play.round.close_phase()
    assert lost.value.missing == set(world.names[3:5] if stage == "sign" else play.round.missing)


def test_a_round_closes_once(world) -> None:
    play = world.play().upload().sign().unmask()
    with pytest.raises(OutOfTurnError, match="round 7 is closed"):
        play.round.close_phase()


def test_nobody_is_asked_to_unmask_before_the_survivors_have_signed(answered) -> None:
    with pytest.raises(OutOfTurnError, match="round 7 is signing"):
        answered.round.unmask_request("bergen")


def test_a_cohort_with_somebody_outside_the_roster_is_not_announced(world) -> None:
    stranger = world.announcement(cohort=("bergen", "bruges", "sybil"))
    with pytest.raises(NotAdmittedError, match="sybil"):
        Round.announce(stranger, roster=world.roster)


def test_a_center_that_crashed_goes_on_with_the_set_it_had_named(world) -> None:
    """Edges sign one set: after a crash the center must not name another, even if one update more has come."""
    before = world.play().upload(world.names[:4])
    again = Round.announce(before.asked, roster=world.roster, survivors=before.round.survivors)
    assert again.asked == tuple(world.names[:4])
    with pytest.raises(PeerMisbehavedError, match="luebeck is not asked"):
        again.receive("luebeck", Phase.MASKING, before.updates["luebeck"])
    before.round = again
    assert before.upload(world.names[:4]).sign().unmask().is_sum_of(world.names[:4])


def test_a_center_that_crashed_and_misses_one_of_its_set_gives_up(world) -> None:
    before = world.play().upload()
    before.round = Round.announce(before.asked, roster=world.roster, survivors=before.round.survivors)
    before.upload(world.names[:4], close=False)
    with pytest.raises(TooFewSurvivorsError, match="luebeck did not send the masked update again") as lost:
        before.round.close_phase()
    assert lost.value.missing == {"luebeck"}


def test_an_edge_whose_masks_would_not_vanish_is_left_out(world) -> None:
    """One that comes late and has committed to other masks than its peers: the round goes on without it."""
    wrong = {peer: bytes(32) for peer in world.names[:5]}
    play = world.play(secrets={"luebeck": wrong}).upload()
    assert play.round.disputes == {"luebeck": frozenset(world.names[:4])}
    assert play.sign().unmask().is_sum_of(world.names[:4])


def test_a_dispute_of_two_is_settled_without_the_second(world) -> None:
    """Bergen and danzig hold different secrets of their pair, whoever of them lies: one of them can be summed."""
    secrets = dict(world.towns["danzig"].keys.at_round(7)[1])
    play = world.play(secrets={"danzig": {**secrets, "bergen": bytes(32)}}).upload()
    assert play.round.disputes == {"danzig": frozenset({"bergen"})}
    assert play.sign().unmask().is_sum_of(["bergen", "bruges", "kampen", "luebeck"])


def test_a_liar_that_comes_first_is_found_out(world) -> None:
    """It disagrees with everybody, so the next round runs without it and not without the honest."""
    wrong = {peer: bytes(32) for peer in world.names[:5]}
    play = world.play(secrets={"bergen": wrong}).upload(close=False)
    with pytest.raises(TooFewSurvivorsError) as lost:
        play.round.close_phase()
    assert lost.value.missing == {"bergen"}
