"""Attacks on shares: asked for where they must not be given, passed off as others, or made up."""

from dataclasses import replace

import pytest

from protocol.errors import PeerMisbehavedError, TooFewSurvivorsError, UntrustedError
from protocol.messages import MaskedUpdate, Unmasking, sealed_share
from protocol.secret_sharing import PRIME, Recombination
from protocol.secure_sum import Phase

BERGEN, BRUGES, DANZIG, KAMPEN, LUEBECK = range(5)


def dealt(play, dealer: int, *, receiver: int = BERGEN, secret: int) -> bytes:
    """One sealed share out of what a dealer has uploaded; the center holds them all."""
    sealed = MaskedUpdate.from_bytes(play.updates[play.asked.cohort[dealer]]).sealed
    return sealed_share(sealed, edges=play.asked.edges, dealer=dealer, receiver=receiver, secret=secret)


def asked_for(play, *of_bruges: bytes) -> bytes:
    """Bergen is asked to open these as what bruges has dealt."""
    return play.request("bergen", sealed=lambda sealed: {**sealed, "bruges": of_bruges})


def test_the_honest_request_is_the_one_that_all_of_these_change(signed) -> None:
    honest = (dealt(signed, BRUGES, secret=BRUGES), dealt(signed, BRUGES, secret=LUEBECK))
    assert asked_for(signed, *honest) == signed.round.unmask_request("bergen")
    assert signed.opened("bergen", asked_for(signed, *honest))


def test_dealer_ds_copy_mixed_with_dealer_js(signed) -> None:
    """Bruges and luebeck have both shared out their common mask; shares of two polynomials together are no seed."""
    mixed = asked_for(signed, dealt(signed, BRUGES, secret=BRUGES), dealt(signed, LUEBECK, secret=BRUGES))
    with pytest.raises(UntrustedError, match="a share is not what it is said to be"):
        signed.opened("bergen", mixed)


@pytest.mark.parametrize(
    ("label", "share"),
    [
        ("to another dealer", lambda play, _: dealt(play, DANZIG, secret=LUEBECK)),
        ("to another dealer's own", lambda play, _: dealt(play, DANZIG, secret=DANZIG)),
        ("from own to pair", lambda play, _: dealt(play, BRUGES, secret=BRUGES)),
        ("to the mask of two survivors", lambda play, _: dealt(play, BRUGES, secret=DANZIG)),
        ("to the asked edge's own mask", lambda play, _: dealt(play, BRUGES, secret=BERGEN)),
        ("to another receiver", lambda play, _: dealt(play, BRUGES, receiver=DANZIG, secret=LUEBECK)),
        ("to another round", lambda _, later: dealt(later, BRUGES, secret=LUEBECK)),
        ("to nothing", lambda _play, _later: bytes(48)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_share_relabelled(world, signed, label, share) -> None:
    """In the place of bruges' share of its mask with luebeck stands another."""
    del label
    later = world.play(world.announcement(round=8))
    passed_off = asked_for(signed, dealt(signed, BRUGES, secret=BRUGES), share(signed, later))
    with pytest.raises(UntrustedError, match="a share is not what it is said to be"):
        signed.opened("bergen", passed_off)


def test_share_relabelled_from_pair_to_own(signed) -> None:
    swapped = asked_for(signed, dealt(signed, BRUGES, secret=LUEBECK), dealt(signed, BRUGES, secret=BRUGES))
    with pytest.raises(UntrustedError, match="a share is not what it is said to be"):
        signed.opened("bergen", swapped)


def test_both_kinds_of_share(signed) -> None:
    """Of a survivor its own mask is opened, of a dropped edge its pair masks. More of either shows its update."""
    own, pair = dealt(signed, BRUGES, secret=BRUGES), dealt(signed, BRUGES, secret=LUEBECK)
    for asked in ((own,), (), (own, pair, dealt(signed, BRUGES, secret=DANZIG)), (own, pair, pair)):
        with pytest.raises(PeerMisbehavedError, match=f"{len(asked)} shares of bruges, not 2"):
            signed.opened("bergen", asked_for(signed, *asked))
    dropped = dealt(signed, LUEBECK, secret=LUEBECK)
    with pytest.raises(PeerMisbehavedError, match="no less and no more"):
        signed.opened("bergen", signed.request("bergen", sealed=lambda sealed: {**sealed, "luebeck": (dropped,)}))


def test_both_kinds_of_share_are_never_released(world) -> None:
    """All that seven of ten open together: their own masks, and those they share with the three that dropped."""
    play = world.play(edges=10).upload(world.names[3:]).sign()
    opened = [Unmasking.from_bytes(play.opened(name)) for name in world.names[3:]]
    numbers = Recombination.at([world.names.index(one.edge) + 1 for one in opened])
    rebuilt = [numbers.combine([one.shares[row] for one in opened]) for row in range(len(opened[0].shares))]
    allowed = []
    for survivor in world.names[3:]:
        allowed.append(play.own_seed(survivor))
        allowed += [play.pair_seed(survivor, dropped) for dropped in world.names[:3]]
    assert rebuilt == allowed
    never = {play.own_seed(dropped) for dropped in world.names[:3]}
    never |= {play.pair_seed(one, other) for one in world.names[3:] for other in world.names[3:] if one != other}
    assert not never & set(rebuilt)


def lie(play, name, *rows: int, share: bytes = bytes(32)) -> None:
    """This town opens everything as it should, but for some rows."""
    honest = Unmasking.from_bytes(play.opened(name))
    shares = [share if row in rows else kept for row, kept in enumerate(honest.shares)]
    told = Unmasking.signed(
        announcement=honest.announcement,
        edge=name,
        survivors=honest.survivors,
        shares=shares,
        key=play.world.towns[name].identity,
    )
    play.round = play.round.receive(name, Phase.UNMASKING, told.to_bytes())


@pytest.mark.parametrize(
    "share", [bytes(32), PRIME.to_bytes(32, "little"), b"\xff" * 32], ids=["zero", "prime", "most"]
)
@pytest.mark.parametrize("row", [0, 5, 9])
def test_share_off_the_polynomial(world, row, share) -> None:
    """Found against the commitment before a wrong sum is used, and made good where others are left."""
    play = world.play(edges=10).upload().sign()
    lie(play, "bruges", row, share=share)
    play.unmask([name for name in world.names if name != "bruges"])
    assert play.round.liars == {"bruges"}
    assert play.is_sum_of(world.names)


def test_share_off_the_polynomial_of_a_dropped_edges_mask(world) -> None:
    play = world.play(edges=10).upload(world.names[1:]).sign()
    lie(play, "danzig", 1)
    play.unmask([name for name in world.names[1:] if name != "danzig"])
    assert play.round.liars == {"danzig"}
    assert play.is_sum_of(world.names[1:])


@pytest.mark.parametrize("rows", [(0, 0), (0, 3)], ids=["of one secret", "of two secrets"])
def test_share_off_the_polynomial_of_two_liars(world, rows) -> None:
    play = world.play(edges=10).upload().sign()
    lie(play, "bruges", rows[0])
    lie(play, "danzig", rows[1], share=b"\1" * 32)
    play.unmask([name for name in world.names if name not in {"bruges", "danzig"}])
    assert play.round.liars == {"bruges", "danzig"}
    assert play.is_sum_of(world.names)


def test_share_off_the_polynomial_without_a_spare(world) -> None:
    """Exactly t have answered and one lies: the round is lost, and no wrong sum comes out of it."""
    play = world.play(edges=10).upload().sign()
    lie(play, "bruges", 4)
    play.unmask(["bergen", *world.names[2:7]], close=False)
    with pytest.raises(TooFewSurvivorsError, match="do not fit its commitment"):
        play.round.close_phase()


def test_share_off_the_polynomial_by_its_dealer(world) -> None:
    """Bruges deals shares of another seed than it has committed to: nothing opens it, and bruges is named."""
    play = world.play(edges=10)
    honest = MaskedUpdate.from_bytes(play.updates["bruges"])
    commitments = (honest.commitments[0], bytes(32), *honest.commitments[2:])
    play.updates["bruges"] = MaskedUpdate.signed(
        announcement=honest.announcement,
        edge="bruges",
        packed=bytes(honest.packed),
        commitments=commitments,
        sealed=bytes(honest.sealed),
        key=world.towns["bruges"].identity,
    ).to_bytes()
    play.upload().sign().unmask(close=False)
    with pytest.raises(TooFewSurvivorsError, match="what bruges dealt") as lost:
        play.round.close_phase()
    assert lost.value.missing == {"bruges"}


def test_share_signed_by_someone_else(world, signed) -> None:
    """The center cannot put words into an edge's mouth, so nobody is named a liar for them."""
    opened = Unmasking.from_bytes(signed.opened("bruges"))
    forged = replace(opened, shares=(bytes(32), *opened.shares[1:]))
    with pytest.raises(UntrustedError, match="unmasking is wrong"):
        signed.round.receive("bruges", Phase.UNMASKING, forged.to_bytes())
    assert world.names[1] in signed.round.asked
