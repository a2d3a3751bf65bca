"""Attacks on what an edge remembers: a disk that comes back, keys that are stolen when the round is over."""

import os
import shutil
import time
from dataclasses import replace

import pytest

from edge.rounds.ratchet import Ratchet
from protocol import binary, round_keys
from protocol.epoch import EpochCall, PairRoot
from protocol.epoch_keys import EpochKeys
from protocol.errors import PeerMisbehavedError, UntrustedError
from protocol.messages import Survivors
from protocol.transport import Action


def ratchet(sites, name="bergen"):
    return sites.place(name) / "ratchet"


def secrets(sites, name="bergen"):
    return Ratchet(ratchet(sites, name)).load()


def age(path, *, seconds: int) -> None:
    """As if the file had been written so long before it was put where it stands."""
    data = path.read_bytes()
    start = data.index(b'"written_ms":') + len(b'"written_ms":')
    end = start + len(str(int(time.time() * 1000)))
    path.write_bytes(data[:start] + str(int(data[start:end]) - 1000 * seconds).encode() + data[end:])


def test_restored_disk(sites) -> None:
    """The secrets of yesterday, copied back today, are not used: the edge waits for the next epoch."""
    age(ratchet(sites), seconds=3600)
    assert secrets(sites) is None
    assert "in no epoch" in sites.update("bergen", sites.asked()).error
    assert secrets(sites).epoch is None
    sites.open_epoch(2)
    assert sites.update("bergen", sites.asked()).body


def test_restored_disk_with_a_date_in_the_future(sites) -> None:
    """Whoever sets the clock back before he copies gains nothing."""
    age(ratchet(sites), seconds=-3600)
    assert secrets(sites) is None


def test_restored_disk_with_a_ledger_older_than_the_ratchet(sites, tmp_path) -> None:
    """Somebody restores the folder but for one file: numbers that were used would be used again."""
    for file in sites.place("bergen").glob("state.db*"):
        shutil.copy2(file, tmp_path / f"copy of {file.name}")
    sites.play(sites.asked())
    sites.ledgers["bergen"].close()
    for file in sites.place("bergen").glob("state.db*"):
        file.unlink()
    for file in tmp_path.glob("copy of *"):
        shutil.copy2(file, sites.place("bergen") / file.name.removeprefix("copy of "))
    shutil.rmtree(sites.place("bergen") / "answers")
    sites.start("bergen")
    assert sites.ledgers["bergen"].standing().last_round == 0
    assert secrets(sites).last_round == 5
    assert "in no epoch" in sites.update("bergen", sites.asked(round=6)).error
    assert sites.lessons["bergen"].asked == 1


def test_restored_disk_does_not_sign_a_second_set(sites) -> None:
    """The state before the signature comes back: without its secrets the edge has no part in the round any more."""
    asked = sites.asked()
    round_ = sites.play(asked, sign=("bergen",), unmask=())
    age(ratchet(sites), seconds=3600)
    fewer = replace(round_.survivors, edges=sites.names[:4]).sign(sites.center)
    reply = sites.ask("bergen", Action.SIGN_SURVIVORS, fewer)
    assert "not in that round" in reply.error


def test_restored_disk_is_a_copied_file_not_one_that_lay_still(sites) -> None:
    """An edge that was switched off for a week is not restored."""
    stood = ratchet(sites).stat()
    os.utime(ratchet(sites), ns=(stood.st_atime_ns - 10**15, stood.st_mtime_ns - 10**15))
    assert secrets(sites) is not None
    sites.start("bergen")
    assert sites.update("bergen", sites.asked()).body


def test_used_secrets_are_overwritten_on_the_disk(sites, tmp_path) -> None:
    """A name for the old file, from before: where it stood there is nothing to read any more."""
    os.link(ratchet(sites), tmp_path / "old")
    states = list(secrets(sites).epoch.states.values())
    assert found(states, (tmp_path / "old").read_bytes()) == states
    sites.update("bergen", sites.asked())
    assert not any((tmp_path / "old").read_bytes())


def used_secrets(before: dict[str, EpochKeys], asked) -> set[bytes]:
    """Whatever would open the recorded round: pair states and secrets, mask seeds, sealing keys."""
    digest, used = asked.digest(), set()
    for me, keys in before.items():
        _, of_round = keys.at_round(asked.round)
        for peer, secret in of_round.items():
            used |= {keys.states[peer], secret, round_keys.mask_seed(secret, announcement=digest)}
            used.add(round_keys.sealing_key(secret, announcement=digest, dealer=me, receiver=peer))
    return used


def on_disk(sites) -> bytes:
    files = [file for name in sites.names for file in sites.place(name).rglob("*") if file.is_file()]
    assert len(files) >= 4 * len(sites.names)
    return b"\0".join(file.read_bytes() for file in files)


def found(used, stolen: bytes) -> list[bytes]:
    """Which of these secrets are there, as bytes or however we write bytes: in hexadecimal, and that in hexadecimal."""

    def ways(secret: bytes) -> list[bytes]:
        once = secret.hex().encode()
        return [secret, once, once.hex().encode()]

    return [secret for secret in used if any(way in stolen for way in ways(secret))]


@pytest.mark.parametrize("over", ["opened", "given up"])
def test_an_identity_key_stolen_later_against_a_recorded_round(sites, over) -> None:
    """The round is over. Then a thief takes the disks and keys of all five sites, and has all that was ever sent."""
    before = {name: secrets(sites, name).epoch for name in sites.names}
    asked = sites.asked()
    if over == "opened":
        sites.play(asked)
    else:
        sites.play(asked, unmask=())
        for name in sites.names:
            assert sites.abandon(name, asked).body
    stolen, used = on_disk(sites), used_secrets(before, asked)
    assert len(used) == 10 + 10 + 10 + 20
    assert not found(used, stolen)
    for name in sites.names:
        left = secrets(sites, name)
        assert (left.epoch.prekey, left.round.opening_keys, left.round.own_shares) == (None, {}, ())
        with pytest.raises(PeerMisbehavedError, match="have been deleted"):
            left.epoch.at_round(asked.round)


def test_an_identity_key_stolen_later_finds_them_before_it_is_over(sites) -> None:
    """The search above can find something: the same disks one step earlier."""
    before = {name: secrets(sites, name).epoch for name in sites.names}
    used = used_secrets(before, sites.asked())
    assert len(found(used, on_disk(sites))) == 10  # the states that all else is derived from


def test_an_identity_key_stolen_later_opens_no_recorded_root(sites) -> None:
    """What was sealed, was sealed to a prekey that is gone; the keys that are left open nothing of it."""
    recorded = [
        PairRoot.open(paper, roster=sites.roster)
        for papers in sites.traffic
        if papers.startswith(b"HPS1")
        for paper in binary.split(papers)
        if b'"sealed"' in paper
    ]
    assert len({root.sealed for root in recorded}) == 10
    for root in recorded:
        info = PairRoot.info(1, federation=root.federation, dealer=root.dealer, receiver=root.receiver)
        with pytest.raises(UntrustedError):
            sites.keys[root.receiver].seal.open(root.sealed, info=info)
        assert secrets(sites, root.receiver).epoch.prekey is None


def test_an_identity_key_stolen_later_does_not_rederive_the_masks(world) -> None:
    """From the keys one step after a round nothing of the round follows, though both derive from one root."""
    after, secrets_of_round = world.towns["bergen"].keys.at_round(7)
    later = set()
    for number in range(8, 40):
        _, of_round = after.at_round(number)
        later |= set(of_round.values())
    assert not later & set(secrets_of_round.values())
    restored = EpochKeys.from_bytes(after.to_bytes())
    with pytest.raises(PeerMisbehavedError, match="have been deleted"):
        restored.at_round(7)


def test_an_epoch_ends_what_was_left_of_the_one_before(sites) -> None:
    """A round that nobody has finished: its keys do not outlive the epoch."""
    asked = sites.asked()
    sites.play(asked, unmask=())
    kept = [key for name in sites.names for key in secrets(sites, name).round.opening_keys.values()]
    assert found(kept, on_disk(sites)) == kept
    sites.open_epoch(2, first_round=6)
    assert not found(kept, on_disk(sites))


def test_an_older_epoch_is_not_followed_again(sites) -> None:
    """Called to the first epoch once more, an edge would answer with a prekey for its old round numbers."""
    sites.open_epoch(2, first_round=6)
    for epoch, first_round in ((1, 5), (2, 7), (1, 100)):
        call = EpochCall(federation="hanse", epoch=epoch, center_epoch=1, roster_version=1, first_round=first_round)
        assert "not newer" in sites.ask("bergen", Action.PREKEY, call.sign(sites.center)).error


def test_a_survivor_set_of_a_round_that_is_over_is_not_signed(sites) -> None:
    asked = sites.asked()
    sites.play(asked)
    other = Survivors(announcement=asked.digest(), edges=sites.names[:4]).sign(sites.center)
    assert "another survivor set" in sites.ask("bergen", Action.SIGN_SURVIVORS, other).error
