import random
import shutil
import threading
import time
from datetime import timedelta

import pytest

from center.publishing import manifest_of
from protocol.blocks import BLOCK_BYTES, MAX_PAYLOAD_BYTES
from protocol.errors import BadInputError, UnavailableError
from protocol.identity import Label, open_document
from protocol.release import Place
from protocol.sealing import decrypt, open_content_key


def noise(blocks, *, seed=1):
    return random.Random(seed).randbytes(int(blocks * BLOCK_BYTES))


def test_nobody_on_the_broker_can_read_a_release(road):
    voice, owner = road.publisher(), road.as_owner_of_the_broker()
    road.publish(voice, Place.CATALOGUE, road.catalogue())
    found = road.retained(owner)
    plain = [topic for topic, payload in found.items() if b"catalogue" in payload]
    assert all(topic.endswith("root.json") or topic == road.topics.inventory for topic in plain)
    timestamp = road.topics.tuf("timestamp.json")
    assert b'"timestamp"' in decrypt(found[timestamp], key=road.key, topic=timestamp)
    assert len([topic for topic in found if "/block/" in topic]) == 2


def test_a_block_that_two_releases_share_travels_once(road):
    voice = road.publisher()
    base = {"recommend/model.onnx": noise(4), "recommend/item_bias.bin": noise(1, seed=2)}
    first = road.publish(voice, Place.ALL, road.bundle("b1", base))
    changed = base["recommend/model.onnx"][:-1] + b"x"
    second = road.publish(voice, Place.ALL, road.bundle("b2", {**base, "recommend/model.onnx": changed}, version=2))
    assert first > 5 * BLOCK_BYTES
    assert second < MAX_PAYLOAD_BYTES + 2000  # the changed block and the new card


def test_a_release_published_again_sends_nothing(road):
    voice = road.publisher()
    directory = road.bundle("b1", {"recommend/model.onnx": noise(2)})
    manifest, published = road.sign(Place.ALL, directory)
    assert voice.publish_blocks(directory, manifest) > 0
    voice.publish_metadata(published)
    assert voice.publish_blocks(directory, manifest) == 0


def test_a_restarted_center_sends_nothing_again(road):
    directory = road.bundle("b1", {"recommend/model.onnx": noise(2)})
    manifest, published = road.sign(Place.ALL, directory)
    first = road.publisher()
    first.publish_blocks(directory, manifest)
    first.publish_metadata(published)
    again = road.publisher()
    assert not again.tend()
    assert again.publish_blocks(directory, manifest) == 0


def test_a_wiped_broker_is_restocked(road):
    voice = road.publisher()
    road.admit(voice, "luebeck")
    road.publish(voice, Place.ALL, road.bundle("b1", {"recommend/model.onnx": noise(3)}))
    owner = road.as_owner_of_the_broker()
    before = road.retained(owner)
    road.broker.stop()
    shutil.rmtree(road.folder / "broker")
    road.start_broker()
    owner.wait_until_up(seconds=15)
    assert voice.tend()
    assert road.retained(owner) == before
    assert not voice.tend()


def test_a_broker_that_went_back_to_an_old_state_is_restocked(road):
    voice, owner = road.publisher(), road.as_owner_of_the_broker()
    road.publish(voice, Place.ALL, road.bundle("b1", {"recommend/model.onnx": noise(1)}))
    old = road.retained(owner)
    road.publish(voice, Place.ALL, road.bundle("b2", {"recommend/model.onnx": noise(1, seed=9)}, version=2))
    new = road.retained(owner)
    lost = [(topic, b"") for topic in new.keys() - old.keys()]
    owner.deliver([*lost, *old.items()], window=8, seconds=5)  # what a restored backup would hold
    again = road.publisher()  # a new connection, and the ledger as it was
    assert again.tend()
    assert road.retained(owner).items() >= new.items()


def test_a_broker_that_is_away_is_said_and_nothing_is_taken_for_published(road, monkeypatch):
    monkeypatch.setattr("center.delivery._ACKNOWLEDGE_SECONDS", 0.5)
    voice = road.publisher()
    directory = road.bundle("b1", {"recommend/model.onnx": noise(2)})
    manifest, _ = road.sign(Place.ALL, directory)
    road.broker.stop()
    with pytest.raises(UnavailableError, match="the broker at"):
        voice.publish_blocks(directory, manifest)
    road.start_broker()
    monkeypatch.setattr("center.delivery._ACKNOWLEDGE_SECONDS", 15.0)
    assert voice.publish_blocks(directory, manifest) > 2 * BLOCK_BYTES


def test_a_broker_that_dies_in_the_middle_gets_everything_in_the_end(road):
    voice, owner = road.publisher(), road.as_owner_of_the_broker()
    directory = road.bundle("b1", {"recommend/model.onnx": noise(150)})
    manifest, published = road.sign(Place.ALL, directory)

    def publish():
        voice.publish_blocks(directory, manifest)
        voice.publish_metadata(published)

    publishing = threading.Thread(target=publish)
    publishing.start()
    time.sleep(0.1)
    road.broker.stop()
    assert publishing.is_alive()
    road.start_broker()  # on this thread: a broker dies with the thread that started it
    publishing.join(60)
    voice.tend()
    owner.wait_until_up(seconds=15)
    there = {topic.rsplit("/", 1)[1] for topic in road.retained(owner, "block/")}
    assert there == {block for entry in manifest.files.values() for block in entry.blocks}


def test_a_file_changed_after_signing_is_not_published(road):
    voice = road.publisher()
    directory = road.bundle("b1", {"recommend/model.onnx": noise(1)})
    manifest, _ = road.sign(Place.ALL, directory)
    (directory / "recommend/model.onnx").write_bytes(noise(1, seed=5))
    with pytest.raises(BadInputError, match="has changed since its release was signed"):
        voice.publish_blocks(directory, manifest)


def test_a_link_in_a_release_directory_is_refused(quiet_road):
    directory = quiet_road.bundle("b1", {"recommend/model.onnx": b"model"})
    (directory / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(BadInputError, match="neither a file nor a folder"):
        manifest_of(directory, key=quiet_road.key)


def test_metadata_that_nobody_reads_any_more_are_cleared(road):
    voice, owner = road.publisher(), road.as_owner_of_the_broker()
    for _ in range(4):
        road.now += timedelta(days=20)
        voice.publish_metadata(road.repository.refresh(now=road.now))
    snapshots = [topic for topic in road.retained(owner, "tuf/") if topic.endswith(".snapshot.json")]
    assert 1 <= len(snapshots) <= 2


def test_a_content_key_is_sealed_once_and_opens_at_its_edge(road):
    voice, owner = road.publisher(), road.as_owner_of_the_broker()
    road.admit(voice, "luebeck")
    first = road.retained(owner, "key/")
    road.admit(voice, "luebeck")
    assert road.retained(owner, "key/") == first
    opened = open_content_key(
        first[road.topics.key("luebeck")],
        federation=road.federation,
        edge="luebeck",
        private_key=road.sealing["luebeck"],
        center_key=road.signer.public_key(),
    )
    assert opened == road.key


def test_a_removed_edge_leaves_nothing_behind(road):
    voice, owner = road.publisher(), road.as_owner_of_the_broker()
    road.admit(voice, "luebeck")
    voice.remove_edge("luebeck")
    assert road.retained(owner, "key/") == {}


def test_a_wake_is_signed(road):
    voice, owner = road.publisher(), road.as_owner_of_the_broker()
    voice.wake({"round": 3})
    wake = road.retained(owner)[road.topics.round]
    assert open_document(Label.WAKE, wake, key=road.signer.public_key()) == {"round": 3}


def test_noise_on_a_status_topic_is_ignored(road, eventually):
    voice, owner = road.publisher(), road.as_owner_of_the_broker()
    status = road.topics.status
    owner.deliver(
        [(status("a"), b"\xff"), (status("b"), b"[]"), (status("c"), b'{"online":true}')], window=1, seconds=5
    )
    assert eventually(voice.statuses) == {"c": {"online": True}}
