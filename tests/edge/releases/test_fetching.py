"""What the federation says, and how it comes onto an edge's disk. Attacks on that road have a folder of their own."""

import shutil

import pytest

from protocol.blocks import BLOCK_BYTES
from protocol.errors import UnavailableError, UntrustedError
from protocol.release import WHOLE_QUEUE, Kind, Place
from protocol.sealing import ContentKey, SealingKey

MODEL = "recommend/model.onnx"


def test_a_release_arrives_whole(town):
    assert town.serves(1)
    assert town.here.catalogue().offer.version == 1


def test_all_that_is_signed_is_told(town):
    town.publish(2, place=Place.CANARY)
    town.road.publish(town.voice, Place.CANDIDATE, town.road.folder / "b2", number=2)
    town.settle()
    newest = town.luebeck.newest()
    assert set(newest.bundles) == {"all/1.json", "canary/2.json"}
    assert set(newest.candidates) == {"candidate/2.json"}
    assert newest.catalogue.offer.target == "catalogue/1.json"
    assert newest.pace == {1: WHOLE_QUEUE}
    assert (newest.roster, newest.policy, newest.era) == (None, None, 1)


def test_the_newest_roster_and_policy_come_with_it(town):
    for name, content in [("roster/9.json", b"ninth"), ("roster/10.json", b"tenth"), ("policy/3.json", b"third")]:
        town.repository.add_target(name, content, custom={})
    town.renew(town.repository.publish_version(now=town.road.now))
    newest = town.luebeck.newest()
    assert (newest.roster, newest.policy) == ((10, b"tenth"), (3, b"third"))


def test_a_roster_is_downloaded_once(town):
    town.repository.add_target("roster/9.json", b"ninth", custom={})
    town.renew(town.repository.publish_version(now=town.road.now))
    town.luebeck.newest()
    (topic,) = [topic for topic in town.on_broker() if "/roster/" in topic]
    town.put([(topic, b"")])
    assert town.luebeck.newest().roster == (9, b"ninth")
    with pytest.raises(UnavailableError, match="roster"):
        town.road.edge("luebeck", folder=town.road.folder / "other").newest()


def test_names_that_are_not_ours_may_stand_beside_them(town):
    chain = town.repository.chain
    other = chain.delegated("releases").targets.get("catalogue/1.json")

    def change(thief):
        thief.delegated("releases").version += 1
        thief.delegated("releases").targets.update({"candidate/readme": other, "candidate/x/1.json": other})
        thief.snapshot.meta["releases.json"].version += 1
        thief.snapshot.version += 1
        thief.timestamp.snapshot_meta.version += 1
        thief.timestamp.version += 1

    town.put(town.sign_as_thief(town.road.online, "releases", "snapshot", "timestamp", change=change))
    assert set(town.luebeck.newest().bundles) == {"all/1.json"}


def test_an_update_fetches_only_what_changed(town):
    changed = bytearray((town.here.bundle().directory / MODEL).read_bytes())
    changed[0] ^= 1
    town.publish(2, files={MODEL: bytes(changed)})
    asked = []
    town.take_up(progress=lambda _done, total: asked.append(total))
    assert asked == [2, 2]  # the changed block and the card


def test_a_file_that_has_not_changed_is_not_fetched(town):
    before = (town.here.bundle().directory / MODEL).read_bytes()
    town.publish(2, files={MODEL: before, "search/model.onnx": b"new"})
    asked = []
    town.take_up(progress=lambda _done, total: asked.append(total))
    assert set(asked) == {2}  # the new file and the card


def test_a_rollback_is_a_new_version_of_the_old_files(town):
    town.publish(2)
    town.take_up()
    town.road.publish(town.voice, Place.ALL, town.road.folder / "b1")
    town.settle()
    asked = []
    town.take_up(progress=lambda *at: asked.append(at))
    assert asked == []  # all of it is in the other slot still
    assert town.here.bundle().offer.version == 3
    assert (town.here.bundle().directory / MODEL).stat().st_size == 6 * BLOCK_BYTES


def change_key(town, *, tell=True):
    """Another content key: everything is described and encrypted anew, as after the removal of a site."""
    town.road.key = ContentKey(number=town.road.key.number + 1, secret=bytes([town.road.key.number]) * 32)
    if tell:
        town.road.admit(town.voice, "luebeck")
        town.settle()


def test_an_earlier_content_key_still_opens_what_lies_there(town, eventually):
    before = town.luebeck._keys.number
    change_key(town)
    eventually(lambda: town.luebeck._keys.number == before + 1)
    assert town.bundle().offer.version == 1  # its metadata are still under the first key
    town.publish(2)
    town.take_up()
    assert town.serves(2)


def test_metadata_under_a_key_that_has_not_arrived_yet_are_waited_for(town, monkeypatch):
    change_key(town, tell=False)
    town.publish(2)
    keys, waited = town.luebeck._keys, []
    of = keys.of

    def tell_late(message, *, seconds):
        if not waited and message[:8] == town.road.key.key_id:
            waited.append(True)
            keys.add(town.road.key)
        return of(message, seconds=seconds)

    monkeypatch.setattr(keys, "of", tell_late)
    assert town.bundle().offer.version == 2
    assert waited


def test_an_edge_that_gets_no_newer_key_is_told_so(town):
    """It was removed: what is published now is not for it."""
    change_key(town, tell=False)
    town.publish(2)
    with pytest.raises(UntrustedError, match="is encrypted under content key"):
        town.luebeck.newest()
    assert town.serves(1)


def test_an_edge_whose_key_was_sealed_to_another_learns_nothing(town, eventually, heard):
    town.road.sealing["luebeck"] = SealingKey.generate()  # not the one that the roster lists
    thief = town.road.edge("luebeck", heard=heard)
    thief.wait_until_connected(seconds=10)
    with pytest.raises(UnavailableError, match="has not sealed a content key"):
        thief.newest()
    assert isinstance(eventually(lambda: heard.troubles)[0], UntrustedError)


def test_metadata_that_do_not_fit_together_yet_are_read_once_more(town, monkeypatch):
    """While a rotation is published, the new root may be there with the old timestamp still."""
    before = town.on_broker()
    town.replace_keys("timestamp", "snapshot")
    timestamp = town.topics.tuf("timestamp.json")
    after = town.on_broker()
    town.put([(timestamp, before[timestamp])])
    read_once, reads = town.luebeck._releases._read_once, []

    def read():
        reads.append(True)
        if len(reads) == 2:
            town.put([(timestamp, after[timestamp])])
        return read_once()

    monkeypatch.setattr(town.luebeck._releases, "_read_once", read)
    assert town.bundle().offer.version == 1
    assert len(reads) == 2


def test_a_late_joiner_needs_no_center(town):
    town.road.admit(town.voice, "bremen")
    town.voice.stop()
    here = town.road.installer("bremen")
    town.take_up(town.road.edge("bremen"), here)
    assert town.serves(1, here)


def test_an_interrupted_download_asks_only_for_what_is_missing(town):
    town.publish(2)
    offered = town.bundle()

    class PulledPlugError(Exception):
        pass

    def pull(done, _total):
        if done == 4:
            raise PulledPlugError

    with pytest.raises(PulledPlugError):
        town.luebeck.fetch(offered, progress=pull)
    town.luebeck.stop()
    asked = []
    town.road.edge("luebeck").fetch(offered, progress=lambda _done, total: asked.append(total))
    assert set(asked) == {7 - 4}


def test_a_newer_release_uses_what_was_fetched_of_an_older_one(town):
    town.publish(2)
    town.luebeck.fetch(town.bundle())
    changed = bytearray((town.road.folder / "b2" / MODEL).read_bytes())
    changed[-1] ^= 1
    town.publish(3, files={MODEL: bytes(changed)})
    asked = []
    fetched = town.luebeck.fetch(town.bundle(), progress=lambda _done, total: asked.append(total))
    assert set(asked) == {2}
    assert list(fetched.directory.parent.iterdir()) == [fetched.directory]


def test_nothing_published_yet_is_said(road):
    voice = road.publisher()
    road.admit(voice, "luebeck")
    with pytest.raises(UnavailableError, match=r"has not sent .*root\.json"):
        road.edge("luebeck").newest()


def test_without_a_broker_there_is_a_clear_word(road):
    road.broker.stop()
    edge = road.edge("luebeck")
    with pytest.raises(UnavailableError, match="cannot be reached"):
        edge.newest()


def test_lost_local_metadata_are_read_again(town):
    shutil.rmtree(town.road.folder / "edge-luebeck" / "tuf")
    assert town.bundle().offer.version == 1


def test_what_a_killed_process_left_among_the_metadata_is_removed(town):
    left = town.road.folder / "edge-luebeck" / "tuf" / "tmpk1ll3d"
    left.write_bytes(b"half a file")
    assert town.bundle().offer.version == 1
    assert not left.exists()


def test_known_directories_of_other_kinds_do_no_harm(town):
    town.publish(2)
    known = [*town.here.known(Kind.CATALOGUE), town.road.folder / "nowhere"]
    fetched = town.luebeck.fetch(town.bundle(), known=known)
    town.here.commit(town.here.install(fetched, now=town.clock))
    assert town.serves(2)
