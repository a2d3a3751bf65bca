"""Keys of an epoch: both ends of a pair hold the same, nobody else does, and what was used is gone."""

import itertools
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import binary, canonical
from protocol.epoch import EpochCall, PairRoot, Prekey
from protocol.epoch_keys import MOST_STEPS_AHEAD, EpochKeys
from protocol.errors import (
    BadSignatureError,
    MalformedMessageError,
    NotAdmittedError,
    OutOfTurnError,
    PeerMisbehavedError,
)
from protocol.identity import Label, sign_document
from protocol.sealing import seal


def test_both_ends_of_every_pair_hold_the_same_secret(world) -> None:
    secrets = {name: world.towns[name].keys.at_round(9)[1] for name in world.names}
    for one, other in itertools.combinations(world.names, 2):
        assert secrets[one][other] == secrets[other][one]
    everything = {secret for of_one in secrets.values() for secret in of_one.values()}
    assert len(everything) == 10 * 9 // 2


def test_no_two_rounds_share_a_secret(world) -> None:
    keys = world.towns["bergen"].keys
    seen = set()
    for number in range(5, 25):
        keys, secrets = keys.at_round(number)
        seen |= set(secrets.values()) | set(keys.states.values())
    assert len(seen) == 20 * 2 * 9


def test_a_skipped_round_leads_to_the_same_secrets(world) -> None:
    """An edge that was away for some rounds is in step with one that was not."""
    present = absent = world.towns["bergen"].keys
    for number in range(5, 12):
        present, secrets = present.at_round(number)
    after, late = absent.at_round(11)
    assert late == secrets
    assert (after.states, after.next_round) == (present.states, 12)


def test_the_secrets_of_a_used_or_skipped_round_cannot_be_derived_again(world) -> None:
    after, secrets = world.towns["bergen"].keys.at_round(7)
    for number in (5, 6, 7):
        with pytest.raises(PeerMisbehavedError, match=f"keys of round {number} have been deleted"):
            after.at_round(number)
    kept = after.to_bytes()
    assert not any(secret.hex().encode() in kept for secret in secrets.values())
    before = world.towns["bergen"].keys.states.values()
    assert not any(state.hex().encode() in kept for state in before)


def test_a_pairs_future_is_not_used_up_by_one_number(world) -> None:
    keys = world.towns["bergen"].keys
    keys.at_round(5 + MOST_STEPS_AHEAD)
    with pytest.raises(PeerMisbehavedError, match="1001 ahead"):
        keys.at_round(5 + MOST_STEPS_AHEAD + 1)


def test_asked_again_an_edge_deals_the_same(world) -> None:
    keys, roots = world.dealt["bruges"], world.roots["bruges"]
    again, same = keys.deal(
        world.prekeys(), roster=world.roster, identity_key=world.towns["bruges"].identity, randomness=b"other" * 8
    )
    assert again is keys
    assert same == roots


def test_an_edge_deals_for_one_list_of_prekeys(world) -> None:
    fewer = binary.join(binary.split(world.prekeys())[:-1])
    with pytest.raises(PeerMisbehavedError, match="epoch 4 has other prekeys than before"):
        world.dealt["bruges"].deal(
            fewer, roster=world.roster, identity_key=world.towns["bruges"].identity, randomness=bytes(32)
        )


def test_an_epoch_opens_without_those_that_did_not_answer(new_world) -> None:
    """Six of ten published a prekey: they share keys, and a seventh is no peer."""
    world = new_world()
    there = binary.join([world.begun[name].published for name in world.names[:6]])
    dealt = {name: world.deal(name, there) for name in world.names[:6]}
    roots = [paper for _, papers in dealt.values() for paper in binary.split(papers)]
    for name, (keys, _) in dealt.items():
        mine = [paper for paper in roots if PairRoot.open(paper, roster=world.roster).receiver == name]
        world.towns[name].keys = keys.keep(binary.join(mine), roster=world.roster)
    assert set(world.towns["bergen"].keys.states) == set(world.names[1:6])
    assert world.play(edges=6).upload().sign().unmask().is_sum_of(world.names[:6])
    with pytest.raises(BadSignatureError, match="another prekey of reval"):
        world.accept("bergen", world.announcement(7))


def test_roots_are_kept_once(world) -> None:
    kept = world.towns["luebeck"].keys
    assert kept.prekey is None
    assert kept.keep(world.roots_for("luebeck"), roster=world.roster) is kept
    assert kept.keep(b"whatever comes later", roster=world.roster) is kept


def test_roots_are_kept_after_the_prekeys_are_known(world) -> None:
    with pytest.raises(OutOfTurnError, match="prekeys of epoch 4 have not been seen yet"):
        world.begun["luebeck"].keep(world.roots_for("luebeck"), roster=world.roster)


@pytest.mark.parametrize(
    ("papers", "reason"),
    [
        (lambda own, _: own[:-1], "another prekey of bruges than its own"),
        (lambda own, _: [*own, own[-1]], "listed twice"),
        (lambda own, _: [own[0], *own], "listed twice"),
    ],
)
def test_a_list_of_prekeys_holds_each_edge_once_and_oneself(new_world, papers, reason) -> None:
    world = new_world(["bergen", "danzig", "bruges"])
    listed = papers([world.begun[name].published for name in ("bergen", "danzig", "bruges")], world)
    with pytest.raises(PeerMisbehavedError, match=reason):
        world.deal("bruges", binary.join(listed))


def test_a_prekey_of_another_group_is_not_dealt_with(new_world) -> None:
    names = [f"e{number:02}" for number in range(24)]
    world = new_world(names, groups=[names[start::3] for start in range(3)])
    with pytest.raises(PeerMisbehavedError, match="is not of this edge's group"):
        world.deal("e00", binary.join([world.begun[name].published for name in names]))


def root(world, **changes) -> PairRoot:
    """What bergen sealed to luebeck, changed."""
    papers = [PairRoot.open(paper, roster=world.roster) for paper in binary.split(world.roots["bergen"])]
    return replace(next(paper for paper in papers if paper.receiver == "luebeck"), **changes)


def kept(world, *roots: PairRoot, signer: str = "bergen") -> EpochKeys:
    papers = [paper.sign(world.towns[signer].identity) for paper in roots]
    return world.dealt["luebeck"].keep(binary.join(papers), roster=world.roster)


def test_the_root_as_it_was_dealt_is_kept(world) -> None:
    assert kept(world, root(world)).states["bergen"] == world.towns["bergen"].keys.states["luebeck"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epoch": 3}, "another edge or epoch"),
        ({"federation": "other"}, "another edge or epoch"),
        ({"receiver": "kampen"}, "another edge or epoch"),
        ({"prekey_sha256": bytes(32)}, "no root to seal to this edge's prekey"),
    ],
)
def test_a_root_of_something_else_is_not_kept(world, change, reason) -> None:
    with pytest.raises(PeerMisbehavedError, match=reason):
        kept(world, root(world, **change))


def test_a_pair_has_one_dealer(world) -> None:
    """Luebeck sorts before visby, so luebeck seals the root of this pair and visby does not."""
    wrong_way = root(world, dealer="visby")
    with pytest.raises(PeerMisbehavedError, match="visby had no root to seal"):
        kept(world, wrong_way, signer="visby")


def test_a_pair_has_one_root(world) -> None:
    with pytest.raises(PeerMisbehavedError, match="bergen sealed two roots"):
        kept(world, root(world), root(world))


def test_a_root_that_does_not_open_is_not_kept(world) -> None:
    sealed = root(world).sealed
    assert "bergen" not in kept(world, root(world, sealed=sealed[:-1] + bytes([sealed[-1] ^ 1]))).states
    info = PairRoot.info(4, federation="hanse", dealer="bergen", receiver="luebeck")
    short = seal(b"short", public_key=world.towns["luebeck"].prekey(4).public_bytes(), info=info)
    assert "bergen" not in kept(world, root(world, sealed=short)).states


def test_a_prekey_that_is_no_key_costs_its_owner_the_epoch_and_nobody_else(world) -> None:
    bergen = world.towns["bergen"]
    honest = Prekey.open(world.begun["visby"].published, call=world.call, roster=world.roster)
    nonsense = replace(honest, key=b"\xff" * 1216).sign(world.towns["visby"].identity)
    after, _ = world.begun["bergen"].deal(
        world.prekeys(visby=nonsense), roster=world.roster, identity_key=bergen.identity, randomness=bytes(32)
    )
    assert set(after.states) == set(world.names) - {"bergen", "visby"}


def test_a_root_is_sealed_to_one_place(world) -> None:
    """The bytes that bergen sealed to luebeck, passed off as danzig's: the seal is bound to both names."""
    assert "danzig" not in kept(world, root(world, dealer="danzig"), signer="danzig").states


def test_what_is_on_disk_reads_back_the_same(world) -> None:
    for keys in (world.begun["kampen"], world.dealt["kampen"], world.towns["kampen"].keys):
        again = EpochKeys.from_bytes(keys.to_bytes())
        assert again.to_bytes() == keys.to_bytes()
        assert (again.states, again.call, again.next_round) == (keys.states, keys.call, keys.next_round)
        assert (again.prekey is None) == (keys.prekey is None)


@pytest.mark.parametrize("field", ["me", "call", "published", "prekey", "next_round", "prekeys", "dealt", "states"])
def test_damaged_keys_are_named_as_such(world, field) -> None:
    value = canonical.decode(world.towns["kampen"].keys.to_bytes())
    del value[field]
    with pytest.raises(MalformedMessageError):
        EpochKeys.from_bytes(canonical.encode(value))


def test_a_call_means_the_same_at_both_ends(world) -> None:
    signed = world.call.sign(world.center)
    assert EpochCall.open(signed, key=world.center.public_key()) == world.call


def test_a_call_that_the_center_did_not_sign_is_refused(world) -> None:
    with pytest.raises(BadSignatureError):
        EpochCall.open(world.call.sign(Ed25519PrivateKey.from_private_bytes(b"x" * 32)), key=world.center.public_key())


CALL = {"federation": "hanse", "epoch": 4, "center_epoch": 1, "roster_version": 3, "first_round": 5}


@pytest.mark.parametrize(
    "change",
    [{"epoch": "4"}, {"epoch": True}, {"epoch": 4.0}, {"federation": None}, {"more": 1}, {"first_round": [5]}],
    ids=str,
)
def test_a_call_with_other_fields_is_none(world, change) -> None:
    signed = sign_document(Label.EPOCH, {**CALL, **change}, key=world.center)
    with pytest.raises(MalformedMessageError):
        EpochCall.open(signed, key=world.center.public_key())


PREKEY = {"federation": "hanse", "epoch": 4, "roster_version": 3, "edge": "bergen", "key": "00" * 1216}


@pytest.mark.parametrize(
    "change",
    [
        {"key": "00" * 1215},
        {"key": "AB" * 1216},
        {"key": " " + "00" * 1216},
        {"key": "zz" * 1216},
        {"key": None},
        {"edge": "BERGEN"},
        {"edge": 7},
        {"epoch": True},
        {"more": 1},
    ],
    ids=str,
)
def test_a_prekey_with_other_fields_is_none(world, change) -> None:
    signed = sign_document(Label.PREKEY, {**PREKEY, **change}, key=world.towns["bergen"].identity)
    with pytest.raises((MalformedMessageError, NotAdmittedError)):
        Prekey.open(signed, call=world.call, roster=world.roster)


@pytest.mark.parametrize(
    "paper", [b"", b"[]", b"{}", b'{"content":{},"signature":""}', b'{"content":1,"signature":""}']
)
def test_what_is_no_paper_of_an_epoch_is_malformed(world, paper) -> None:
    with pytest.raises(MalformedMessageError):
        Prekey.open(paper, call=world.call, roster=world.roster)
    with pytest.raises(MalformedMessageError):
        PairRoot.open(paper, roster=world.roster)
