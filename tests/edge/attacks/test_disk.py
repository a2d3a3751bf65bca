"""The disk is full in the middle: one clear word, the old release goes on, and with room again the download too."""

import resource
from contextlib import suppress

import pytest

from protocol.errors import NoSpaceError
from protocol.release import Kind


def fill(folder):
    with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_the_disk_fills_up_while_blocks_come(town, small_disk):
    town.publish(2)
    edge = town.road.edge("luebeck", folder=small_disk)
    offered = town.bundle(edge)
    with pytest.raises(NoSpaceError, match="cannot store block"):
        edge.fetch(offered, progress=lambda done, _: done == 3 and fill(small_disk))
    assert town.serves(1)
    (small_disk / "filler").unlink()
    asked = []
    fetched = edge.fetch(offered, progress=lambda _done, total: asked.append(total))
    assert set(asked) == {7 - 3}
    town.here.commit(town.here.install(fetched, now=town.road.now))
    assert town.serves(2)


def test_the_disk_fills_up_before_metadata_are_stored(town, small_disk):
    edge = town.road.edge("luebeck", folder=small_disk)
    edge.newest()
    town.publish(2)
    fill(small_disk)
    with pytest.raises(NoSpaceError, match="cannot store the release metadata"):
        edge.newest()
    (small_disk / "filler").unlink()
    assert town.bundle(edge).offer.version == 2


def test_a_disk_without_room_is_said_before_anything_is_fetched(town, small_disk):
    town.publish(2)
    edge = town.road.edge("luebeck", folder=small_disk)
    offered = town.bundle(edge)
    (small_disk / "large").write_bytes(bytes(16 * 2**20))
    asked = []
    with pytest.raises(NoSpaceError, match="bytes are missing from this release"):
        edge.fetch(offered, progress=lambda *at: asked.append(at))
    assert asked == []


def test_a_quota_ends_a_file_in_the_middle(town):
    """Where nobody may mount anything: no file of this process may grow beyond a limit."""
    town.publish(2)
    offered = town.bundle()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(done, _total):
        if done == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))

    try:
        with pytest.raises(NoSpaceError, match="cannot store block"):
            town.luebeck.fetch(offered, progress=limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert town.serves(1)
    asked = []
    fetched = town.luebeck.fetch(
        offered, known=town.here.known(Kind.BUNDLE), progress=lambda _done, total: asked.append(total)
    )
    assert set(asked) == {7 - 2}
    town.here.commit(town.here.install(fetched, now=town.road.now))
    assert town.serves(2)
