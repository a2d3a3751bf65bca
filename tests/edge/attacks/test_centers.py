"""Two centers publish: one was thought dead, and both hold the keys. The lower epoch loses."""

import shutil

import pytest

from center.signing.repository import Repository
from protocol.errors import RollbackError
from protocol.release import Place


@pytest.fixture
def two_centers(town):
    """The standby took over in epoch 2, and its release 2 is installed; the old one still has its disk of before."""
    copy = town.road.folder / "old-center"
    shutil.copytree(town.repository._directory, copy)
    town.publish(2, epoch=2)
    town.take_up()
    town.old = Repository(copy, keys=town.road.online)
    return town


def publish_old(town, number, times):
    """The old center, with numbers that have caught up, publishes in its own epoch."""
    town.road.repository, mine = town.old, town.road.repository
    for _ in range(times):
        town.old.refresh(now=town.road.now)
    try:
        directory = town.road.bundle(f"old{number}", {"recommend/model.onnx": b"old %d" % number}, version=number)
        return town.road.publish(town.road.publisher("old-ledger.db"), Place.ALL, directory, epoch=1, number=number)
    finally:
        town.road.repository = mine


def test_what_the_old_center_says_is_older_for_tuf(two_centers):
    with_less = two_centers.old.refresh(now=two_centers.road.now)
    two_centers.put([two_centers.hide("timestamp.json", with_less.metadata["timestamp.json"])])
    assert two_centers.serves(2)
    two_centers.luebeck.newest()  # the same number as the new center's: what is known stays
    assert two_centers.bundle().offer.version == 2


def test_an_old_center_that_has_caught_up_with_numbers_loses_by_its_epoch(two_centers):
    town = two_centers
    town.old.publish_version(now=town.road.now)
    for number in (2, 3):
        publish_old(town, number, times=3)
    offered = town.bundle()
    assert offered.offer.version == 3  # TUF believes it: the keys are good
    assert offered.offer.epoch == 1
    with pytest.raises(RollbackError, match="comes from center epoch 1, epoch 2 rules"):
        town.here.check(offered.offer, expires=offered.expires, now=town.road.now)
    with pytest.raises(RollbackError, match="epoch 2 rules"):
        town.here.install(town.luebeck.fetch(offered), now=town.road.now)
    assert town.serves(2)
