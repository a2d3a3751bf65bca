"""A site that is out reads nothing that comes after, and everybody else goes on, whatever dies in the middle."""

import random
from contextlib import closing

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from center.cli import main
from center.founding import open_repository
from center.mqtt import content_keys, rekeying
from center.registry import Registry
from center.signing import rotation
from center.sites import membership
from protocol.blocks import BLOCK_BYTES
from protocol.errors import BadInputError, UntrustedError
from protocol.release import Place
from protocol.sealing import decrypt

MODEL = random.Random(1).randbytes(3 * BLOCK_BYTES + 7)
OTHER = random.Random(2).randbytes(BLOCK_BYTES)


@pytest.fixture
def stocked(town):
    """Three sites, two releases, a catalogue and a candidate."""
    town.admit("bergen", "luebeck", "visby")
    town.release({"items.jsonl": b"a catalogue"}, place=Place.CATALOGUE)
    town.release({"recommend/model.onnx": OTHER})
    town.release({"recommend/model.onnx": MODEL})
    town.release({"recommend/model.onnx": MODEL[:-1] + b"x"}, place=Place.CANDIDATE)
    return town


def number(town):
    return content_keys.load(town.folder / "keys").newest.number


def test_a_removed_site_reads_nothing_that_comes_after(stocked) -> None:
    before = stocked.retained()
    old_key = stocked.key_of("visby", before)
    everything = stocked.read_as("visby", stock=before)
    roster, key = membership.remove(stocked.folder, stocked.settings, "visby", now=stocked.now)
    stock = stocked.retained()
    assert (key, roster.version, [member.edge for member in roster.members]) == (2, 2, ["bergen", "luebeck"])
    assert stocked.topics.key("visby") not in stock
    for name in (
        "timestamp.json",
        *(topic.removeprefix(stocked.topics.tuf("")) for topic in stock if "/all/" in topic),
    ):
        topic = stocked.topics.tuf(name)
        if stock[topic] != before.get(topic):
            with pytest.raises(UntrustedError):
                decrypt(stock[topic], key=old_key, topic=topic)
    rest = stocked.read_as("luebeck", stock=stock)
    bundles = [name for name in everything if not name.startswith("roster")]
    assert {name: rest[name] for name in bundles} == {name: everything[name] for name in bundles}
    assert {*rest} - {*bundles} == {"roster/2.json"}


def test_what_a_release_is_stays_the_same_under_another_key(stocked) -> None:
    before = open_repository(stocked.folder).offers()
    assert membership.change_content_key(stocked.folder, stocked.settings, now=stocked.now) == 2
    assert open_repository(stocked.folder).offers() == before


def test_a_rollback_that_names_older_files_is_described_from_the_older_folder(stocked) -> None:
    older = stocked.folder / "releases" / "bundle-1"
    with stocked.connected() as voice:
        assert stocked.sign(voice, older) == 4
    membership.change_content_key(stocked.folder, stocked.settings, now=stocked.now)
    assert stocked.read_as("bergen")["all/4.json"]["recommend/model.onnx"] == OTHER


def test_an_edge_in_the_middle_of_a_download_can_finish_it(stocked) -> None:
    before = stocked.retained()
    membership.change_content_key(stocked.folder, stocked.settings, now=stocked.now)
    after = stocked.retained()
    assert {topic for topic in before if "/block/" in topic} <= after.keys()


def test_the_removal_of_a_second_site_draws_a_key_of_its_own(stocked) -> None:
    for site, expected in (("visby", 2), ("luebeck", 3)):
        assert membership.remove(stocked.folder, stocked.settings, site, now=stocked.now)[1] == expected
    assert "all/2.json" in stocked.read_as("bergen")


def test_a_key_that_was_drawn_for_one_removal_is_not_given_out_at_the_next(stocked) -> None:
    """The first removal died after some edges had got the coming key; one of them is removed next."""
    rekeying.begin(stocked.folder, roster=2)
    first = content_keys.load(stocked.folder / "keys").coming
    rekeying.begin(stocked.folder, roster=3)
    second = content_keys.load(stocked.folder / "keys").coming
    assert (first.number, second.number) == (2, 3)
    assert first.secret != second.secret
    rekeying.begin(stocked.folder, roster=3)
    assert content_keys.load(stocked.folder / "keys").coming == second


def test_an_emptied_broker_is_restocked_after_a_change_of_key(stocked) -> None:
    membership.change_content_key(stocked.folder, stocked.settings, now=stocked.now)
    before = stocked.retained()
    stocked.stop_broker()
    for path in (stocked.folder / "broker").glob("*.db*"):
        path.unlink()
    stocked.start_broker()
    with stocked.connected() as voice:
        assert voice.tend()
    assert stocked.retained() == before


def test_a_release_whose_files_are_gone_is_named_and_nothing_has_changed(stocked) -> None:
    (stocked.folder / "releases" / "bundle-2" / "recommend/model.onnx").write_bytes(b"other")
    with pytest.raises(BadInputError, match=r"the files of all/2\.json are not in"):
        membership.change_content_key(stocked.folder, stocked.settings, now=stocked.now)
    assert number(stocked) == 1
    assert stocked.read_as("bergen")["all/2.json"]["recommend/model.onnx"] == MODEL


def test_an_old_release_whose_files_are_gone_holds_nobody_up(stocked) -> None:
    (stocked.folder / "releases" / "bundle-1" / "recommend/model.onnx").unlink()
    assert membership.change_content_key(stocked.folder, stocked.settings, now=stocked.now) == 2
    assert {"all/2.json", "candidate/3.json", "catalogue/1.json"} <= stocked.read_as("bergen").keys()
    assert "all/1.json" not in stocked.read_as("bergen")


def test_with_approvers_a_site_is_out_at_once_and_the_key_changes_with_their_approval(stocked) -> None:
    person = Ed25519PrivateKey.generate()
    media = [stocked.folder / "offline"]
    rotation.add_approver(
        stocked.folder, person.public_key(), approvals=1, approving=[person], offline=media, now=stocked.now
    )
    with pytest.raises(BadInputError, match="must be signed anew, with 1 approvals") as refused:
        membership.remove(stocked.folder, stocked.settings, "visby", now=stocked.now)
    assert "--approve-with" in refused.value.advice
    assert stocked.topics.key("visby") not in stocked.retained()
    assert "roster/2.json" in stocked.read_as("bergen")
    assert membership.remove(stocked.folder, stocked.settings, "visby", approvals=[person], now=stocked.now)[1] == 2
    assert "all/2.json" in stocked.read_as("bergen")


@pytest.mark.parametrize("broker_kind", ["mosquitto"], indirect=True)
def test_killed_anywhere_a_change_of_key_goes_on_and_edges_go_on_reading(stocked, dies) -> None:
    program = "membership.change_content_key(folder, loaded, now=now)"
    expected = stocked.read_as("bergen")
    deaths, states = 0, set()
    for step in range(1, 200, 7):
        keys = content_keys.load(stocked.folder / "keys")
        if not dies(program, step=step):
            break
        deaths += 1
        assert stocked.read_as("bergen", known=(keys.newest,)) == expected
        then = content_keys.load(stocked.folder / "keys")
        states.add((then.newest.number - keys.newest.number, then.coming is not None))
        coming = then.coming or then.newest
        again = membership.change_content_key(stocked.folder, stocked.settings, now=stocked.now)
        if then.coming is not None:
            assert again == coming.number  # what was interrupted was finished
        assert stocked.read_as("bergen") == expected
    assert deaths > 4
    assert {(0, True), (1, False)} <= states  # killed before and after the key was in force


@pytest.mark.parametrize("broker_kind", ["mosquitto"], indirect=True)
def test_killed_again_and_again_a_removal_comes_to_the_same_end(stocked, dies) -> None:
    step = 3
    while dies('membership.remove(folder, loaded, "visby", now=now)', step=step):
        step += 9
    assert step > 30
    assert number(stocked) == 2
    with closing(Registry(stocked.folder / "registry.db")) as registry:
        assert [member.edge for member in registry.sites()] == ["bergen", "luebeck"]
    assert stocked.read_as("luebeck")["all/2.json"]["recommend/model.onnx"] == MODEL
    assert stocked.topics.key("visby") not in stocked.retained()


def test_a_running_center_finishes_what_died(stocked) -> None:
    rekeying.begin(stocked.folder, roster=1, always=True)
    with stocked.connected() as voice:
        membership.publish(voice, stocked.folder, stocked.settings, now=stocked.now)
    assert number(stocked) == 2
    assert "all/2.json" in stocked.read_as("bergen")


def test_the_command_changes_the_key(stocked, capsys) -> None:
    assert main(["keys", "rotate", "content", "--dir", str(stocked.folder), "--json"]) == 0
    assert '"number": 2' in capsys.readouterr().out
    assert main(["remove", "visby", "--dir", str(stocked.folder), "--json"]) == 0
    assert '"content_key": 3' in capsys.readouterr().out


def test_an_old_file_without_a_number_holds_key_one(tmp_path) -> None:
    (tmp_path / "content.key").write_text("ab" * 32 + "\n")
    keys = content_keys.load(tmp_path)
    assert (keys.newest.number, keys.newest.secret.hex(), keys.earlier) == (1, "ab" * 32, ())


@pytest.mark.parametrize("text", ["", "zz", "1 abcd 0", "0 " + "ab" * 32 + " 0", "1 2 3 4", "\xff"])
def test_a_damaged_content_key_is_said_in_one_line(tmp_path, text) -> None:
    (tmp_path / "content.key").write_text(text)
    with pytest.raises(BadInputError, match=r"content\.key"):
        content_keys.load(tmp_path)
