"""Blocks that are not what they should be, and blocks that come as they should not."""

import random

import pytest

from center.mqtt.release_blocks import manifest_of
from protocol.blocks import BLOCK_BYTES, MAX_PAYLOAD_BYTES, BlockCipher
from protocol.bundle import Entry, FileDigest, Manifest
from protocol.errors import BadSignatureError, DamagedBlockError, UnavailableError, UntrustedReleaseError
from protocol.release import Offer, Place
from protocol.sealing import ContentKey
from simulation.lossy_broker import Faults


@pytest.fixture
def second(town):
    """The blocks of release 2 by topic, as they lie on the broker; the edge is offered it."""
    before = town.on_broker("block/")
    town.publish(2)
    return {topic: data for topic, data in town.on_broker("block/").items() if topic not in before}


def refused(town, error, **how):
    with pytest.raises(error, **how):
        town.luebeck.fetch(town.bundle())
    assert town.serves(1)


def test_a_tampered_block(town, second):
    town.put((topic, data[:-1] + bytes([data[-1] ^ 1])) for topic, data in second.items())
    refused(town, DamagedBlockError)


def test_two_swapped_blocks(town, second):
    turned = [*list(second.values())[1:], next(iter(second.values()))]
    town.put(zip(second, turned, strict=True))
    refused(town, DamagedBlockError)


def test_a_truncated_block(town, second):
    town.put((topic, data[:-100]) for topic, data in second.items())
    refused(town, DamagedBlockError)


@pytest.mark.parametrize("size", [1, 31, 47])
def test_a_block_that_is_too_short_to_be_one(town, second, size):
    town.put((topic, data[:size]) for topic, data in second.items())
    refused(town, DamagedBlockError)


def test_a_block_that_is_longer_than_any(town, second):
    town.put((topic, bytes(MAX_PAYLOAD_BYTES + 1)) for topic in second)
    refused(town, UntrustedReleaseError, match="longer than")


def test_a_block_of_zeros(town, second):
    town.put((topic, bytes(MAX_PAYLOAD_BYTES)) for topic in second)
    refused(town, DamagedBlockError)


def test_a_block_under_another_content_key(town, second):
    """Sealed by one who knows how, under a key of his own: the digest in the manifest is another."""
    other = BlockCipher(ContentKey(number=1, secret=bytes(32)))
    town.put((topic, other.seal(b"evil")) for topic in second)
    refused(town, DamagedBlockError)


def test_a_missing_block_is_named_and_the_rest_is_kept(town, second):
    lost, data = next(iter(second.items()))
    town.put([(lost, b"")])
    refused(town, UnavailableError, match=lost)
    town.put([(lost, data)])
    asked = []
    town.take_up(progress=lambda _done, total: asked.append(total))
    assert asked == [1]
    assert town.serves(2)


def test_after_an_attack_ended_only_what_is_missing_is_fetched(town, second):
    evil = dict(list(second.items())[-1:])
    town.put((topic, bytes(100)) for topic in evil)
    refused(town, DamagedBlockError)
    town.put(evil)
    asked = []
    town.take_up(progress=lambda _done, total: asked.append(total))
    assert set(asked) < {*range(1, len(second))}
    assert town.serves(2)


def test_duplicated_blocks(town):
    town.publish(2)
    with town.behind(Faults(about="", duplicate=1.0)) as (edge, way):
        town.take_up(edge)
    assert way.traffic.messages["repeated"] > 5
    assert town.serves(2)


def test_reordered_blocks(town):
    town.publish(2)
    with town.behind(Faults(swap=0.5)) as (edge, way):
        town.take_up(edge)
    assert way.traffic.messages["swapped"] > 0
    assert town.serves(2)


def test_blocks_damaged_on_the_way(town):
    town.publish(2)
    with town.behind(Faults(damage=1.0)) as (edge, way):
        with pytest.raises(DamagedBlockError):
            edge.fetch(town.bundle(edge))
        assert town.serves(1)
        way.faults = Faults()
        town.take_up(edge)
    assert town.serves(2)


def test_blocks_that_make_another_file_than_was_signed(town):
    """Each block is what the manifest names, and together they are not the file that it names: nothing is installed."""
    directory = town.road.bundle("b2", {"recommend/model.onnx": random.Random(2).randbytes(6 * BLOCK_BYTES)}, version=2)
    honest = manifest_of(directory, key=town.road.key)
    files = dict(honest.files)
    entry = files["recommend/model.onnx"]
    files["recommend/model.onnx"] = Entry(file=FileDigest(size=entry.file.size, sha256="ab" * 32), blocks=entry.blocks)
    lying = Manifest(files=files)
    offer = Offer(place=Place.CANARY, version=2, sha256=lying.bundle_digest, bytes=lying.total_bytes, evaluation={})
    town.repository.add(offer, lying.to_bytes())
    town.voice.publish_blocks(directory, honest)
    town.renew(town.repository.publish_version(now=town.road.now))
    with pytest.raises(BadSignatureError, match=r"recommend/model\.onnx does not hold what the release says"):
        town.take_up()
    assert town.serves(1)
