import json
import os
import resource
import shutil
import subprocess
import sys
from datetime import timedelta

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edge.assembly import Fetched, measure
from edge.installer import Installer
from protocol.bundle import FileDigest
from protocol.card import CATALOGUE_FILE
from protocol.errors import (
    BadSignatureError,
    ExpiredReleaseError,
    MalformedMessageError,
    NoSpaceError,
    RollbackError,
    UntrustedReleaseError,
)
from protocol.release import Kind, Offer


@pytest.fixture
def shop(quiet_road):
    """An edge with the catalogue and bundle 1; `fetched` makes more."""
    return Shop(quiet_road)


class Shop:
    def __init__(self, road):
        self.road = road
        self.folder = road.folder / "edge-luebeck"
        self.installer = road.installer("luebeck")
        self.count = 0
        self.installer.install_catalogue(self.fetched(Kind.CATALOGUE, road.catalogue()), now=road.now)
        self.install(1)

    def fetched(self, kind, directory, **changes):
        """As if it had come by the road: a copy, its manifest, the offer."""
        manifest, _ = self.road.sign(kind, directory)
        self.count += 1
        copy = self.folder / "blocks" / str(self.count)
        shutil.copytree(directory, copy)
        version = self.road.repository.next_version(kind) - 1
        offer = {"kind": kind, "version": version, "evaluation": {}, "bytes": manifest.total_bytes, **changes}
        return Fetched(
            directory=copy, offer=Offer(**offer), manifest=manifest, expires=self.road.now + timedelta(days=1)
        )

    def bundle(self, number, **changes):
        files = {"recommend/model.onnx": b"model %d" % number}
        return self.fetched(Kind.BUNDLE, self.road.bundle(f"b{number}", files, version=number), **changes)

    def install(self, number, **changes):
        return self.installer.install(self.bundle(number, **changes), load=read, now=self.road.now)

    def serves(self):
        found = Installer(self.folder, federation=self.road.federation, edge_version="0.1.0").bundle()
        assert measure(found.directory) == found.files
        return found.offer.version


def read(directory):
    return (directory / "recommend/model.onnx").read_bytes()


def test_releases_alternate_between_two_slots(shop):
    assert shop.serves() == 1
    assert shop.install(2) == b"model 2"
    assert shop.install(3) == b"model 3"
    assert shop.serves() == 3
    assert sorted(path.name for path in (shop.folder / "slots").iterdir()) == [
        "a",
        "a.json",
        "b",
        "b.json",
        "committed",
    ]


def test_before_the_first_release_there_is_none(quiet_road):
    installer = quiet_road.installer("bremen")
    assert installer.bundle() is None
    assert installer.catalogue() is None
    assert installer.known(Kind.BUNDLE) == []


def test_a_release_that_does_not_load_changes_nothing_and_is_not_tried_again(shop):
    second = shop.bundle(2)

    def fail(_directory):
        raise RuntimeError("the graph has a cycle")

    with pytest.raises(UntrustedReleaseError, match=r"bundle/2\.json does not load: the graph has a cycle"):
        shop.installer.install(second, load=fail, now=shop.road.now)
    assert shop.serves() == 1
    with pytest.raises(RollbackError, match="was tried and taken back"):
        shop.installer.check(second.offer, expires=second.expires, now=shop.road.now)
    assert shop.install(3) == b"model 3"


def test_going_back_serves_the_release_before(shop):
    shop.install(2)
    assert shop.installer.go_back(why="too slow").offer.version == 1
    assert shop.serves() == 1
    with pytest.raises(RollbackError, match="too slow"):
        shop.install(2, version=2)
    assert shop.install(3) == b"model 3"


def test_there_is_nothing_to_go_back_to_after_the_first(shop):
    with pytest.raises(UntrustedReleaseError, match="no older release"):
        shop.installer.go_back(why="impatience")


@pytest.mark.parametrize("version", [1, 2])
def test_the_same_or_an_older_release_is_not_installed(shop, version):
    shop.install(2)
    with pytest.raises(RollbackError):
        shop.install(3, version=version)
    assert shop.serves() == 2


def test_a_superseded_center_cannot_release(shop):
    shop.install(2, epoch=4)
    with pytest.raises(RollbackError, match="epoch 4 rules"):
        shop.install(3, epoch=3)


def test_a_release_offered_by_expired_metadata_is_not_installed(shop):
    second = shop.bundle(2)
    with pytest.raises(ExpiredReleaseError):
        shop.installer.install(second, load=read, now=second.expires)


def test_a_release_for_newer_software_waits(shop):
    with pytest.raises(UntrustedReleaseError, match=r"needs edge software 9\.0\.0"):
        shop.install(2, minimum_edge="9.0.0")


@pytest.mark.parametrize("damage", ["changed", "missing", "added", "linked"])
def test_a_directory_that_is_not_what_was_signed_is_refused(shop, damage):
    second = shop.bundle(2)
    model = second.directory / "recommend/model.onnx"
    if damage == "changed":
        model.write_bytes(b"model 9")
    elif damage == "missing":
        model.unlink()
    elif damage == "added":
        (second.directory / "evil.so").write_bytes(b"x")
    else:
        shutil.copy(model, shop.folder / "outside")
        model.unlink()
        model.symlink_to(shop.folder / "outside")
    with pytest.raises((BadSignatureError, UntrustedReleaseError)):
        shop.installer.install(second, load=read, now=shop.road.now)
    assert shop.serves() == 1


def test_a_bundle_of_another_federation_is_refused(shop):
    directory = shop.road.bundle("b2", {"recommend/model.onnx": b"x"}, version=2, federation="rhein")
    with pytest.raises(UntrustedReleaseError, match="no bundle of federation hanse"):
        shop.installer.install(shop.fetched(Kind.BUNDLE, directory), load=read, now=shop.road.now)


def test_a_bundle_whose_catalogue_is_missing_is_refused(shop):
    other = FileDigest.of(b"another catalogue").sha256
    directory = shop.road.bundle("b2", {"recommend/model.onnx": b"x"}, version=2, catalogue_sha256=other)
    with pytest.raises(UntrustedReleaseError, match="needs catalogue 1, which is not installed"):
        shop.installer.install(shop.fetched(Kind.BUNDLE, directory), load=read, now=shop.road.now)


def test_a_card_from_the_future_is_refused(shop):
    directory = shop.road.bundle("b2", {"recommend/model.onnx": b"x"}, version=7)
    with pytest.raises(UntrustedReleaseError, match="holds the card of release 7"):
        shop.installer.install(shop.fetched(Kind.BUNDLE, directory), load=read, now=shop.road.now)


def test_a_card_that_lies_about_its_files_is_refused(shop):
    listed = {"recommend/model.onnx": FileDigest.of(b"y")}
    directory = shop.road.bundle("b2", {"recommend/model.onnx": b"x"}, version=2, listed=listed)
    with pytest.raises(MalformedMessageError, match="lists other files"):
        shop.installer.install(shop.fetched(Kind.BUNDLE, directory), load=read, now=shop.road.now)


def test_a_catalogue_stays_as_long_as_a_slot_needs_it(shop):
    road, new = shop.road, b"more rows"
    for version in (2, 3):
        fetched = shop.fetched(Kind.CATALOGUE, road.catalogue(f"c{version}", new * version, version=version))
        shop.installer.install_catalogue(fetched, now=road.now)
    assert sorted(path.name for path in (shop.folder / "catalogue").iterdir()) == ["1", "1.json", "3", "3.json"]
    card = shop.installer.bundle().read_card()
    assert (shop.installer.catalogue_of(card).directory / CATALOGUE_FILE).read_bytes() == b"a catalogue"
    assert shop.installer.catalogue().offer.version == 3


def test_a_damaged_slot_falls_back_to_the_other(shop):
    shop.install(2)
    (shop.installer.bundle().directory / "recommend/model.onnx").unlink()
    assert shop.serves() == 1
    assert shop.install(3) == b"model 3"  # into the damaged slot, not over the one that serves
    assert shop.serves() == 3


@pytest.mark.parametrize("record", [b"", b"{}", b"\xff", b'{"format":1}'])
def test_a_damaged_record_falls_back_to_the_other_slot(shop, record):
    shop.install(2)
    slot = shop.installer.bundle().directory
    slot.with_name(f"{slot.name}.json").write_bytes(record)
    assert shop.serves() == 1


def test_a_full_disk_leaves_the_old_release_intact(shop):
    second = shop.bundle(2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        with pytest.raises(NoSpaceError, match=r"cannot commit bundle/2\.json"):
            shop.installer.install(second, load=read, now=shop.road.now)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert shop.serves() == 1
    assert shop.install(3) == b"model 3"


KILLING = """
import json, os, shutil, signal, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from edge.assembly import Fetched, measure
from edge.installer import Installer
from protocol.bundle import Manifest
from protocol.release import Offer

start, source, manifest, custom = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
now = datetime.now(UTC)
watched = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}

def fetched(home):
    copy = home / "blocks" / "new"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)
    offer = Offer.from_custom(f"{custom['kind']}/{custom['version']}.json", custom)
    found = Manifest.from_bytes(manifest.read_bytes())
    return Fetched(directory=copy, offer=offer, manifest=found, expires=now + timedelta(days=1))

def install(home):
    Installer(home, federation="hanse", edge_version="0.1.0").install(fetched(home), load=lambda path: path, now=now)

served = []
for step in range(1, 1000):
    home = start.with_name(f"home-{step}")
    shutil.copytree(start, home)
    child = os.fork()
    if child == 0:
        ready, left = fetched(home), [step]
        def watch(event, arguments):
            if event in watched and str(home) in str(arguments[0]):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(watch)
        Installer(home, federation="hanse", edge_version="0.1.0").install(ready, load=lambda path: path, now=now)
        os._exit(0)
    killed = os.waitpid(child, 0)[1] != 0
    found = Installer(home, federation="hanse", edge_version="0.1.0").bundle()
    assert measure(found.directory) == found.files, step
    served.append(found.offer.version)
    if killed and found.offer.version != custom["version"]:
        install(home)
    assert Installer(home, federation="hanse", edge_version="0.1.0").bundle().offer.version == custom["version"], step
    shutil.rmtree(home)
    if not killed:
        break
print(json.dumps(served))
"""


def test_kill_9_at_any_step_leaves_a_servable_release(shop, tmp_path):
    shop.install(2)  # so that the idle slot holds something that has to be cleared
    third = shop.bundle(3)
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(third.manifest.to_bytes())
    arguments = [str(shop.folder), str(shop.road.folder / "b3"), str(manifest), json.dumps(third.offer.to_custom())]
    done = subprocess.run([sys.executable, "-c", KILLING, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    served = json.loads(done.stdout)
    assert set(served) == {2, 3}
    assert served == sorted(served)  # once committed, always committed
    assert len(served) > 20


def _external(location):
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        weights.external_data.add(key=key, value=value)
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", shape[:1], shape[1:], [weights])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


@pytest.mark.parametrize("location", ["../secret.bin", "{absolute}", "x/../../secret.bin"])
def test_a_graph_that_reads_outside_its_folder_does_not_load(shop, location):
    """The manifest admits plain files only, and ONNX Runtime refuses such a path: this pins that it does."""
    secret = shop.folder / "slots" / "secret.bin"
    secret.write_bytes(bytes(16))
    model = _external(location.format(absolute=secret))
    directory = shop.road.bundle("b2", {"model.onnx": model}, version=2)
    with pytest.raises(UntrustedReleaseError, match="does not load"):
        shop.installer.install(
            shop.fetched(Kind.BUNDLE, directory),
            load=lambda path: onnxruntime.InferenceSession(os.fspath(path / "model.onnx")),
            now=shop.road.now,
        )
    assert shop.serves() == 1


def test_a_graph_that_reads_beside_itself_loads(shop):
    files = {"model.onnx": _external("weights.bin"), "weights.bin": bytes(16)}
    directory = shop.road.bundle("b2", files, version=2)
    shop.installer.install(
        shop.fetched(Kind.BUNDLE, directory),
        load=lambda path: onnxruntime.InferenceSession(os.fspath(path / "model.onnx")),
        now=shop.road.now,
    )
    assert shop.serves() == 2
