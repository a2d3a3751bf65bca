from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tuf.api.metadata import Metadata

from center.repository import Lifetimes, OnlineKeys, Repository
from protocol.errors import BadInputError
from protocol.release import Kind, Offer

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
KEYS = OnlineKeys(
    **{
        role: Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n, role in enumerate(("targets", "snapshot"), 1)
    },
    timestamp=Ed25519PrivateKey.from_private_bytes(b"\x03" * 32),
)
ROOTS = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (10, 11, 12)]


def offer(version, kind=Kind.BUNDLE):
    return Offer(kind=kind, version=version, evaluation={}, bytes=1)


def version_of(published, name):
    return Metadata.from_bytes(published.metadata[name]).signed.version


@pytest.fixture
def repository(tmp_path):
    return Repository.create(tmp_path, root_keys=ROOTS[:1], keys=KEYS, now=NOW)


def test_a_release_is_published_under_new_metadata(repository):
    repository.add(offer(1), b"manifest")
    published = repository.publish_version(now=NOW)
    assert list(published.metadata)[-1] == "timestamp.json"
    assert [version_of(published, name) for name in ("2.targets.json", "2.snapshot.json", "timestamp.json")] == [
        2,
        2,
        2,
    ]
    assert list(published.targets.values()) == [b"manifest"]
    assert repository.offers() == {"bundle/1.json": offer(1)}


def test_a_repository_opened_again_goes_on_where_it_was(repository, tmp_path):
    repository.add(offer(1), b"manifest")
    before = repository.publish_version(now=NOW)
    again = Repository(tmp_path, keys=KEYS)
    assert again.published() == before
    again.add(offer(2), b"other")
    assert version_of(again.publish_version(now=NOW), "3.targets.json") == 3


def test_a_rollback_is_a_new_version_of_the_old_files(repository):
    for version, manifest in ((1, b"good"), (2, b"bad"), (3, b"good")):
        repository.add(offer(version), manifest)
    published = repository.publish_version(now=NOW)
    assert sorted(published.targets.values()) == [b"bad", b"good", b"good"]
    assert repository.next_version(Kind.BUNDLE) == 4


@pytest.mark.parametrize("version", [0, 1, 3])
def test_versions_neither_repeat_nor_skip(repository, version):
    repository.add(offer(1), b"manifest")
    with pytest.raises(BadInputError, match="the next bundle is number 2"):
        repository.add(offer(version), b"manifest")


def test_kinds_are_numbered_apart(repository):
    repository.add(offer(1), b"a")
    repository.add(offer(1, Kind.CATALOGUE), b"b")
    assert repository.next_version(Kind.CATALOGUE) == 2


def test_what_was_not_published_is_not_there_after_a_crash(repository, tmp_path):
    repository.add(offer(1), b"manifest")
    before = Repository(tmp_path, keys=KEYS).published()
    (tmp_path / "metadata" / "2.targets.json").write_bytes(b"half writ")  # killed before the timestamp
    again = Repository(tmp_path, keys=KEYS)
    assert again.published() == before
    again.add(offer(1), b"manifest")
    assert version_of(again.publish_version(now=NOW), "2.targets.json") == 2


def test_every_role_expires_when_it_should(repository):
    published = repository.publish_version(now=NOW)
    lives = {"1.root.json": 365, "2.targets.json": 180, "2.snapshot.json": 30, "timestamp.json": 7}
    for name, days in lives.items():
        assert Metadata.from_bytes(published.metadata[name]).signed.expires == NOW + timedelta(days=days)


def test_a_refresh_renews_the_timestamp_and_what_is_half_way_through_its_life(repository):
    soon = repository.refresh(now=NOW + timedelta(days=1))
    assert version_of(soon, "timestamp.json") == 2
    assert "1.snapshot.json" in soon.metadata
    later = repository.refresh(now=NOW + timedelta(days=20))
    assert {"1.targets.json", "2.snapshot.json"} <= later.metadata.keys()
    much_later = repository.refresh(now=NOW + timedelta(days=100))
    assert {"2.targets.json", "3.snapshot.json"} <= much_later.metadata.keys()


def test_lifetimes_are_a_setting(tmp_path):
    brief = Lifetimes(timestamp=timedelta(hours=1))
    repository = Repository.create(tmp_path, root_keys=ROOTS[:1], keys=KEYS, now=NOW, lifetimes=brief)
    assert Metadata.from_bytes(repository.published().metadata["timestamp.json"]).signed.expires == NOW + timedelta(
        hours=1
    )


def test_a_root_needs_as_many_keys_as_its_threshold(tmp_path):
    with pytest.raises(BadInputError, match="cannot meet a threshold of 2"):
        Repository.create(tmp_path / "a", root_keys=ROOTS[:1], root_threshold=2, keys=KEYS, now=NOW)
    with pytest.raises(BadInputError, match="cannot meet a threshold of 2"):  # one key twice is one key
        Repository.create(tmp_path / "b", root_keys=[ROOTS[0], ROOTS[0]], root_threshold=2, keys=KEYS, now=NOW)


def test_a_new_root_is_signed_by_enough_of_the_old_keys(tmp_path):
    repository = Repository.create(tmp_path, root_keys=ROOTS, root_threshold=2, keys=KEYS, now=NOW)
    with pytest.raises(BadInputError, match="does not accept these keys"):
        repository.rotate_root(old_keys=ROOTS[:1], new_keys=[Ed25519PrivateKey.generate()], threshold=1, now=NOW)
    published = repository.rotate_root(old_keys=ROOTS[:2], new_keys=ROOTS[1:], threshold=2, now=NOW)
    assert published.metadata["root.json"] == published.metadata["2.root.json"]
    assert version_of(published, "2.root.json") == 2
    assert repository.first_root == published.metadata["1.root.json"]


@pytest.mark.usefixtures("repository")
def test_a_repository_is_not_made_twice(tmp_path):
    with pytest.raises(BadInputError, match="already"):
        Repository.create(tmp_path, root_keys=ROOTS[:1], keys=KEYS, now=NOW)


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
