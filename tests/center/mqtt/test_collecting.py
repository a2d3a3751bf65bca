"""What nobody needs goes; what somebody may still fetch stays; a full broker is noticed before anything is sent."""

import random
from contextlib import closing
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from center import settings as center_settings
from center.cli import main
from center.founding import open_repository
from center.mqtt import collecting, content_keys
from center.mqtt.release_blocks import manifest_of
from center.registry import Registry
from center.signing import rotation
from center.sites import membership
from protocol.blocks import BLOCK_BYTES, MAX_PAYLOAD_BYTES
from protocol.bundle import Entry, FileDigest, Manifest
from protocol.errors import BadInputError
from protocol.release import Kind, Place

HOUR = timedelta(hours=1)


def model(seed):
    return {"recommend/model.onnx": random.Random(seed).randbytes(2 * BLOCK_BYTES)}


@pytest.fixture
def aged(town):
    """Five releases for everybody, of which two are listed from the next collection on."""
    town.set("releases", keep=2, keep_hours=24)
    town.admit("bergen")
    for seed in range(5):
        town.release(model(seed))
    return town


def collect(town, *, after=timedelta(), dry=False):
    with town.connected() as voice:
        act = collecting.look if dry else collecting.collect
        return act(voice, town.folder, town.settings, now=town.now + after)


def says(town, **status):
    with closing(Registry(town.folder / "registry.db")) as registry:
        registry.note_statuses({"bergen": {"edge": "bergen", "online": True, **status}})


def blocks(town):
    return {topic for topic in town.retained() if "/block/" in topic}


def folders(town):
    return sorted(path.name for path in (town.folder / "releases").iterdir())


def test_old_releases_leave_the_list_at_once_and_the_broker_a_day_later(aged) -> None:
    there = blocks(aged)
    gone = collect(aged)
    assert {"all/1.json", "all/2.json", "all/3.json", "pace/3.json"} <= {*gone.targets}
    assert blocks(aged) == there
    assert collect(aged, after=23 * HOUR).messages == {}
    gone = collect(aged, after=25 * HOUR)
    assert len([topic for topic in gone.messages if "/block/" in topic]) == 6
    assert there - blocks(aged) == {topic for topic in gone.messages if "/block/" in topic}
    assert folders(aged) == ["bundle-4", "bundle-5"]
    rest = aged.read_as("bergen")
    assert rest["all/5.json"]["recommend/model.onnx"] == model(4)["recommend/model.onnx"]
    assert not collect(aged, after=50 * HOUR)


def test_a_block_that_a_listed_release_shares_stays(town) -> None:
    town.set("releases", keep=1, keep_hours=0)
    town.admit("bergen")
    town.release({**model(1), "recommend/extra": b"only in the first"})
    town.release({**model(1), "recommend/extra": b"only in the second"})
    gone = collect(town)
    assert len([topic for topic in gone.messages if "/block/" in topic]) == 1
    assert town.read_as("bergen")["all/2.json"] == {
        **model(1),
        "recommend/extra": b"only in the second",
        "card.json": b"{}",
    }


def test_a_dry_run_says_the_same_and_changes_nothing(aged, capsys) -> None:
    collect(aged)
    there, files = aged.retained(), folders(aged)
    looked = collect(aged, after=25 * HOUR, dry=True)
    assert (aged.retained(), folders(aged)) == (there, files)
    assert collect(aged, after=25 * HOUR) == looked
    assert main(["collect", "--dry-run", "--json", "--dir", str(aged.folder)]) == 0
    assert '"messages": 0' in capsys.readouterr().out


def test_what_an_edge_is_fetching_stays_for_a_week_more(aged) -> None:
    collect(aged)
    says(aged, fetching="all/2.json")
    there = blocks(aged)
    gone = {topic for topic in collect(aged, after=25 * HOUR).messages if "/block/" in topic}
    assert len(gone) == 4
    assert len(there - blocks(aged)) == 4
    assert folders(aged) == ["bundle-2", "bundle-4", "bundle-5"]
    assert len([topic for topic in collect(aged, after=9 * 24 * HOUR).messages if "/block/" in topic]) == 2


@pytest.mark.parametrize("said", ["2", [2], {}, None, True, -1, 10**40])
def test_nonsense_in_a_status_holds_nothing_back(aged, said) -> None:
    collect(aged)
    says(aged, fetching=said)
    assert len([topic for topic in collect(aged, after=25 * HOUR).messages if "/block/" in topic]) == 6


def test_what_is_needed_again_is_not_collected(aged) -> None:
    collect(aged)
    with aged.connected() as voice:
        aged.sign(voice, aged.folder / "releases" / "bundle-1")  # a rollback
    gone = collect(aged, after=25 * HOUR)
    assert len([topic for topic in gone.messages if "/block/" in topic]) == 4
    assert folders(aged) == ["bundle-1", "bundle-4", "bundle-5"]
    assert aged.read_as("bergen")["all/6.json"]["recommend/model.onnx"] == model(0)["recommend/model.onnx"]


def test_the_release_that_most_of_a_slow_rollout_still_serves_stays_listed(aged) -> None:
    for seed in (5, 6, 7, 8):
        aged.release(model(seed), reach=1000)
    collect(aged)
    listed = open_repository(aged.folder).listed()
    assert {"all/5.json", "pace/5.json", "all/9.json"} <= listed.keys()
    assert "all/4.json" not in listed


def test_a_ring_keeps_what_it_serves_however_much_the_others_get(town) -> None:
    town.set("releases", keep=1, keep_hours=0)
    town.admit("bergen")
    town.release(model(1))
    for seed in (2, 3):
        town.release(model(seed), place=Place.CANARY)
    for seed in (4, 5):
        town.release(model(seed), place=Place.CANDIDATE)
    collect(town)
    assert {*open_repository(town.folder).offers()} == {"all/1.json", "canary/3.json", "candidate/5.json"}
    assert open_repository(town.folder).next_version(Kind.BUNDLE) == 6


def test_what_people_must_approve_of_is_left_to_the_next_approval(aged) -> None:
    person, media = Ed25519PrivateKey.generate(), [aged.folder / "offline"]
    rotation.add_approver(
        aged.folder, person.public_key(), approvals=1, approving=[person], offline=media, now=aged.now
    )
    assert collect(aged).targets == ()
    repository = open_repository(aged.folder)
    assert "all/1.json" in collecting.prune(repository, keep=2, wide=True)
    repository.publish_version(now=aged.now, approvals=[person])
    assert "all/1.json" not in open_repository(aged.folder).listed()


def test_blocks_of_a_release_that_was_never_signed_go_in_time(town) -> None:
    town.admit("bergen")
    place = town.build(model(1))
    with town.connected() as voice:
        voice.publish_blocks(place, manifest_of(place, key=voice.keys.newest))
    collect(town)
    assert len(blocks(town)) == 3
    collect(town, after=25 * HOUR)
    assert blocks(town) == set()
    assert folders(town) == ["bundle-1"]  # it may be signed yet


def test_an_old_key_is_kept_as_long_as_something_is_under_it(aged) -> None:
    membership.change_content_key(aged.folder, aged.settings, now=aged.now)
    collect(aged)
    assert [key.number for key in content_keys.load(aged.folder / "keys").earlier] == [1]
    collect(aged, after=25 * HOUR)
    assert content_keys.load(aged.folder / "keys").earlier == ()
    assert "all/5.json" in aged.read_as("bergen")


def test_an_emptied_broker_is_restocked_without_the_garbage(aged) -> None:
    collect(aged)
    collect(aged, after=25 * HOUR)
    before = aged.retained()
    aged.stop_broker()
    for path in (aged.folder / "broker").glob("*.db*"):
        path.unlink()
    aged.start_broker()
    with aged.connected() as voice:
        assert voice.tend()
    assert aged.retained() == before


_COLLECT = """
with road.connected(folder, loaded, CenterKeys.load(folder)) as voice:
    collecting.collect(voice, folder, loaded, now=datetime.fromisoformat(sys.argv[3]))
"""


@pytest.mark.parametrize("broker_kind", ["mosquitto"], indirect=True)
@pytest.mark.parametrize("hours", [0, 25])
def test_killed_again_and_again_a_collection_comes_to_the_same_end(aged, dies, hours) -> None:
    if hours:
        collect(aged)
    moment = (aged.now + hours * HOUR).isoformat()
    step, deaths = 1, 0
    while dies(_COLLECT, moment, step=step):
        assert "all/5.json" in aged.read_as("bergen")
        step, deaths = step + 5, deaths + 1
    assert deaths > 2
    assert len(blocks(aged)) == (6 if hours else 12) - 1  # card.json is the same in all of them
    with aged.connected() as voice:  # what was cleared is not taken for being there
        aged.sign(voice, aged.build(model(0)))
    assert aged.read_as("bergen")["all/6.json"]["recommend/model.onnx"] == model(0)["recommend/model.onnx"]


def test_a_broker_without_room_is_said_before_anything_is_sent(town) -> None:
    town.admit("bergen")
    town.release(model(1))
    before = town.retained()
    town.set("broker", max_retained_messages=len(before) + 2)
    place = town.build(model(2))
    with (
        pytest.raises(BadInputError, match=r"messages would be retained, broker\.max_retained_messages is"),
        town.connected() as voice,
    ):
        town.sign(voice, place)
    assert town.retained() == before
    town.set("broker", max_retained_messages=0, max_retained_bytes=3 * BLOCK_BYTES)
    with pytest.raises(BadInputError, match="would be retained") as refused, town.connected() as voice:
        town.sign(voice, place)
    assert "releases.keep" in refused.value.advice
    assert town.retained() == before


def test_garbage_makes_room(aged) -> None:
    collect(aged)
    held = sum(map(len, aged.retained().values()))
    aged.set("broker", max_retained_bytes=held + BLOCK_BYTES)
    place = aged.build(model(9))
    with pytest.raises(BadInputError), aged.connected() as voice:
        aged.sign(voice, place)
    aged.set("releases", keep_hours=0)
    with aged.connected() as voice:
        assert aged.sign(voice, place) == 6
    assert sum(map(len, aged.retained().values())) <= held + BLOCK_BYTES


def test_a_manifest_that_the_broker_would_drop_is_said_before_anything_is_sent(town) -> None:
    town.set("broker", max_message_bytes=MAX_PAYLOAD_BYTES)
    many = Entry(file=FileDigest(size=4000 * BLOCK_BYTES, sha256="ab" * 32), blocks=("cd" * 32,) * 4000)
    with pytest.raises(BadInputError, match=r"broker\.max_message_bytes is"), town.connected() as voice:
        voice.check_room(Manifest(files={"card.json": many}))


def test_a_roster_that_the_broker_would_drop_stops_nothing_else(town) -> None:
    """It must not be listed: metadata that offer what cannot be fetched would be the end of all releases."""
    town.set("broker", max_message_bytes=MAX_PAYLOAD_BYTES)
    town.admit("bergen")
    with pytest.raises(BadInputError, match=r"broker\.max_message_bytes is"):
        town.admit(*(f"site-{number}" for number in range(100)))
    town.release(model(1))
    assert {"all/1.json", "roster/1.json"} <= town.read_as("bergen").keys()


def test_a_limit_below_a_block_is_refused_at_the_start(town) -> None:
    town.set("broker", max_message_bytes=MAX_PAYLOAD_BYTES - 1)
    with pytest.raises(BadInputError, match=r"broker\.max_message_bytes"):
        center_settings.load(town.folder)
