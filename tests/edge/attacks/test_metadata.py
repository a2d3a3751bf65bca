"""TUF's list of attacks through the MQTT fetcher. Whoever owns the broker may hold the content key too."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from center.signing.metadata import public_half, signers
from center.signing.repository import OnlineKeys, Repository
from protocol.errors import (
    BadSignatureError,
    ExpiredReleaseError,
    FederationError,
    RollbackError,
    UntrustedError,
    UntrustedReleaseError,
)
from protocol.release import WHOLE_QUEUE, Offer, Pace, Place

FAR = 2**31


def test_arbitrary_installation(town, quiet_road):
    """A whole repository by somebody else, each file signed, but not by our keys."""
    stranger = quiet_road.repository
    directory = quiet_road.bundle("evil", {"recommend/model.onnx": b"evil"}, version=9)
    _, published = quiet_road.sign(Place.ALL, directory)
    for _ in range(5):
        published = stranger.refresh(now=quiet_road.now)
    files = {**published.targets, **published.metadata}
    plain = {town.topics.tuf(name): data for name, data in files.items() if name.endswith("root.json")}
    town.put([*plain.items(), *(town.hide(name, data) for name, data in files.items() if "root.json" not in name)])
    with pytest.raises(BadSignatureError):
        town.luebeck.newest()
    assert town.serves(1)


def test_endless_data_in_metadata(town):
    town.put([town.hide("timestamp.json", bytes(3_000_000))])
    with pytest.raises(UntrustedReleaseError, match="longer than the 16420 it may have"):
        town.luebeck.newest()
    assert town.serves(1)


def test_endless_data_in_a_root(town):
    town.put([(town.topics.tuf("root.json"), bytes(600_000))])
    with pytest.raises(UntrustedReleaseError, match="longer than the 512000 it may have"):
        town.luebeck.newest()


def test_endless_data_in_a_manifest(town):
    town.publish(2)
    offered = town.bundle()
    (name,) = offered.target.get_prefixed_paths()
    town.put([town.hide(name, bytes(offered.target.length + 1))])
    with pytest.raises(UntrustedReleaseError, match="longer than"):
        town.luebeck.fetch(offered)
    assert town.serves(1)


def test_fast_forward_and_recovery_by_rotation(town):
    """Thieves of the online keys put all numbers so high that nothing honest is newer; new keys end that."""

    def change(chain):
        chain.snapshot.version = chain.timestamp.version = FAR
        chain.timestamp.snapshot_meta.version = FAR
        for role in ("releases", "membership"):
            chain.delegated(role).version = FAR
            chain.snapshot.meta[f"{role}.json"].version = FAR

    town.put(town.sign_as_thief(town.road.online, "releases", "membership", "snapshot", "timestamp", change=change))
    town.luebeck.newest()  # the keys are good still, so the edge has to believe it
    town.renew()
    with pytest.raises(RollbackError):
        town.luebeck.newest()
    town.replace_keys("snapshot", "timestamp", "releases")
    town.publish(2)
    town.take_up()
    assert town.serves(2)


def test_freeze_dies_of_age(town):
    """The broker goes on saying what was true once."""
    town.road.now -= timedelta(days=6, hours=23)
    town.renew()
    frozen = town.on_broker()
    town.luebeck.newest()
    town.road.now += timedelta(days=6, hours=23)
    town.publish(2)
    town.put(frozen)
    assert town.bundle(town.road.edge("luebeck", folder=town.road.folder / "fresh")).offer.version == 1  # for an hour
    town.road.now -= timedelta(days=7, hours=1)
    town.renew()
    with pytest.raises(ExpiredReleaseError, match=r"timestamp\.json is expired") as caught:
        town.road.edge("luebeck", folder=town.road.folder / "fresher").newest()
    assert "check this machine's clock" in caught.value.line()
    assert town.serves(1)


def test_mix_and_match_by_the_owner_of_the_broker(town):
    """An old snapshot in the new one's place: bound to its topic before TUF even sees it."""
    before = {name: data for name, data in town.on_broker().items() if name.endswith(".snapshot.json")}
    town.publish(2)
    after = {name: data for name, data in town.on_broker().items() if name.endswith(".snapshot.json")}
    fresh = [name for name in after if name not in before]
    assert fresh
    town.put(dict.fromkeys(fresh, next(iter(before.values()))))
    with pytest.raises(BadSignatureError, match="changed on the way"):
        town.luebeck.newest()
    assert town.serves(1)


@pytest.mark.parametrize("role", ["snapshot", "releases", "targets"])
def test_mix_and_match_by_one_who_has_the_content_key(town, role):
    old = town.repository.chain
    for number in (2, 3):
        town.publish(number)
    if role == "targets":
        town.renew(
            town.repository.trust(
                targets=town.repository.chain.targets, keys=[town.road.targets_key], now=town.road.now
            )
        )
    new = town.repository.chain
    assert old.file_name(role) != new.file_name(role)
    town.put([town.hide(new.file_name(role), dict(old.files())[old.file_name(role)])])
    with pytest.raises((RollbackError, BadSignatureError)):
        town.luebeck.newest()
    assert town.serves(1)


def test_rollback_by_the_owner_of_the_broker(town):
    old = town.on_broker()
    town.publish(2)
    town.luebeck.newest()
    town.put(old)
    with pytest.raises(RollbackError):
        town.luebeck.newest()
    assert town.serves(1)


def test_rollback_after_a_restart_of_the_edge(town):
    old = town.on_broker()
    town.publish(2)
    town.luebeck.newest()
    town.luebeck.stop()
    town.put(old)
    with pytest.raises(RollbackError):
        town.road.edge("luebeck").newest()


def test_rollback_of_one_role_with_the_stolen_key_of_the_timestamp(town):
    old = town.repository.chain
    town.publish(2)
    town.luebeck.newest()

    def change(chain):
        chain.timestamp.version += 1
        chain.timestamp.snapshot_meta.version = old.snapshot.version

    town.put(town.sign_as_thief([town.road.online.timestamp], "timestamp", change=change))
    with pytest.raises(RollbackError):
        town.luebeck.newest()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "releases", "wide", "membership"])
def test_wrong_key(town, role):
    """Each role in turn, signed with a key that is good for another."""
    chosen = {"timestamp": "snapshot", "snapshot": "timestamp", "releases": "membership"}.get(role, "timestamp")

    def change(chain):
        chain.timestamp.version += 1
        chain.snapshot.version += 1
        chain.timestamp.snapshot_meta.version += 1
        if role not in {"timestamp", "snapshot"}:
            chain.delegated(role).version += 1
            chain.snapshot.meta[f"{role}.json"].version += 1

    files = dict(town.sign_as_thief(town.road.online, "snapshot", "timestamp", change=change))
    wrong = getattr(town.road.online, chosen)
    name = None

    def again(chain):
        nonlocal name
        change(chain)
        name = chain.file_name(role)

    files |= {
        topic: data for topic, data in town.sign_as_thief([wrong], role, change=again) if topic == town.topics.tuf(name)
    }
    town.put(files)
    with pytest.raises(BadSignatureError):
        town.luebeck.newest()
    assert town.serves(1)


def test_whoever_steals_all_online_keys_reaches_the_canary_ring_and_no_further(town):
    """One person has to approve what leaves it: her key is not among the stolen ones."""
    approver = Ed25519PrivateKey.generate()
    targets = town.repository.chain.targets
    targets.add_key(public_half(approver), "wide")
    targets.delegations.roles["wide"].threshold = 2
    town.renew(town.repository.trust(targets=targets, keys=[town.road.targets_key, approver], now=town.road.now))
    assert town.bundle().offer.version == 1

    evil = Offer(place=Place.ALL, version=9, sha256="ab" * 32, bytes=1, evaluation={})
    thief = Repository(town.repository._directory, keys=town.road.online)
    thief.add_target("canary/9.json", b"evil", custom=evil.to_custom())
    thief.add_target("pace/9.json", b"{}", custom=Pace(version=9, reach=WHOLE_QUEUE).to_custom())
    chain = thief.chain
    listed = {name: file for name, file in thief.listed().items() if name.split("/")[0] in {"canary", "pace"}}
    listed["all/9.json"] = listed["canary/9.json"]  # what only `wide` may list
    chain.delegated("releases").targets.update(listed)

    def change(stolen):
        stolen.delegated("releases").targets.update(listed)
        stolen.delegated("releases").version += 1
        stolen.snapshot.meta["releases.json"].version += 1
        stolen.snapshot.version += 1
        stolen.timestamp.snapshot_meta.version += 1
        stolen.timestamp.version += 1

    town.put(town.sign_as_thief(town.road.online, "releases", "snapshot", "timestamp", change=change))
    newest = town.luebeck.newest()
    assert "canary/9.json" in newest.bundles
    assert "all/9.json" not in newest.bundles

    def widen(stolen):
        change(stolen)
        stolen.delegated("wide").targets["all/9.json"] = listed["canary/9.json"]
        for role in ("wide", "releases"):
            stolen.delegated(role).version += 1
            stolen.snapshot.meta[f"{role}.json"].version = stolen.delegated(role).version
        stolen.snapshot.version += 1
        stolen.timestamp.snapshot_meta.version += 1
        stolen.timestamp.version += 1

    town.put(town.sign_as_thief(town.road.online, "wide", "releases", "snapshot", "timestamp", change=widen))
    with pytest.raises(BadSignatureError):
        town.luebeck.newest()


def test_key_compromise_ends_with_rotation(town):
    """After the offline key has replaced the key of `releases`, what the thief signs with it counts nothing."""
    stolen = town.road.online.releases
    town.replace_keys("releases")
    town.publish(2, place=Place.CANARY)
    topic = town.topics.tuf(town.repository.chain.file_name("releases"))
    right = town.on_broker()[topic]

    def change(chain):
        chain.delegated("releases").targets.pop("canary/2.json")

    town.put((at, data) for at, data in town.sign_as_thief([stolen], "releases", change=change) if at == topic)
    with pytest.raises(BadSignatureError):
        town.luebeck.newest()
    assert town.serves(1)
    town.put([(topic, right)])
    town.take_up()
    assert town.serves(2)


def test_a_stolen_key_is_good_until_it_is_replaced(town):
    """The other half of the test above: the same message, before the rotation, is believed."""
    town.publish(2, place=Place.CANARY)
    topic = town.topics.tuf(town.repository.chain.file_name("releases"))

    def change(chain):
        chain.delegated("releases").targets.pop("canary/2.json")

    forged = town.sign_as_thief([town.road.online.releases], "releases", change=change)
    town.put((at, data) for at, data in forged if at == topic)
    assert town.bundle().offer.version == 1


def test_the_era_tells_edges_that_a_thiefs_numbers_bind_nobody(town):
    assert town.luebeck.newest().era == 1
    targets = town.repository.chain.targets
    targets.unrecognized_fields["x-hanse-era"] = 2
    town.renew(town.repository.trust(targets=targets, keys=[town.road.targets_key], now=town.road.now))
    assert town.luebeck.newest().era == 2


def test_a_new_root_is_followed_and_absent_ones_are_not_waited_for(town):
    for _ in range(2):
        town.renew(town.repository.trust(root=town.repository.chain.root, keys=[town.road.root_key], now=town.road.now))
    assert town.bundle().offer.version == 1
    assert (town.road.folder / "edge-luebeck" / "tuf" / "root_history" / "3.root.json").exists()


def test_a_root_by_a_stolen_online_key_is_not_followed(town):
    chain = town.repository.chain
    chain.root.version = 2
    chain.root.add_key(public_half(town.road.online.timestamp), "root")
    chain.roles["root"].signatures.clear()
    for signer in signers([town.road.online.timestamp]).values():
        chain.roles["root"].sign(signer, append=True)
    forged = dict(chain.files())["2.root.json"]
    town.put((town.topics.tuf(name), forged) for name in ("root.json", "2.root.json"))
    with pytest.raises(FederationError):
        town.luebeck.newest()
    assert town.serves(1)


@pytest.mark.parametrize("nonsense", [b"{}", b"[" * 100_000, b"not json", b'{"signed":{"_type":"timestamp"}}'])
def test_a_root_that_is_nonsense_is_refused(town, nonsense):
    town.put([(town.topics.tuf("root.json"), nonsense)])
    with pytest.raises(FederationError, match="TUF root is none"):
        town.luebeck.newest()


def test_a_manifest_that_was_not_signed_is_refused(town):
    town.publish(2)
    offered = town.bundle()
    (name,) = offered.target.get_prefixed_paths()
    town.put([town.hide(name, b'{"files":{},"format":1}')])
    with pytest.raises(BadSignatureError):
        town.luebeck.fetch(offered)


def test_a_manifest_of_other_files_than_were_offered_is_refused(town):
    """The center's own mistake or malice: what is offered and what is signed must be one bundle."""
    town.repository.add_target(
        "canary/2.json",
        town.repository.content("all/1.json"),
        custom=Offer(
            place=Place.CANARY, version=2, sha256="ab" * 32, bytes=town.bundle().offer.bytes, evaluation={}
        ).to_custom(),
    )
    town.renew(town.repository.publish_version(now=town.road.now))
    with pytest.raises(UntrustedReleaseError, match="holds other files than were offered"):
        town.luebeck.fetch(town.bundle())


def test_metadata_of_a_stranger_who_has_the_content_key_are_refused(town, tmp_path):
    keys = OnlineKeys(*(Ed25519PrivateKey.generate() for _ in OnlineKeys._fields))
    stranger = Repository.create(
        tmp_path / "stranger",
        root_keys=[Ed25519PrivateKey.generate()],
        targets_key=Ed25519PrivateKey.generate(),
        keys=keys,
        now=town.road.now,
    )
    town.put([town.hide("timestamp.json", stranger.published().metadata["timestamp.json"])])
    with pytest.raises(BadSignatureError):
        town.luebeck.newest()


def test_an_edge_without_the_content_key_reads_nothing(town):
    town.road.sealing["luebeck"] = type(town.road.sealing["luebeck"]).generate()
    heard = []
    thief = town.road.edge("luebeck", folder=town.road.folder / "thief")
    thief._hearing = thief._hearing.__class__(
        on_wake=heard.append, on_release_available=lambda: None, on_trouble=heard.append
    )
    with pytest.raises(FederationError, match="has not sealed a content key"):
        thief.newest()
    assert any(isinstance(error, UntrustedError) for error in heard)
