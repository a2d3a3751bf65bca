"""TUF's list of attacks, by whoever owns the broker, and the losses of an honest one."""

import random
import shutil
from datetime import timedelta

import pytest

from protocol.blocks import BLOCK_BYTES, MAX_PAYLOAD_BYTES
from protocol.errors import (
    BadSignatureError,
    DamagedBlockError,
    ExpiredReleaseError,
    FederationError,
    RollbackError,
    UnavailableError,
    UntrustedError,
    UntrustedReleaseError,
)
from protocol.release import Kind, Place
from protocol.sealing import ContentKey, SealingKey, encrypt

MODEL = {"recommend/model.onnx": random.Random(1).randbytes(6 * BLOCK_BYTES)}


def load(path):
    return (path / "recommend/model.onnx").read_bytes()


@pytest.fixture
def town(road):
    """A federation with catalogue and bundle 1 published, installed at one edge."""
    road.voice = road.publisher()
    road.admit(road.voice, "luebeck")
    road.publish(road.voice, Place.CATALOGUE, road.catalogue())
    road.publish(road.voice, Place.ALL, road.bundle("b1", MODEL))
    road.luebeck = road.edge("luebeck")
    road.owner = road.as_owner_of_the_broker()
    road.here = road.installer("luebeck")
    install(road, road.luebeck)
    return road


def bundle(edge):
    """The newest bundle that an edge is offered."""
    return max(edge.newest().bundles.values(), key=lambda offered: offered.offer.version)


def install(town, edge, here=None, **how):
    """Bring an edge up to date and commit at once."""
    here = here or town.here
    newest = edge.newest()
    if here.catalogue() is None:
        here.install_catalogue(edge.fetch(newest.catalogue), now=town.now)
    fetched = edge.fetch(bundle(edge), known=here.known(Kind.BUNDLE), **how)
    here.commit(here.install(fetched, now=town.now))


def second(town, seed=2):
    files = {"recommend/model.onnx": random.Random(seed).randbytes(6 * BLOCK_BYTES)}
    town.publish(town.voice, Place.ALL, town.bundle("b2", files, version=2))


def says_one(town):
    return town.here.bundle().offer.version == 1 and load(town.here.bundle().directory) == MODEL["recommend/model.onnx"]


def test_a_release_arrives_whole(town):
    assert says_one(town)
    assert town.here.catalogue().offer.version == 1


def test_an_update_fetches_only_what_changed(town):
    changed = bytearray(MODEL["recommend/model.onnx"])
    changed[0] ^= 1
    town.publish(town.voice, Place.ALL, town.bundle("b2", {"recommend/model.onnx": bytes(changed)}, version=2))
    asked = []
    newest = bundle(town.luebeck)
    town.luebeck.fetch(newest, known=town.here.known(Kind.BUNDLE), progress=lambda _done, total: asked.append(total))
    assert asked == [2, 2]  # the changed block and the card


def test_a_rollback_is_a_new_version_of_the_old_files(town):
    second(town)
    install(town, town.luebeck)
    town.publish(town.voice, Place.ALL, town.folder / "b1")
    asked = []
    install(town, town.luebeck, progress=lambda *at: asked.append(at))
    assert asked == []  # all of it is in the other slot still
    assert load(town.here.bundle().directory) == MODEL["recommend/model.onnx"]
    assert town.here.bundle().offer.version == 3


def test_a_tampered_block_is_refused_and_the_old_release_stays(town):
    second(town)
    manifest = bundle(town.luebeck)
    topics = list(town.retained(town.owner, "block/"))
    town.owner.deliver([(topic, bytes(MAX_PAYLOAD_BYTES)) for topic in topics], window=8, seconds=5)
    with pytest.raises(DamagedBlockError):
        town.luebeck.fetch(manifest)
    assert says_one(town)


def test_two_swapped_blocks_are_refused(town):
    second(town)
    offered = bundle(town.luebeck)
    found = town.retained(town.owner, "block/")
    turned = dict(zip(found, [*list(found.values())[1:], next(iter(found.values()))], strict=True))
    town.owner.deliver(turned.items(), window=8, seconds=5)
    with pytest.raises(DamagedBlockError):
        town.luebeck.fetch(offered)


def test_older_metadata_are_refused(town):
    old = town.retained(town.owner, "tuf/")
    second(town)
    town.luebeck.newest()
    town.owner.deliver(old.items(), window=8, seconds=5)
    with pytest.raises(RollbackError):
        town.luebeck.newest()
    assert says_one(town)


def test_mixed_metadata_are_refused(town):
    topic = town.topics.tuf("timestamp.json")
    old = town.retained(town.owner, "tuf/")
    second(town)
    new = town.retained(town.owner, "tuf/")
    newest = max((t for t in new if t.endswith(".snapshot.json")), key=lambda t: int(t.rsplit("/", 1)[1].split(".")[0]))
    older = max((t for t in old if t.endswith(".snapshot.json")), key=lambda t: int(t.rsplit("/", 1)[1].split(".")[0]))
    town.owner.deliver([(newest, old[older]), (topic, new[topic])], window=8, seconds=5)
    with pytest.raises(FederationError):  # bound to its topic before TUF even sees it
        town.luebeck.newest()
    assert says_one(town)


def test_frozen_metadata_die_of_age(town):
    town.now -= timedelta(days=8)
    town.voice.publish_metadata(town.repository.refresh(now=town.now))
    with pytest.raises(ExpiredReleaseError, match=r"timestamp\.json is expired") as caught:
        town.luebeck.newest()
    assert "check this machine's clock" in caught.value.line()


def test_metadata_signed_by_someone_else_are_refused(town, quiet_road):
    strange = quiet_road.repository.refresh(now=town.now).metadata["timestamp.json"]
    topic = town.topics.tuf("timestamp.json")
    town.owner.deliver([(topic, encrypt(strange, key=town.key, topic=topic, nonce=bytes(12)))], window=1, seconds=5)
    with pytest.raises(BadSignatureError):
        town.luebeck.newest()


def test_endless_data_are_cut_off(town):
    second(town)
    topic = town.topics.tuf("timestamp.json")
    endless = encrypt(bytes(3_000_000), key=town.key, topic=topic, nonce=bytes(12))
    town.owner.deliver([(topic, endless)], window=1, seconds=5)
    with pytest.raises(UntrustedReleaseError, match="longer than the 16420 it may have"):
        town.luebeck.newest()


def test_a_manifest_that_was_not_signed_is_refused(town):
    second(town)
    offered = bundle(town.luebeck)
    (topic,) = [t for t in town.retained(town.owner, "tuf/") if t.endswith("2.json") and "all/" in t]
    forged = encrypt(b'{"files":{},"format":1}', key=town.key, topic=topic, nonce=bytes(12))
    town.owner.deliver([(topic, forged)], window=1, seconds=5)
    with pytest.raises(BadSignatureError):
        town.luebeck.fetch(offered)


def test_an_edge_with_another_content_key_is_told_so(town):
    keys = town.luebeck._keys
    keys._known.clear()
    keys._newest = ContentKey(number=1, secret=bytes(32))
    with pytest.raises(UntrustedError, match="is encrypted under content key"):
        town.luebeck.newest()


def test_an_edge_whose_key_was_sealed_to_another_learns_nothing(town, eventually, heard):
    town.sealing["luebeck"] = SealingKey.generate()  # not the one that the roster lists
    thief = town.edge("luebeck", heard=heard)
    thief.wait_until_connected(seconds=10)
    with pytest.raises(UnavailableError, match="has not sealed a content key"):
        thief.newest()
    assert isinstance(eventually(lambda: heard.troubles)[0], UntrustedError)


def test_a_new_root_is_followed_and_absent_ones_are_not_waited_for(town):
    key = town.root_key
    for _ in range(2):
        town.voice.publish_metadata(
            town.repository.rotate_root(old_keys=[key], new_keys=[key], threshold=1, now=town.now)
        )
    assert bundle(town.luebeck).offer.version == 1
    assert (town.folder / "edge-luebeck" / "tuf" / "root_history" / "3.root.json").exists()


def test_a_root_by_a_stolen_online_key_is_not_followed(town):
    stolen = town.online.timestamp
    forged = town.repository.rotate_root(
        old_keys=[town.root_key], new_keys=[stolen], threshold=1, now=town.now
    ).metadata["2.root.json"]
    half = forged.replace(b'"sig":"', b'"sig":"00', 1)  # the old key's signature is gone
    for name in ("root.json", "2.root.json"):
        town.owner.deliver([(town.topics.tuf(name), half)], window=1, seconds=5)
    with pytest.raises(FederationError):
        town.luebeck.newest()


def test_a_late_joiner_needs_no_center(town):
    town.admit(town.voice, "bremen")
    town.voice.stop()
    bremen = town.edge("bremen")
    here = town.installer("bremen")
    install(town, bremen, here)
    assert load(here.bundle().directory) == MODEL["recommend/model.onnx"]


def test_an_interrupted_download_asks_only_for_what_is_missing(town):
    second(town)
    offered = bundle(town.luebeck)

    class PulledPlugError(Exception):
        pass

    def pull(done, _total):
        if done == 4:
            raise PulledPlugError

    with pytest.raises(PulledPlugError):
        town.luebeck.fetch(offered, progress=pull)
    town.luebeck.stop()
    asked = []
    town.edge("luebeck").fetch(offered, progress=lambda _done, total: asked.append(total))
    assert set(asked) == {7 - 4}


def test_a_download_goes_on_after_the_broker_was_away(town):
    second(town)
    offered = bundle(town.luebeck)

    def bounce(done, _total):
        if done == 3:
            town.broker.stop()
            town.start_broker()
            town.voice.tend()

    assert load(town.luebeck.fetch(offered, progress=bounce).directory) == random.Random(2).randbytes(6 * BLOCK_BYTES)


def test_a_missing_block_is_named_and_the_rest_is_kept(town):
    before = town.retained(town.owner, "block/")
    second(town)
    offered = bundle(town.luebeck)
    after = town.retained(town.owner, "block/")
    lost = next(topic for topic in after if topic not in before)
    town.owner.deliver([(lost, b"")], window=1, seconds=5)
    with pytest.raises(UnavailableError, match=lost):
        town.luebeck.fetch(offered)
    town.owner.deliver([(lost, after[lost])], window=1, seconds=5)
    asked = []
    town.luebeck.fetch(offered, progress=lambda _done, total: asked.append(total))
    assert asked == [1]


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
    shutil.rmtree(town.folder / "edge-luebeck" / "tuf")
    assert bundle(town.luebeck).offer.version == 1
