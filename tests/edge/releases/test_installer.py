"""Two slots: what was signed is installed whole or not at all, tried, kept or taken back, whoever kills it."""

import json
import shutil
import subprocess
import sys
from datetime import timedelta
from resource import RLIMIT_FSIZE, getrlimit, setrlimit

import pytest

from center.mqtt.release_blocks import manifest_of
from edge.releases.assembly import Fetched, measure
from edge.releases.installer import Installer
from protocol.bundle import FileDigest
from protocol.card import CATALOGUE_FILE
from protocol.errors import (
    BadSignatureError,
    ExpiredReleaseError,
    MalformedMessageError,
    NoSpaceError,
    OutOfTurnError,
    RollbackError,
    UntrustedReleaseError,
)
from protocol.release import Kind, Offer, Place


@pytest.fixture
def shop(quiet_road):
    """An edge with the catalogue, and bundle 1 committed; `fetched` makes more."""
    return Shop(quiet_road)


class Shop:
    def __init__(self, road, *, first=True):
        self.road = road
        self.folder = road.folder / "edge-luebeck"
        self.count = 0
        self.installer.install_catalogue(self.fetched(Place.CATALOGUE, road.catalogue()), now=road.now)
        if first:
            self.commit(1)

    @property
    def installer(self):
        """Nothing is kept in memory: each is a process of its own."""
        return Installer(self.folder, federation=self.road.federation, edge_version="0.1.0")

    @property
    def times(self):
        return {"expires": self.road.now + timedelta(days=1), "now": self.road.now}

    def fetched(self, place, directory, **changes):
        """As if it had come by the road: a copy, its manifest, the offer."""
        manifest = manifest_of(directory, key=self.road.key)
        self.count += 1
        copy = self.folder / "blocks" / "bundle" / str(self.count)
        shutil.copytree(directory, copy)
        offer = {"place": place, "version": 1, "sha256": manifest.bundle_digest}
        offer |= {"evaluation": {}, "bytes": manifest.total_bytes}
        return Fetched(
            directory=copy, offer=Offer(**{**offer, **changes}), manifest=manifest, expires=self.times["expires"]
        )

    def bundle(self, number, *, place=Place.ALL, **changes):
        files = {"recommend/model.onnx": b"model %d" % number}
        return self.fetched(
            place, self.road.bundle(f"b{number}", files, version=number), **{"version": number, **changes}
        )

    def install(self, number, **changes):
        return self.installer.install(self.bundle(number, **changes), now=self.road.now)

    def begin(self, number, **changes):
        installed = self.install(number, **changes)
        self.installer.begin_trial(installed, now_ms=1)
        return installed

    def commit(self, number, **changes):
        installed = self.begin(number, **changes)
        self.installer.commit(installed)
        return installed

    def offer(self, number, version, **changes):
        """The files of bundle `number` under a newer version."""
        manifest = manifest_of(self.road.folder / f"b{number}", key=self.road.key)
        named = {"place": Place.ALL, "version": version, "sha256": manifest.bundle_digest}
        return Offer(**{**named, "evaluation": {}, "bytes": manifest.total_bytes, **changes})

    def adopt(self, number, version, **changes):
        return self.installer.adopt(self.offer(number, version, **changes), **self.times)

    def serves(self):
        found = self.installer.bundle()
        assert measure(found.directory) == found.files
        return found.offer.version


def test_releases_alternate_between_two_slots(shop):
    assert shop.serves() == 1
    shop.commit(2)
    shop.commit(3)
    assert shop.serves() == 3
    names = sorted(path.name for path in (shop.folder / "slots").iterdir())
    assert names == ["a", "a.json", "b", "b.json", "standing.json"]


def test_before_the_first_release_there_is_none(quiet_road):
    installer = quiet_road.installer("bremen")
    assert installer.bundle() is installer.catalogue() is installer.on_trial() is installer.candidate() is None
    assert installer.known(Kind.BUNDLE) == []


def test_what_is_installed_is_not_served_before_it_has_been_tried(shop):
    installed = shop.install(2)
    assert shop.serves() == 1
    shop.installer.begin_trial(installed, now_ms=1)
    assert shop.serves() == 1
    assert shop.installer.on_trial() == installed


def test_going_back_serves_the_release_before_and_never_tries_that_one_again(shop):
    tried = shop.begin(2)
    shop.installer.refuse(tried, why="too slow")
    assert shop.serves() == 1
    assert shop.installer.on_trial() is None
    with pytest.raises(RollbackError, match=r"all/2\.json was tried and taken back: too slow"):
        shop.install(2, version=2)
    assert shop.commit(3)
    assert shop.serves() == 3


def test_several_refused_releases_are_remembered(shop):
    for version in (2, 3, 4):
        shop.installer.refuse(shop.begin(version), why=f"fault {version}")
    for version in (2, 3, 4):
        with pytest.raises(RollbackError, match=f"fault {version}"):
            shop.installer.check(shop.offer(1, version), **shop.times)


def test_the_first_release_of_all_can_be_taken_back_too(quiet_road):
    shop = Shop(quiet_road, first=False)
    shop.installer.refuse(shop.begin(1), why="broken")
    assert shop.installer.bundle() is None
    shop.commit(2)
    assert shop.serves() == 2


def test_a_crash_loop_ends_with_the_committed_release(shop):
    shop.begin(2)
    comebacks = 0
    while shop.installer.start(max_boots=3) is None:  # each is a process that then dies
        comebacks += 1
        assert shop.installer.on_trial().offer.version == 2
    assert comebacks == 3
    assert shop.serves() == 1
    assert shop.installer.on_trial() is None
    with pytest.raises(RollbackError, match="crashed 4 times during its trial"):
        shop.install(2, version=2)


def test_an_orderly_end_is_no_crash(shop):
    shop.begin(2)
    for _ in range(10):
        shop.installer.rest()
        assert shop.installer.start(max_boots=3) is None
    assert shop.installer.on_trial().offer.version == 2


def test_nothing_is_installed_over_a_trial(shop):
    shop.begin(2)
    with pytest.raises(OutOfTurnError, match="release 2 is on trial"):
        shop.install(3)
    with pytest.raises(OutOfTurnError):
        shop.adopt(1, 3)
    shop.installer.end_trial()
    shop.commit(3, version=3)
    assert shop.serves() == 3


def test_a_release_on_trial_is_not_offered_again(shop):
    shop.begin(2)
    with pytest.raises(RollbackError, match="not newer"):
        shop.installer.check(shop.offer(1, 2), **shop.times)


def test_a_rollback_is_taken_up_from_the_other_slot_without_fetching(shop):
    shop.commit(2)
    taken = shop.adopt(1, 3)
    assert taken.offer.version == 3
    assert shop.installer.is_proven(taken.sha256)
    assert shop.serves() == 2  # until it is committed
    shop.installer.begin_trial(taken, now_ms=1)
    shop.installer.commit(taken)
    assert shop.serves() == 3
    assert (shop.installer.bundle().directory / "recommend/model.onnx").read_bytes() == b"model 1"


def test_the_bundle_that_serves_gets_a_new_number_where_it_is(shop):
    before = shop.installer.bundle().directory
    shop.begin(2)
    shop.installer.end_trial()
    taken = shop.adopt(1, 3)
    assert taken.directory == before
    assert shop.serves() == 3
    with pytest.raises(RollbackError):
        shop.installer.check(shop.offer(2, 2), **shop.times)


def test_a_bundle_that_failed_its_trial_is_not_proven_when_it_comes_again(shop):
    shop.installer.refuse(shop.begin(2), why="slow")
    taken = shop.adopt(2, 3)
    assert taken.offer.version == 3
    assert not shop.installer.is_proven(taken.sha256)


def test_the_candidate_is_taken_up_when_it_is_released(shop):
    candidate = shop.bundle(2, place=Place.CANDIDATE)
    shop.installer.install_candidate(candidate, now=shop.road.now)
    taken = shop.adopt(2, 2, place=Place.CANARY)
    assert taken.directory.parent.name == "slots"
    assert taken.offer.place is Place.CANARY
    shop.installer.begin_trial(taken, now_ms=1)
    shop.installer.commit(taken)
    assert shop.serves() == 2
    assert shop.installer.candidate() is None


def test_what_does_not_lie_here_is_not_taken_up(shop):
    shop.road.bundle("b7", {"recommend/model.onnx": b"model 7"}, version=7)
    assert shop.adopt(7, 7) is None


def test_a_slot_that_was_damaged_is_not_taken_up(shop):
    shop.commit(2)
    shop.installer.slots()
    idle = next(found for found in shop.installer.slots() if found.offer.version == 1)
    (idle.directory / "recommend/model.onnx").write_bytes(b"model 9")  # of the same size
    assert shop.adopt(1, 3) is None
    assert shop.serves() == 2


def test_taking_up_asks_what_installing_asks(shop):
    shop.commit(2, epoch=4)
    with pytest.raises(RollbackError, match="epoch 4 rules"):
        shop.adopt(1, 3, epoch=3)
    with pytest.raises(RollbackError, match="not newer"):
        shop.adopt(1, 2, epoch=4)
    with pytest.raises(ExpiredReleaseError):
        shop.installer.adopt(shop.offer(1, 3, epoch=4), expires=shop.road.now, now=shop.road.now)


@pytest.mark.parametrize("version", [1, 2])
def test_the_same_or_an_older_release_is_not_installed(shop, version):
    shop.commit(2)
    with pytest.raises(RollbackError):
        shop.install(3, version=version)
    assert shop.serves() == 2


def test_a_superseded_center_cannot_release(shop):
    shop.commit(2, epoch=4)
    with pytest.raises(RollbackError, match="epoch 4 rules"):
        shop.install(3, epoch=3)


def test_a_release_offered_by_expired_metadata_is_not_installed(shop):
    second = shop.bundle(2)
    with pytest.raises(ExpiredReleaseError):
        shop.installer.install(second, now=second.expires)


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
        shop.installer.install(second, now=shop.road.now)
    assert shop.serves() == 1


def test_files_of_another_bundle_than_was_offered_are_refused(shop):
    with pytest.raises(UntrustedReleaseError, match="not those that it offers"):
        shop.install(2, sha256="7" * 64)


def test_a_bundle_of_another_federation_is_refused(shop):
    directory = shop.road.bundle("b2", {"recommend/model.onnx": b"x"}, version=2, federation="rhein")
    with pytest.raises(UntrustedReleaseError, match="no bundle of federation hanse"):
        shop.installer.install(shop.fetched(Place.ALL, directory, version=2), now=shop.road.now)


def test_a_bundle_whose_catalogue_is_missing_is_refused(shop):
    other = FileDigest.of(b"another catalogue").sha256
    directory = shop.road.bundle("b2", {"recommend/model.onnx": b"x"}, version=2, catalogue_sha256=other)
    with pytest.raises(UntrustedReleaseError, match="needs catalogue 1, which is not installed"):
        shop.installer.install(shop.fetched(Place.ALL, directory, version=2), now=shop.road.now)


def test_a_card_from_the_future_is_refused(shop):
    directory = shop.road.bundle("b2", {"recommend/model.onnx": b"x"}, version=7)
    with pytest.raises(UntrustedReleaseError, match="holds the card of release 7"):
        shop.installer.install(shop.fetched(Place.ALL, directory, version=2), now=shop.road.now)


def test_a_card_that_lies_about_its_files_is_refused(shop):
    listed = {"recommend/model.onnx": FileDigest.of(b"y")}
    directory = shop.road.bundle("b2", {"recommend/model.onnx": b"x"}, version=2, listed=listed)
    with pytest.raises(MalformedMessageError, match="lists other files"):
        shop.installer.install(shop.fetched(Place.ALL, directory, version=2), now=shop.road.now)


def test_a_catalogue_stays_as_long_as_a_slot_needs_it(shop):
    road, new = shop.road, b"more rows"
    for version in (2, 3):
        fetched = shop.fetched(
            Place.CATALOGUE, road.catalogue(f"c{version}", new * version, version=version), version=version
        )
        shop.installer.install_catalogue(fetched, now=road.now)
    assert sorted(path.name for path in (shop.folder / "catalogue").iterdir()) == ["1", "1.json", "3", "3.json"]
    card = shop.installer.bundle().read_card()
    assert (shop.installer.catalogue_of(card).directory / CATALOGUE_FILE).read_bytes() == b"a catalogue"
    assert shop.installer.catalogue().offer.version == 3


def test_only_the_newest_candidate_is_kept(shop):
    for number in (2, 3):
        shop.installer.install_candidate(shop.bundle(number, place=Place.CANDIDATE), now=shop.road.now)
    assert shop.installer.candidate().offer.version == 3
    assert sorted(path.name for path in (shop.folder / "candidate").iterdir()) == ["3", "3.json"]
    with pytest.raises(RollbackError, match="not newer than candidate 3"):
        shop.installer.check_candidate(shop.offer(2, 2, place=Place.CANDIDATE), **shop.times)


def test_a_candidate_that_a_newer_release_has_overtaken_goes(shop):
    shop.installer.install_candidate(shop.bundle(2, place=Place.CANDIDATE), now=shop.road.now)
    shop.commit(3)
    assert shop.installer.candidate() is None
    with pytest.raises(RollbackError):
        shop.installer.check_candidate(shop.offer(2, 2, place=Place.CANDIDATE), **shop.times)


def test_the_disk_never_holds_more_than_its_bound(shop):
    """Ten releases, each a candidate first, some refused, some abandoned on the way: files do not pile up."""
    size = sum(file.stat().st_size for file in (shop.road.folder / "b1").rglob("*") if file.is_file())
    held = []
    for number in range(2, 12):
        shop.installer.install_candidate(shop.bundle(number, place=Place.CANDIDATE), now=shop.road.now)
        shop.bundle(number)  # a download that comes to nothing
        held.append(_bytes_of_bundles(shop.folder))
        taken = shop.adopt(number, shop.installer.candidate().offer.version)
        shop.installer.begin_trial(taken, now_ms=1)
        shop.installer.refuse(taken, why="no") if number % 3 else shop.installer.commit(taken)
        shop.installer.sweep()
        held.append(_bytes_of_bundles(shop.folder))
    assert max(held) <= 5 * (size + 64)
    assert not any((shop.folder / "blocks").glob("*/*"))


def _bytes_of_bundles(folder):
    places = [folder / name for name in ("slots", "candidate", "blocks")]
    files = [path for place in places for path in place.rglob("*") if path.is_file() and path.suffix != ".json"]
    return sum(path.stat().st_size for path in files) + 300 * len([path for path in files if path.name == "card.json"])


def test_a_damaged_slot_falls_back_to_the_other(shop):
    shop.commit(2)
    (shop.installer.bundle().directory / "recommend/model.onnx").unlink()
    assert shop.serves() == 1
    shop.commit(3)  # into the damaged slot, not over the one that serves
    assert shop.serves() == 3


def test_what_was_never_committed_does_not_stand_in_for_a_damaged_slot(shop):
    shop.installer.refuse(shop.begin(2), why="slow")
    (shop.installer.bundle().directory / "recommend/model.onnx").unlink()
    assert shop.installer.bundle() is None


@pytest.mark.parametrize("record", [b"", b"{}", b"\xff", b'{"format":2}'])
def test_a_damaged_record_falls_back_to_the_other_slot(shop, record):
    shop.commit(2)
    slot = shop.installer.bundle().directory
    slot.with_name(f"{slot.name}.json").write_bytes(record)
    assert shop.serves() == 1


def test_where_the_standing_is_damaged_the_older_release_serves(shop):
    shop.begin(2)  # the newer one may be on trial
    (shop.folder / "slots" / "standing.json").write_bytes(b"\xff")
    assert shop.serves() == 1


def test_a_full_disk_leaves_the_old_release_intact(shop):
    second = shop.bundle(2)
    soft, hard = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (16, hard))
    try:
        with pytest.raises(NoSpaceError, match=r"cannot install all/2\.json"):
            shop.installer.install(second, now=shop.road.now)
        with pytest.raises(NoSpaceError, match="which slot serves"):
            shop.installer.refuse(shop.installer.bundle(), why="x")
    finally:
        setrlimit(RLIMIT_FSIZE, (soft, hard))
    assert shop.serves() == 1
    shop.commit(3)
    assert shop.serves() == 3


KILLING = """
import json, os, shutil, signal, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from edge.releases.assembly import Fetched, measure
from edge.releases.installer import Installer
from protocol.bundle import Manifest
from protocol.release import Offer

start, source, manifest = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
doing, target, custom, first, second = sys.argv[4], sys.argv[5], json.loads(sys.argv[6]), *json.loads(sys.argv[7])
now = datetime.now(UTC)
expires = now + timedelta(days=1)
offer = Offer.from_custom(target, custom)
watched = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}

def installer(home):
    return Installer(home, federation="hanse", edge_version="0.1.0")

def fetched(home):
    copy = home / "blocks" / "bundle" / "new"
    if copy.parent.is_dir():
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy)
    return Fetched(directory=copy, offer=offer, manifest=Manifest.from_bytes(manifest.read_bytes()), expires=expires)

def step(home, ready):
    here = installer(home)
    if doing == "candidate":
        here.install_candidate(ready, now=now)
        return
    if doing == "refuse":
        here.refuse(here.on_trial(), why="slow")
        return
    if here.on_trial() is None:
        found = here.adopt(offer, expires=expires, now=now)
        if found is None:
            found = here.install(ready, now=now)
        serving = here.bundle()
        if serving is not None and serving.directory == found.directory:
            return
        here.begin_trial(found, now_ms=1)
    here.commit(here.on_trial())

def look(home):
    here = installer(home)
    found = here.bundle()
    assert measure(found.directory) == found.files, "what serves is not whole"
    for one in (here.on_trial(), here.candidate()):
        assert one is None or measure(one.directory) == one.files, "what is tried is not whole"
    if doing == "candidate":
        return here.candidate().offer.version if here.candidate() else 0
    if doing == "refuse":
        return 0 if here.on_trial() else found.offer.version
    return found.offer.version

seen = []
for number in range(1, 2000):
    home = start.with_name(f"home-{number}")
    shutil.copytree(start, home)
    child = os.fork()
    if child == 0:
        ready, left = fetched(home), [number]
        def watch(event, arguments):
            if event in watched and str(home) in str(arguments[0]):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(watch)
        try:
            step(home, ready)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(9)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WIFSIGNALED(status), number
    killed = status != 0
    seen.append(look(home))
    assert seen[-1] in (first, second), (number, seen[-1])
    if killed and seen[-1] != second:
        step(home, fetched(home))
    assert look(home) == second, number
    shutil.rmtree(home)
    if not killed:
        break
print(json.dumps(seen))
"""


def kill_everywhere(shop, tmp_path, doing, offer, source, *, first, second):
    """Do it in a child that is killed at its n-th touch of the disk, for every n; each time somebody finishes it."""
    directory = shop.road.folder / source
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(manifest_of(directory, key=shop.road.key).to_bytes())
    arguments = [shop.folder, directory, manifest, doing, offer.target, json.dumps(offer.to_custom())]
    words = [sys.executable, "-c", KILLING, *map(str, arguments), json.dumps([first, second])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert set(seen) == {first, second}
    assert seen.index(second) == len(seen) - seen.count(second)  # once done, always done
    return len(seen)


def test_kill_9_at_any_step_of_an_installation_leaves_a_servable_release(shop, tmp_path):
    shop.commit(2)  # so that the idle slot holds something that has to be cleared
    third = shop.bundle(3)
    assert kill_everywhere(shop, tmp_path, "install", third.offer, "b3", first=2, second=3) > 30


def test_kill_9_at_any_step_of_a_swap_back_leaves_a_servable_release(shop, tmp_path):
    shop.commit(2)
    assert kill_everywhere(shop, tmp_path, "install", shop.offer(1, 3), "b1", first=2, second=3) > 10


def test_kill_9_while_what_serves_gets_a_new_number(shop, tmp_path):
    assert kill_everywhere(shop, tmp_path, "install", shop.offer(1, 3), "b1", first=1, second=3) > 3


def test_kill_9_while_a_candidate_is_taken_up(shop, tmp_path):
    shop.installer.install_candidate(shop.bundle(2, place=Place.CANDIDATE), now=shop.road.now)
    offer = shop.offer(2, 2, place=Place.CANARY)
    assert kill_everywhere(shop, tmp_path, "install", offer, "b2", first=1, second=2) > 20


def test_kill_9_while_a_candidate_is_stored(shop, tmp_path):
    second = shop.bundle(2, place=Place.CANDIDATE)
    assert kill_everywhere(shop, tmp_path, "candidate", second.offer, "b2", first=0, second=2) > 5


def test_kill_9_while_going_back_leaves_the_trial_or_ends_it(shop, tmp_path):
    tried = shop.begin(2)
    assert kill_everywhere(shop, tmp_path, "refuse", tried.offer, "b2", first=0, second=1) > 3
