"""Attacks by survivor set: sets that differ between edges, that leave the asked out or everybody else, that grow."""

from dataclasses import replace

import numpy as np
import pytest

from protocol.errors import BadSignatureError, PeerMisbehavedError
from protocol.fixed_point import decode
from protocol.masked_update import Phase as EdgePhase
from protocol.masking import Sign, apply_mask
from protocol.messages import MaskedUpdate, Survivors, SurvivorSignature, sealed_share
from protocol.secure_sum import Phase


def named(play, edges) -> bytes:
    """A survivor set that the center signs at will."""
    return Survivors(announcement=play.asked.digest(), edges=tuple(sorted(edges))).sign(play.world.center)


def signatures_of(play, survivors: bytes, edges):
    """Who signs this set; colluders always do, honest towns once."""
    found = {}
    for name in edges:
        try:
            found[name] = SurvivorSignature.from_bytes(play.signature(name, survivors)).signature
        except PeerMisbehavedError:
            continue
    return found


COLLUDERS = ("danzig", "kampen", "luebeck")  # of ten; an honest cohort of this size bears three


@pytest.mark.parametrize("split", range(6))
def test_survivor_sets_that_differ_between_edges(world, split) -> None:
    """The center shows some a set without bergen and others one without visby, and three sign whatever they get."""
    play = world.play(edges=10).upload()
    sets = [named(play, set(world.names) - {"visby"}), named(play, set(world.names) - {"bergen"})]
    honest = [name for name in world.names if name not in COLLUDERS]
    both = [name for name in honest if name not in {"bergen", "visby"}]
    first_to = [["bergen", *both[:split]], ["visby", *both[split:]]]
    count = []
    for survivors, told in zip(sets, first_to, strict=True):
        count.append(len(COLLUDERS) + len(signatures_of(play, survivors, told)))
    for survivors, told in zip(sets, reversed(first_to), strict=True):
        assert not signatures_of(play, survivors, told)  # the other way round, when they have signed already
    assert min(count) < play.round.threshold


def test_survivor_sets_that_differ_are_signed_once(world, answered) -> None:
    """The first acceptable set is the only one; also across a restart, and whatever the second is."""
    fixed = answered.signature("bergen")
    for other in (world.names[:5], [*world.names[:3], "luebeck"]):
        with pytest.raises(PeerMisbehavedError, match="another survivor set for round 7 than before"):
            answered.signature("bergen", named(answered, other))
    assert answered.signature("bergen") == fixed


def test_survivor_sets_that_differ_open_nothing_twice(world, signed) -> None:
    """Bergen has signed one set. The center has t signatures for another, from colluders, and asks for its shares."""
    wider = world.play().upload().sign()
    with pytest.raises(PeerMisbehavedError, match="another survivor set for round 7 than before"):
        signed.opened("bergen", wider.round.unmask_request("bergen"), wider.survivors)
    opened = signed.opened("bergen")
    with pytest.raises(PeerMisbehavedError, match="another survivor set"):
        signed.opened("bergen", wider.round.unmask_request("bergen"), wider.survivors)
    assert signed.opened("bergen") == opened


def test_survivor_signatures_of_another_set_do_not_count(world, signed, honest_request) -> None:
    """What others have signed is checked against the set that this edge has signed."""
    wider = world.play().upload()
    other = SurvivorSignature.from_bytes(wider.signature("kampen")).signature
    with pytest.raises(BadSignatureError):
        signed.opened("bergen", signed.request("bergen", signatures=lambda found: {**found, "kampen": other}))
    mine = honest_request.signatures["bergen"]
    with pytest.raises(BadSignatureError):  # one signature, counted under two names
        signed.opened("bergen", signed.request("bergen", signatures=lambda found: {**found, "kampen": mine}))


@pytest.mark.parametrize("left", [0, 1, 3])
def test_survivor_signatures_of_too_few(signed, left) -> None:
    def some(found):
        return dict(list(found.items())[:left])

    with pytest.raises(PeerMisbehavedError, match=f"{left} survivors have signed, 4 are needed"):
        signed.opened("bergen", signed.request("bergen", signatures=some))


def test_signer_outside_s(world, signed) -> None:
    """Luebeck dropped, yet signs: a set needs the word of those that are in it."""
    word = SurvivorSignature.signed(signed.round.survivors, edge="luebeck", key=world.towns["luebeck"].identity)

    def swapped(found):
        return {name: found[name] for name in ("bergen", "bruges", "danzig")} | {"luebeck": word.signature}

    with pytest.raises(PeerMisbehavedError, match="luebeck signed a survivor set that it is not in"):
        signed.opened("bergen", signed.request("bergen", signatures=swapped))


def test_signer_outside_s_is_not_heard_by_the_center(world, answered) -> None:
    word = SurvivorSignature.signed(answered.round.survivors, edge="luebeck", key=world.towns["luebeck"].identity)
    with pytest.raises(PeerMisbehavedError, match="luebeck is not asked"):
        answered.round.receive("luebeck", Phase.SIGNING, word.to_bytes())


def test_self_not_in_s(world, answered) -> None:
    """An edge that is said to have dropped does not help to open its own pair masks."""
    for name in world.names[:4]:
        without = [edge for edge in world.names[:5] if edge != name]
        with pytest.raises(PeerMisbehavedError, match=f"a survivor set without {name}"):
            answered.signature(name, named(answered, without))


@pytest.mark.parametrize("edges", [3, 5, 10])
def test_all_of_one_edges_peers_declared_dropped(world, edges) -> None:
    """Then the sum would be the update of bergen alone; nor may any set be smaller than the threshold."""
    play = world.play(edges=edges).upload()
    for size in range(1, play.round.threshold):
        with pytest.raises(
            PeerMisbehavedError, match=f"{size} survivors of {edges}, {play.round.threshold} are needed"
        ):
            play.signature("bergen", named(play, world.names[:size]))
    assert play.turns["bergen"].phase is EdgePhase.MASKED


def test_all_of_one_edges_peers_declared_dropped_except_colluders(world) -> None:
    """The smallest set that bergen signs has honest towns in it besides bergen, whichever third colludes."""
    play = world.play(edges=10).upload()
    smallest = ["bergen", *COLLUDERS, *[name for name in world.names[1:] if name not in COLLUDERS][:3]]
    assert play.signature("bergen", named(play, smallest))
    assert len(set(smallest) - set(COLLUDERS)) == 4


def test_late_update_after_its_masks_were_given(world) -> None:
    """Luebeck was said to have dropped, so the shares of all its pair masks were opened. Then its update arrives."""
    play = world.play().upload(world.names[:4]).sign().unmask()
    assert play.round.receive("luebeck", Phase.MASKING, play.updates["luebeck"]) is play.round
    bare = play.words("luebeck")
    for peer in world.names[:4]:
        apply_mask(bare, play.pair_seed("luebeck", peer), Sign.ADD if peer < "luebeck" else Sign.SUBTRACT)
    assert not play.is_plain(decode(bare, layout=play.asked.layout, edges=5), ["luebeck"])
    apply_mask(bare, play.own_seed("luebeck"), Sign.SUBTRACT)  # what is still over it, and nobody gives away:
    assert play.is_plain(decode(bare, layout=play.asked.layout, edges=5), ["luebeck"])


def test_late_update_gets_no_share_of_its_own_mask(signed) -> None:
    """Neither in the same request nor as a second one, nor from luebeck's own hands."""
    share = luebecks_own_share(signed)
    with pytest.raises(PeerMisbehavedError, match="what each survivor dealt, no less and no more"):
        signed.opened("bergen", signed.request("bergen", sealed=lambda sealed: {**sealed, "luebeck": (share,)}))
    opened = signed.opened("bergen")
    again = signed.request("bergen", sealed=lambda sealed: {**sealed, "luebeck": (share,)})
    assert signed.opened("bergen", again) == opened
    with pytest.raises(PeerMisbehavedError, match="without luebeck"):
        signed.signature("luebeck")


def luebecks_own_share(play) -> bytes:
    sealed = MaskedUpdate.from_bytes(play.updates["luebeck"]).sealed
    return sealed_share(sealed, edges=5, dealer=4, receiver=0, secret=4)


def test_an_update_alone_is_noise(world) -> None:
    """Without any share opened a vector of zeros is as good as random: also without all of its pair masks."""
    asked = world.announcement(layout=(replace(world.announcement().layout[0], length=4000),))
    play = world.play(asked, values={"bergen": {"update": np.zeros(4000, np.float32)}})
    bare = play.words("bergen")
    for peer in world.names[1:5]:
        apply_mask(bare, play.pair_seed("bergen", peer), Sign.SUBTRACT)
    bits = np.unpackbits((bare & 0xFFFFF).astype("<u4").view(np.uint8), bitorder="little").reshape(-1, 32)[:, :20]
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.05
