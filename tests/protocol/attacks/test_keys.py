"""Attacks on who holds which keys: the center hands around what it likes, and enrols whom it likes."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import binary
from protocol.epoch import PairRoot, Prekey
from protocol.epoch_keys import EpochKeys
from protocol.errors import BadSignatureError, NotAdmittedError, PeerMisbehavedError
from protocol.identity import Member, Roster
from protocol.messages import Survivors, SurvivorSignature
from protocol.sealing import SealingKey, seal

MALLORY = Ed25519PrivateKey.from_private_bytes(b"m" * 32)
SYBIL = "sybil"


def prekey(edge, *, signer, **changes) -> bytes:
    """A prekey in an edge's name whose private half the attacker holds."""
    told = {"federation": "hanse", "epoch": 4, "roster_version": 3, "edge": edge}
    return Prekey(**{**told, "key": SealingKey.generate().public_bytes(), **changes}).sign(signer)


@pytest.mark.parametrize("signer", ["the center", "another site", "a stranger"])
def test_key_substitution_by_the_center(world, signer) -> None:
    """Bergen would seal the root it shares with bruges to the center."""
    signers = {"the center": world.center, "another site": world.towns["visby"].identity, "a stranger": MALLORY}
    with pytest.raises(BadSignatureError):
        world.deal("bergen", world.prekeys(bruges=prekey("bruges", signer=signers[signer])))


def test_key_substitution_by_the_center_under_another_name(world) -> None:
    """Visby colludes: its own good prekey, handed around as that of bruges, is visby's twice."""
    with pytest.raises(PeerMisbehavedError, match="listed twice"):
        world.deal("bergen", world.prekeys(bruges=world.begun["visby"].published))


def test_key_substitution_by_the_center_for_ones_own(world) -> None:
    """Bergen would go on with a list in which others see another key of bergen than it holds."""
    published = prekey("bergen", signer=world.towns["bergen"].identity)
    with pytest.raises(PeerMisbehavedError, match="another prekey of bergen than its own"):
        world.deal("bergen", world.prekeys(bergen=published))


@pytest.mark.parametrize("signer", ["the center", "another site"])
def test_key_substitution_by_the_center_with_a_root_of_its_own(world, signer) -> None:
    """Luebeck would share a root with the center in the belief that it is bergen's."""
    info = PairRoot.info(4, federation="hanse", dealer="bergen", receiver="luebeck")
    honest = next(
        root
        for paper in binary.split(world.roots["bergen"])
        if (root := PairRoot.open(paper, roster=world.roster)).receiver == "luebeck"
    )
    forged = replace(
        honest, sealed=seal(b"r" * 32, public_key=world.towns["luebeck"].prekey(4).public_bytes(), info=info)
    )
    signers = {"the center": world.center, "another site": world.towns["visby"].identity}
    with pytest.raises(BadSignatureError):
        world.dealt["luebeck"].keep(binary.join([forged.sign(signers[signer])]), roster=world.roster)
    # Signed by bergen itself it would be taken: the signature is all that stands between.
    kept = world.dealt["luebeck"].keep(binary.join([forged.sign(world.towns["bergen"].identity)]), roster=world.roster)
    assert "bergen" in kept.states


def test_key_substitution_by_two_prekeys_of_a_colluding_site(new_world) -> None:
    """Danzig signs two prekeys, and the center hands one to bergen and the other to bruges."""
    world = new_world()
    second = prekey("danzig", signer=world.towns["danzig"].identity)
    world.towns["bergen"].keys, roots = world.deal("bergen", world.prekeys(danzig=second))
    to_bruges = [p for p in binary.split(roots) if PairRoot.open(p, roster=world.roster).receiver == "bruges"]
    asked = world.announcement(prekeys=tuple(world.towns["bruges"].keys.prekeys[name] for name in world.names[:5]))
    world.accept("bruges", asked)
    with pytest.raises(BadSignatureError, match="names another prekey of danzig"):
        world.accept("bergen", asked)
    # Nor do bergen and bruges share a state any more if only their own two prekeys are the same.
    kept = world.dealt["bruges"].keep(binary.join(to_bruges), roster=world.roster)
    assert kept.states["bergen"] == world.towns["bergen"].keys.states["bruges"]


def test_key_substitution_shows_in_the_announcement(world) -> None:
    """The digests of all prekeys are in A: whoever holds another one refuses before it masks anything."""
    asked = world.announcement()
    for place, name in enumerate(asked.cohort):
        prekeys = tuple(bytes(32) if at == place else digest for at, digest in enumerate(asked.prekeys))
        with pytest.raises(BadSignatureError, match=f"another prekey of {name} than this edge has checked"):
            world.accept("bergen", replace(asked, prekeys=prekeys))


def with_sybil(world) -> Roster:
    """A roster that the center would like to have: one more member, whose keys are its own."""
    sybil = Member(edge=SYBIL, identity=MALLORY.public_key().public_bytes_raw(), seal=b"s", node=b"n")
    return Roster.of("hanse", 4, [*world.roster.members, sybil])


@pytest.mark.parametrize("signer", ["the center", "a member"])
def test_sybils_enrolled_without_the_offline_roster_key(world, signer) -> None:
    key = {"the center": world.center, "a member": world.towns["visby"].identity}[signer]
    with pytest.raises(BadSignatureError):
        Roster.open(with_sybil(world).sign(key), key=world.offline.public_key(), federation="hanse")
    genuine = Roster.open(with_sybil(world).sign(world.offline), key=world.offline.public_key(), federation="hanse")
    assert genuine.member(SYBIL)


def test_sybils_are_in_no_cohort(world) -> None:
    cohort = ("bergen", "bruges", "danzig", SYBIL)
    with pytest.raises(NotAdmittedError, match="sybil is not in roster 3"):
        world.accept("bergen", world.announcement(cohort=cohort))


def test_sybils_share_no_roots(world) -> None:
    with pytest.raises(NotAdmittedError, match="sybil is not in roster 3"):
        world.deal("bergen", binary.join([*binary.split(world.prekeys()), prekey(SYBIL, signer=MALLORY)]))
    root = PairRoot(
        federation="hanse", epoch=4, dealer=SYBIL, receiver="visby", prekey_sha256=bytes(32), sealed=b"sealed"
    )
    with pytest.raises(NotAdmittedError, match="sybil is not in roster 3"):
        world.dealt["visby"].keep(binary.join([root.sign(MALLORY)]), roster=world.roster)


def test_sybils_sign_no_survivor_set(signed, honest_request) -> None:
    """One of the four signatures that bergen must see is a sybil's."""
    word = SurvivorSignature.signed(signed.round.survivors, edge=SYBIL, key=MALLORY).signature
    signatures = {**honest_request.signatures, SYBIL: word}
    del signatures["kampen"]
    with pytest.raises(PeerMisbehavedError, match="sybil signed a survivor set that it is not in"):
        signed.opened("bergen", replace(honest_request, signatures=signatures).to_bytes())


def test_sybils_are_no_survivors(world, answered) -> None:
    padded = Survivors(announcement=answered.asked.digest(), edges=("bergen", "bruges", "danzig", SYBIL))
    with pytest.raises(PeerMisbehavedError, match="reaches beyond the cohort"):
        answered.signature("bergen", padded.sign(world.center))


@pytest.mark.parametrize("change", [{"epoch": 3}, {"federation": "rhein"}, {"roster_version": 2}], ids=str)
def test_old_prekey(world, change) -> None:
    """The center kept a prekey whose private half it has got hold of since: of another epoch, federation or roster."""
    old = prekey("bruges", signer=world.towns["bruges"].identity, **change)
    with pytest.raises(PeerMisbehavedError, match="of bruges is not of epoch 4 and roster 3"):
        world.deal("bergen", world.prekeys(bruges=old))


def test_old_prekey_of_the_epoch_before(world, new_world) -> None:
    """The same, word for word as it was published then."""
    before = new_world(epoch=3)
    with pytest.raises(PeerMisbehavedError, match="not of epoch 4"):
        world.deal("bergen", world.prekeys(bruges=before.begun["bruges"].published))


def test_old_root(world, new_world) -> None:
    """A root that was dealt in the epoch before, handed out again: its secret may be known by now."""
    before = new_world(epoch=3)
    with pytest.raises(PeerMisbehavedError, match="another edge or epoch"):
        world.dealt["luebeck"].keep(before.roots_for("luebeck"), roster=world.roster)


def test_old_root_under_a_new_number(world, new_world) -> None:
    """Its dealer colludes and signs it again for this epoch: it still names, and is sealed to, the old prekey."""
    before = new_world(epoch=3)
    old = next(r for p in binary.split(before.roots_for("bruges")) if (r := PairRoot.open(p, roster=world.roster)))
    relabelled = replace(old, epoch=4)
    with pytest.raises(PeerMisbehavedError, match="no root to seal to this edge's prekey"):
        keep(world, relabelled)
    current = replace(relabelled, prekey_sha256=world.dealt["bruges"].prekeys["bruges"])
    assert current.dealer not in keep(world, current).states


def keep(world, root: PairRoot) -> EpochKeys:
    papers = binary.join([root.sign(world.towns[root.dealer].identity)])
    return world.dealt[root.receiver].keep(papers, roster=world.roster)
