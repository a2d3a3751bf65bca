import json
import random
import shutil
import threading
import time
from datetime import timedelta

import pytest

from center.cli import main
from center.founding import open_repository
from center.keys import CenterKeys
from center.mqtt import collecting, content_keys
from center.mqtt.limits import Limits
from center.mqtt.release_blocks import manifest_of
from center.sites import membership
from protocol.blocks import BLOCK_BYTES, MAX_PAYLOAD_BYTES
from protocol.errors import BadInputError, UnavailableError
from protocol.identity import Label, Roster, open_document
from protocol.release import Place
from protocol.rings import RingPolicy
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
    monkeypatch.setattr("center.mqtt.delivery._ACKNOWLEDGE_SECONDS", 0.5)
    voice = road.publisher()
    directory = road.bundle("b1", {"recommend/model.onnx": noise(2)})
    manifest, _ = road.sign(Place.ALL, directory)
    road.broker.stop()
    with pytest.raises(UnavailableError, match="the broker at"):
        voice.publish_blocks(directory, manifest)
    road.start_broker()
    monkeypatch.setattr("center.mqtt.delivery._ACKNOWLEDGE_SECONDS", 15.0)
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
    for _ in range(8):
        road.now += timedelta(days=20)
        voice.publish_metadata(road.repository.refresh(now=road.now))
    snapshots = [topic for topic in road.retained(owner, "tuf/") if topic.endswith(".snapshot.json")]
    assert 2 <= len(snapshots) <= 4  # the last ones stay for those who are just reading them


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


_RELEASE = """
from protocol.release import WHOLE_QUEUE, Kind, Offer, Pace, Place

with (
    road.connected(folder, loaded, CenterKeys.load(folder)) as voice,
    road.signing_files(voice, Path(sys.argv[3]), directory=folder, settings=loaded) as (repository, manifest),
):
    number = repository.next_version(Kind.BUNDLE)
    offer = Offer(
        place=Place.ALL, version=number, sha256=manifest.bundle_digest, bytes=manifest.total_bytes, evaluation={}
    )
    if not any(one.sha256 == offer.sha256 for one in repository.offers().values()):
        repository.add(offer, manifest.to_bytes())
        pace = Pace(version=number, reach=WHOLE_QUEUE)
        repository.add_target(pace.target, b"{}", custom=pace.to_custom())
        repository.publish_version(now=now)
    voice.publish_metadata(repository.published())
"""


@pytest.mark.parametrize("broker_kind", ["mosquitto"], indirect=True)
@pytest.mark.parametrize(
    ("size", "steps"),
    [pytest.param(70, range(1, 500, 50), id="blocks"), pytest.param(1, range(20, 500, 5), id="metadata")],
)
def test_killed_anywhere_a_publication_offers_nothing_that_cannot_be_fetched_and_goes_on(town, dies, size, steps):
    town.set("releases", keep=1, keep_hours=0)
    town.admit("bergen")
    deaths = offered = 0
    for step in steps:
        place = town.build({"recommend/model.onnx": noise(size, seed=step)})
        if not dies(_RELEASE, str(place), step=step):
            break
        deaths += 1
        release = f"all/{place.name.removeprefix('bundle-')}.json"
        offered += release in town.read_as("bergen")  # reads every block of what is offered
        assert not dies(_RELEASE, str(place), step=0)
        assert town.read_as("bergen")[release]["recommend/model.onnx"] == noise(size, seed=step)
        with town.connected() as voice:
            assert not voice.tend()
            collecting.collect(voice, town.folder, town.settings, now=town.now)
    assert deaths > 2
    assert offered < deaths


def test_a_broker_without_room_gets_no_block(road):
    road.limits = Limits(message_bytes=1 << 20, total_bytes=4 * BLOCK_BYTES)
    voice, owner = road.publisher(), road.as_owner_of_the_broker()
    road.publish(voice, Place.ALL, road.bundle("b1", {"recommend/model.onnx": noise(2)}))
    before = road.retained(owner)
    directory = road.bundle("b2", {"recommend/model.onnx": noise(3, seed=2)}, version=2)
    with pytest.raises(BadInputError, match=r"broker\.max_retained_bytes is"):
        voice.publish_blocks(directory, manifest_of(directory, key=road.key))
    assert road.retained(owner) == before


def test_a_release_that_was_described_under_an_older_key_is_signed_under_the_newest(town, monkeypatch):
    """Another process changes the content key while the blocks are on their way."""
    town.admit("bergen")
    place = town.build({"recommend/model.onnx": noise(2)})
    with town.connected() as voice:
        publish = voice.publish_blocks

        def slow(folder, manifest, *, key):
            travelled = publish(folder, manifest, key=key)
            if travelled and key.number == 1:
                membership.change_content_key(town.folder, town.settings, now=town.now)
            return travelled

        monkeypatch.setattr(voice, "publish_blocks", slow)
        town.sign(voice, place)
    assert town.read_as("bergen")["all/1.json"]["recommend/model.onnx"] == noise(2)


def test_a_running_center_publishes_under_the_key_that_another_process_put_in_force(town):
    town.admit("bergen")
    with town.connected() as serving:
        serving.publish_metadata(open_repository(town.folder).published())
        membership.change_content_key(town.folder, town.settings, now=town.now)
        town.release({"recommend/model.onnx": noise(1)}, voice=serving)
    key = town.key_of("bergen", town.retained())
    assert (key.number, key) == (2, content_keys.load(town.folder / "keys").newest)
    assert "all/1.json" in town.read_as("bergen")


def test_the_roster_and_the_rings_are_targets_and_an_edge_finds_them_signed_offline(town):
    town.admit(*(f"site-{number}" for number in range(12)))
    found = town.read_as("site-3")
    keys = CenterKeys.load(town.folder)
    roster = Roster.open(found["roster/1.json"][""], key=keys.roster_public, federation=town.federation)
    policy = RingPolicy.open(found["policy/1.json"][""], key=keys.roster_public, federation=town.federation)
    assert len(roster.members) == 12
    assert (len(policy.canary), len(policy.early)) == (3, 3)
    town.admit("site-12")
    found = town.read_as("site-12")
    assert {name for name in found if name.startswith(("roster", "policy"))} == {"roster/2.json", "policy/1.json"}
    membership.remove(town.folder, town.settings, policy.canary[0], now=town.now)
    found = town.read_as("site-12")
    again = RingPolicy.open(found["policy/2.json"][""], key=keys.roster_public, federation=town.federation)
    assert (again.canary, again.early) == (policy.canary[1:], policy.early)


def test_a_small_federation_has_no_rings_until_its_operator_names_them(town, capsys):
    town.admit("bergen", "luebeck", "visby")
    assert "policy" not in str([*town.read_as("bergen")])
    place = ["--dir", str(town.folder), "--json"]
    assert main(["rings", "--canary", "visby", *place]) == 0
    assert main(["rings", "--early", "bergen, luebeck", *place]) == 0
    assert "policy/2.json" in town.read_as("bergen")
    capsys.readouterr()
    assert main(["rings", *place]) == 0
    assert json.loads(capsys.readouterr().out) == {"policy": 2, "canary": ["visby"], "early": ["bergen", "luebeck"]}
    assert main(["rings", "--canary", "riga", *place]) == 1
    assert "no site riga is admitted" in capsys.readouterr().err


def test_rings_are_drawn_by_hash_and_small_federations_get_none():
    names = [f"site-{number}" for number in range(24)]
    sizes = {n: tuple(map(len, membership.default_rings("hanse", names[:n]))) for n in (0, 5, 6, 11, 12, 24)}
    assert sizes == {0: (0, 0), 5: (0, 0), 6: (3, 0), 11: (3, 0), 12: (3, 3), 24: (3, 6)}
    assert membership.default_rings("hanse", names) == membership.default_rings("hanse", names[::-1])
    assert membership.default_rings("hanse", names) != membership.default_rings("rhein", names)


def test_a_roster_that_went_back_is_not_told(town):
    town.admit("bergen")
    old = (town.folder / "trust" / "roster.json").read_bytes()
    town.admit("visby")
    (town.folder / "trust" / "roster.json").write_bytes(old)  # somebody restored half a backup
    with pytest.raises(BadInputError, match=r"roster/2\.json is told already"), town.connected() as voice:
        membership.publish(voice, town.folder, town.settings, now=town.now)
    assert "roster/2.json" in town.read_as("bergen")
