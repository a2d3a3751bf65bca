from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tuf.api.metadata import Metadata

from center.signing.metadata import key_id, public_half
from center.signing.repository import Lifetimes, OnlineKeys, Repository
from protocol.errors import BadInputError
from protocol.release import Kind, Offer, Place

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def private(number):
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


KEYS = OnlineKeys(releases=private(1), membership=private(2), snapshot=private(3), timestamp=private(4))
ROOTS = [private(n) for n in (10, 11, 12)]
TARGETS, APPROVER, STRANGER = private(20), private(30), private(40)


def offer(version, place=Place.CANARY, digest="aa"):
    return Offer(place=place, version=version, sha256=digest * 32, evaluation={}, bytes=1)


def create(folder, **options):
    return Repository.create(
        folder, **{"root_keys": ROOTS[:1], "targets_key": TARGETS, "keys": KEYS, "now": NOW, **options}
    )


def version_of(published, name):
    return Metadata.from_bytes(published.metadata[name]).signed.version


def on_disk(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def repository(tmp_path):
    return create(tmp_path)


@pytest.fixture
def approved(repository):
    """A repository in which one person must approve what leaves the canary ring."""
    targets = repository.chain.targets
    targets.add_key(public_half(APPROVER), "wide")
    targets.delegations.roles["wide"].threshold = 2
    repository.trust(targets=targets, keys=[TARGETS, APPROVER], now=NOW)
    return repository


def test_a_release_is_published_under_new_metadata_of_its_role_alone(repository):
    repository.add(offer(1), b"manifest")
    published = repository.publish_version(now=NOW)
    assert list(published.metadata)[-1] == "timestamp.json"
    changed = {"2.releases.json": 2, "2.snapshot.json": 2, "timestamp.json": 2}
    same = {"1.root.json": 1, "1.targets.json": 1, "1.wide.json": 1, "1.membership.json": 1, "root.json": 1}
    assert {name: version_of(published, name) for name in published.metadata} == changed | same
    assert list(published.targets.values()) == [b"manifest"]
    assert repository.offers() == {"canary/1.json": offer(1)}


def test_a_repository_opened_again_goes_on_where_it_was(repository, tmp_path):
    repository.add(offer(1), b"manifest")
    before = repository.publish_version(now=NOW)
    again = Repository(tmp_path, keys=KEYS)
    assert again.published() == before
    again.add(offer(2, digest="bb"), b"other")
    assert version_of(again.publish_version(now=NOW), "3.releases.json") == 3


def test_a_rollback_is_a_new_version_of_the_old_files(repository):
    for version, digest, manifest in ((1, "aa", b"good"), (2, "bb", b"bad"), (3, "aa", b"good")):
        repository.add(offer(version, digest=digest), manifest)
    published = repository.publish_version(now=NOW)
    assert sorted(published.targets.values()) == [b"bad", b"good", b"good"]
    assert repository.next_version(Kind.BUNDLE) == 4


@pytest.mark.parametrize("version", [0, 1, 3])
def test_versions_neither_repeat_nor_skip(repository, version):
    repository.add(offer(1), b"manifest")
    with pytest.raises(BadInputError, match="the next bundle is number 2"):
        repository.add(offer(version), b"manifest")


def test_a_release_moves_on_under_its_number_and_only_with_its_files(repository):
    repository.add(offer(1, Place.CANDIDATE), b"manifest")
    repository.publish_version(now=NOW)
    with pytest.raises(BadInputError, match="bundle 1 is taken"):
        repository.add(offer(1, Place.CANARY, digest="bb"), b"other")
    repository.remove_target("candidate/1.json")
    repository.add(offer(1, Place.CANARY), b"manifest")
    repository.add(offer(1, Place.EARLY), b"manifest")
    repository.publish_version(now=NOW)
    assert sorted(repository.offers()) == ["canary/1.json", "early/1.json"]


def test_a_number_is_not_used_again_after_its_release_is_gone(repository, tmp_path):
    repository.add(offer(1, Place.CANDIDATE), b"refused")
    repository.publish_version(now=NOW)
    repository.remove_target("candidate/1.json")
    repository.publish_version(now=NOW)
    assert Repository(tmp_path, keys=KEYS).offers() == {}
    assert Repository(tmp_path, keys=KEYS).next_version(Kind.BUNDLE) == 2


def test_kinds_are_numbered_apart(repository):
    repository.add(offer(1), b"a")
    repository.add(offer(1, Place.CATALOGUE, digest="cc"), b"b")
    repository.publish_version(now=NOW)
    assert [repository.next_version(kind) for kind in (Kind.BUNDLE, Kind.CATALOGUE)] == [2, 2]


def test_contents_are_replaced_and_removed_and_leave_the_disk_a_version_later(repository, tmp_path):
    repository.add(offer(1), b"old manifest")
    repository.publish_version(now=NOW)
    repository.replace_target("canary/1.json", b"new manifest")
    assert repository.content("canary/1.json") == b"new manifest"
    repository.publish_version(now=NOW)
    assert repository.offers() == {"canary/1.json": offer(1)}
    held = [path.read_bytes() for path in (tmp_path / "targets").rglob("*.json")]
    assert sorted(held) == [b"new manifest", b"old manifest"]  # a reader may still be at the version before
    repository.remove_target("canary/1.json")
    for _ in range(2):
        repository.renew("releases")
        published = repository.publish_version(now=NOW)
    assert published.targets == {}
    assert list((tmp_path / "targets").rglob("*.json")) == []
    assert len(list((tmp_path / "metadata").glob("*.releases.json"))) == 2


@pytest.mark.parametrize("call", ["content", "remove_target", "replace_target"])
def test_what_is_not_there_is_said(repository, call):
    with pytest.raises(BadInputError, match=r"canary/1\.json is not in the repository"):
        getattr(repository, call)("canary/1.json", *([b"new"] if call == "replace_target" else []))


@pytest.mark.parametrize("name", ["wide.json", "canary/0.json", "../canary/1.json", "beta/1.json"])
def test_a_name_that_no_role_signs_for_is_refused(repository, name):
    with pytest.raises(BadInputError, match="is not the name of a target"):
        repository.add_target(name, b"", custom={})


def test_what_was_not_published_is_not_there_after_a_crash(repository, tmp_path):
    repository.add(offer(1), b"manifest")
    before = Repository(tmp_path, keys=KEYS).published()
    for name in ("2.releases.json", "2.snapshot.json", "2.root.json"):
        (tmp_path / "metadata" / name).write_bytes(b"half writ")  # killed before the timestamp
    again = Repository(tmp_path, keys=KEYS)
    assert again.published() == before
    again.add(offer(1), b"manifest")
    assert version_of(again.publish_version(now=NOW), "2.releases.json") == 2
    assert not (tmp_path / "metadata" / "2.root.json").exists()


def test_every_role_expires_when_it_should(repository):
    published = repository.published()
    lives = {"root": 365, "targets": 365, "releases": 180, "wide": 365, "membership": 180, "snapshot": 30}
    for role, days in lives.items():
        assert Metadata.from_bytes(published.metadata[f"1.{role}.json"]).signed.expires == NOW + timedelta(days=days)
    assert Metadata.from_bytes(published.metadata["timestamp.json"]).signed.expires == NOW + timedelta(days=7)


def test_a_refresh_renews_the_timestamp_and_what_is_half_way_through_its_life(repository):
    soon = repository.refresh(now=NOW + timedelta(days=1))
    assert version_of(soon, "timestamp.json") == 2
    assert "1.snapshot.json" in soon.metadata
    later = repository.refresh(now=NOW + timedelta(days=20))
    assert {"1.releases.json", "2.snapshot.json"} <= later.metadata.keys()
    much_later = repository.refresh(now=NOW + timedelta(days=100))
    assert {"2.releases.json", "1.wide.json", "2.membership.json", "3.snapshot.json"} <= much_later.metadata.keys()
    in_summer = repository.refresh(now=NOW + timedelta(days=190))
    assert {"1.root.json", "1.targets.json", "2.wide.json"} <= in_summer.metadata.keys()


def test_a_refresh_leaves_what_is_staged_staged(repository):
    repository.add(offer(1), b"manifest")
    assert repository.refresh(now=NOW).targets == {}
    assert repository.content("canary/1.json") == b"manifest"
    assert list(repository.publish_version(now=NOW).targets.values()) == [b"manifest"]


def test_lifetimes_are_a_setting(tmp_path):
    repository = create(tmp_path, lifetimes=Lifetimes(timestamp=timedelta(hours=1)))
    expires = Metadata.from_bytes(repository.published().metadata["timestamp.json"]).signed.expires
    assert expires == NOW + timedelta(hours=1)


def test_a_root_needs_as_many_keys_as_its_threshold(tmp_path):
    for name, keys in (("a", ROOTS[:1]), ("b", [ROOTS[0], ROOTS[0]])):  # one key twice is one key
        with pytest.raises(BadInputError, match="cannot meet a threshold of 2"):
            create(tmp_path / name, root_keys=keys, root_threshold=2)
        assert on_disk(tmp_path) == {}


@pytest.mark.usefixtures("repository")
def test_without_the_key_of_a_role_nothing_changes(tmp_path):
    before = on_disk(tmp_path)
    for without in ("releases", "snapshot", "timestamp"):
        keys = [key for role, key in KEYS._asdict().items() if role != without]
        crippled = Repository(tmp_path, keys=keys)
        crippled.add(offer(1), b"manifest")
        with pytest.raises(BadInputError, match=f"{without} was signed by 0/1 keys"):
            crippled.publish_version(now=NOW)
        assert on_disk(tmp_path) == before


def test_what_leaves_the_canary_ring_wants_an_approval(approved, tmp_path):
    assert approved.approvals_needed == 1
    approved.add(offer(1), b"manifest")
    approved.publish_version(now=NOW)  # the canary ring wants none
    approved.add(offer(1, Place.EARLY), b"manifest")
    before = on_disk(tmp_path)
    with pytest.raises(BadInputError, match="1 more approval") as refused:
        approved.publish_version(now=NOW)
    assert refused.value.advice == "hanse-center rollout approve"
    with pytest.raises(BadInputError, match="approves nothing here"):
        approved.publish_version(now=NOW, approvals=[STRANGER])
    with pytest.raises(BadInputError, match="approves nothing here"):  # the thief has this one
        approved.publish_version(now=NOW, approvals=[KEYS.releases])
    assert on_disk(tmp_path) == before
    published = approved.publish_version(now=NOW, approvals=[APPROVER])
    signed = Metadata.from_bytes(published.metadata["2.wide.json"])
    assert set(signed.signatures) == {key_id(KEYS.releases), key_id(APPROVER)}


def test_a_refresh_leaves_alone_what_wants_an_approval(approved):
    published = approved.refresh(now=NOW + timedelta(days=300))
    assert "1.wide.json" in published.metadata
    approved.renew("wide")
    assert "2.wide.json" in approved.publish_version(now=NOW, approvals=[APPROVER]).metadata


@pytest.mark.usefixtures("repository")
def test_a_repository_is_not_made_twice(tmp_path):
    with pytest.raises(BadInputError, match="already"):
        create(tmp_path)


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("damage", [None, b"", b"{}", b"\xff"])
def test_a_damaged_repository_is_said(tmp_path, damage):
    timestamp = tmp_path / "metadata" / "timestamp.json"
    if damage is None:
        timestamp.unlink()
    else:
        timestamp.write_bytes(damage)
    with pytest.raises(BadInputError, match="cannot be read"):
        Repository(tmp_path, keys=KEYS)


@pytest.mark.usefixtures("repository")
def test_metadata_that_were_changed_on_disk_are_not_believed(tmp_path):
    path = tmp_path / "metadata" / "1.releases.json"
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":9'))
    with pytest.raises(BadInputError, match="cannot be read: releases was signed by 0/1 keys"):
        Repository(tmp_path, keys=KEYS)
