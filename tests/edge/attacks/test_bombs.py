"""Targets that are small on the way and enormous once they are here. All of them are signed: a thief has the keys."""

import gzip
import tracemalloc
from dataclasses import replace

import pytest

from center.mqtt.release_blocks import manifest_of
from edge.releases.catalogue import Catalogue
from protocol import blocks, canonical
from protocol.blocks import BlockCipher
from protocol.bundle import CARD, MAX_FILE_BYTES, MAX_MANIFEST_BYTES, FileDigest
from protocol.card import CATALOGUE_FILE, CatalogueCard
from protocol.errors import MalformedMessageError, NoSpaceError, UntrustedReleaseError
from protocol.release import Offer, Place
from protocol.sealing import digest


@pytest.fixture
def offer_manifest(town):
    """Sign any bytes as the manifest of a canary release; what the edge is offered then."""

    def offer(content, *, sha256="ab" * 32, size=1):
        named = Offer(place=Place.CANARY, version=9, sha256=sha256, bytes=size, evaluation={})
        town.repository.add_target("canary/9.json", content, custom=named.to_custom())
        town.put_published(town.repository.publish_version(now=town.road.now))
        return town.luebeck.newest().bundles["canary/9.json"]

    return offer


def lines(amount, block):
    """A manifest of one enormous file that is one block again and again."""
    card = {"size": 2, "sha256": "ab" * 32, "blocks": ["cd" * 32]}
    size = amount * blocks.BLOCK_BYTES
    large = {"size": size, "sha256": "ab" * 32, "blocks": [block] * amount}
    return canonical.encode({"format": 1, "files": {CARD: card, "large": large}}), size + 2


def test_a_catalogue_that_unpacks_to_a_gigabyte(town):
    """1 MB of gzip that its card calls 11 bytes: fetched and installed as it is signed, refused when it is read."""
    packed = gzip.compress(bytes(2**30), 9)
    directory = town.road.folder / "bomb"
    directory.mkdir()
    (directory / CATALOGUE_FILE).write_bytes(packed)
    files = {CATALOGUE_FILE: FileDigest.of(packed)}
    card = CatalogueCard(version=2, items=1, bytes_unpacked=11, files=files)
    (directory / CARD).write_bytes(card.to_bytes())
    town.road.publish(town.voice, Place.CATALOGUE, directory)
    fetched = town.luebeck.fetch(town.luebeck.newest().catalogue)
    tracemalloc.start()
    try:
        with pytest.raises(UntrustedReleaseError, match="does not unpack to the 11 bytes"):
            Catalogue.load(fetched.directory)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_a_manifest_of_a_file_larger_than_any(town, offer_manifest):
    content, size = lines(MAX_FILE_BYTES // blocks.BLOCK_BYTES + 1, "cd" * 32)
    with pytest.raises(MalformedMessageError, match="size and digest of large cannot be read"):
        town.luebeck.fetch(offer_manifest(content, size=size))


def test_a_manifest_that_is_larger_than_any(town):
    """Its length is signed, so it is not even asked for."""
    named = Offer(place=Place.CANARY, version=9, sha256="ab" * 32, bytes=1, evaluation={})
    town.repository.add_target("canary/9.json", bytes(MAX_MANIFEST_BYTES + 1), custom=named.to_custom())
    published = town.repository.publish_version(now=town.road.now)
    town.put_published(replace(published, targets={}))
    with pytest.raises(MalformedMessageError, match=r"the manifest of canary/9\.json has 4194305 bytes"):
        town.luebeck.fetch(town.luebeck.newest().bundles["canary/9.json"])


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"files":{' * 50_000, b"9" * 100_000, b"\xff" * 100])
def test_a_manifest_that_is_hard_to_read(town, offer_manifest, content):
    with pytest.raises(MalformedMessageError):
        town.luebeck.fetch(offer_manifest(content))
    assert town.serves(1)


def test_a_manifest_of_more_bytes_than_were_offered(town, offer_manifest):
    content, _ = lines(1000, "cd" * 32)
    with pytest.raises(UntrustedReleaseError, match="1 were offered"):
        town.luebeck.fetch(offer_manifest(content))
    assert not list(town.road.folder.glob("edge-luebeck/blocks/*/*.part"))


def test_one_block_that_stands_for_four_gigabytes(town, offer_manifest, small_disk):
    """It would fit into one message; the disk is asked for room before anything is fetched."""
    sealed = digest(BlockCipher(town.road.key).seal(bytes(blocks.BLOCK_BYTES)))
    content, size = lines(MAX_FILE_BYTES // blocks.BLOCK_BYTES, sealed)
    manifest = canonical.decode(content)
    named = {path: {"size": row["size"], "sha256": row["sha256"]} for path, row in manifest["files"].items()}
    sha256 = digest(canonical.encode({"format": 1, "files": named}))
    offer_manifest(content, sha256=sha256, size=size)
    edge = town.road.edge("luebeck", folder=small_disk)
    with pytest.raises(NoSpaceError, match="bytes are missing from this release"):
        edge.fetch(edge.newest().bundles["canary/9.json"])
    assert sum(path.stat().st_blocks for path in small_disk.rglob("*")) * 512 < 2**20


def test_a_manifest_that_cuts_a_file_otherwise(town, offer_manifest):
    """One block more than the size has."""
    directory = town.road.bundle("b9", {"recommend/model.onnx": b"x" * 10}, version=9)
    manifest = canonical.decode(manifest_of(directory, key=town.road.key).to_bytes())
    manifest["files"]["recommend/model.onnx"]["blocks"] *= 2
    with pytest.raises(MalformedMessageError, match="has 1 blocks"):
        town.luebeck.fetch(offer_manifest(canonical.encode(manifest)))
