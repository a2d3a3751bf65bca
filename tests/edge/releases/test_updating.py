"""Catalogue, bundle and candidate in turn, for the ring this edge is in; what is refused stops nothing but itself."""

import dataclasses
import shutil
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from center.mqtt.release_blocks import manifest_of
from edge.keys import Keys
from edge.membership import Membership
from edge.releases import updating
from edge.releases.assembly import Fetched
from edge.releases.fetching import Newest, Offered
from edge.releases.installer import Installer
from edge.releases.ring import Rings
from edge.releases.updating import Papers, Updater
from protocol.errors import NoSpaceError, UnavailableError, UntrustedReleaseError
from protocol.identity import EdgeId, Roster
from protocol.release import WHOLE_QUEUE, Offer, Place, queue_place
from protocol.rings import RingPolicy

ME = EdgeId("luebeck")


class Center:
    """What the center says now, and the road to it: files are copied, and `broken` is what goes wrong on the way."""

    def __init__(self, road, folder):
        self.road, self.folder = road, folder
        self.bundles, self.candidates, self.pace = {}, {}, {}
        self.catalogue = self.roster = self.policy = None
        self.era = 1
        self.broken, self.fetched, self.troubles = {}, [], []
        self.meanwhile = lambda: None

    def offer(self, place, number, version, **changes):
        """Files `number` at a place, under a version."""
        if place is Place.CATALOGUE:
            directory = self.road.catalogue(f"c{number}", version=version)
        else:
            files = {"recommend/model.onnx": b"model %d" % number}
            directory = self.road.bundle(f"b{number}", files, version=number)
        manifest = manifest_of(directory, key=self.road.key)
        named = {"place": place, "version": version, "sha256": manifest.bundle_digest, "bytes": manifest.total_bytes}
        offered = Offered(
            offer=Offer(**{**named, "evaluation": {}, **changes}),
            expires=datetime.now(UTC) + timedelta(days=1),
            target=(directory, manifest),
        )
        target = offered.offer.target
        if place is Place.CATALOGUE:
            self.catalogue = offered
        elif place is Place.CANDIDATE:
            self.candidates[target] = offered
        else:
            self.bundles[target] = offered
            if place is Place.ALL:
                self.pace.setdefault(version, WHOLE_QUEUE)
        return offered

    def newest(self):
        if self.troubles:
            raise self.troubles.pop()
        return Newest(
            bundles=dict(self.bundles),
            candidates=dict(self.candidates),
            catalogue=self.catalogue,
            pace=dict(self.pace),
            roster=self.roster,
            policy=self.policy,
            era=self.era,
        )

    def fetch(self, offered, *, known, progress):
        target = offered.offer.target
        self.meanwhile()
        progress(1, 3)
        assert all(path.is_dir() for path in known)
        if target in self.broken:
            raise self.broken[target]
        self.fetched.append(target)
        directory, manifest = offered.target
        copy = self.folder / "blocks" / "bundle" / target.replace("/", "-")
        shutil.copytree(directory, copy)
        return Fetched(directory=copy, offer=offered.offer, manifest=manifest, expires=offered.expires)


class Stage:
    """Commits at once what it is given, unless it is told that it does not load or is to stay on trial."""

    def __init__(self, installer):
        self.installer, self.seen, self.bad, self.slow = installer, [], set(), False

    def try_out(self, installed):
        self.seen.append(("try out", installed.offer.target))
        if installed.offer.version in self.bad:
            self.installer.refuse(installed, why="it does not load")
            raise UntrustedReleaseError(f"{installed.offer.target} does not load")
        if not self.slow:
            self.installer.commit(installed)

    def take_up(self, installed):
        self.seen.append(("take up", installed.offer.target))
        self.installer.commit(installed)

    def renumber(self, installed):
        self.seen.append(("renumber", installed.offer.target))

    def supersede(self, newer):
        self.seen.append(("supersede", newer.target))
        self.installer.end_trial()

    def rehearse(self, installed):
        self.seen.append(("rehearse", installed.offer.target))
        if installed.offer.version in self.bad:
            self.installer.remove_candidate(installed)
            raise UntrustedReleaseError("a candidate that does not load")


class Edge:
    def __init__(self, road):
        self.folder = road.folder / "edge-luebeck"
        self.offline = Ed25519PrivateKey.generate()
        (self.folder / "trust").mkdir(parents=True)
        (self.folder / "trust" / "roster.pub").write_text(self.offline.public_key().public_bytes_raw().hex())
        self.federation = road.federation
        self.installer = Installer(self.folder, federation=road.federation, edge_version="0.1.0")
        self.center, self.stage = Center(road, self.folder), Stage(self.installer)
        self.notes, self.changed = [], threading.Event()
        self.updater = self.new_updater()

    def new_updater(self):
        papers = Papers(
            me=ME,
            membership=Membership(self.folder, federation=self.federation),
            rings=Rings(self.folder, federation=self.federation, edge=ME),
            note=lambda kind, **facts: self.notes.append((kind, facts)),
            changed=self.changed.set,
        )
        return Updater(sync=self.center, installer=self.installer, stage=self.stage, papers=papers)

    def update(self):
        """One look at the center, on this thread; whether all of it went well."""
        return self.updater._attempt(self.updater._update)

    def join_ring(self, number=1, **rings):
        self.center.policy = (
            number,
            RingPolicy.of(self.federation, number, **{"canary": [], "early": [], **rings}).sign(self.offline),
        )

    @property
    def serves(self):
        bundle = self.installer.bundle()
        return bundle.offer.target if bundle else None


@pytest.fixture
def edge(quiet_road):
    found = Edge(quiet_road)
    found.center.offer(Place.CATALOGUE, 1, 1)
    return found


def test_the_catalogue_comes_before_the_bundle_that_needs_it(edge):
    edge.center.offer(Place.ALL, 4, 4)
    assert edge.update()
    assert edge.center.fetched == ["catalogue/1.json", "all/4.json"]
    assert edge.stage.seen == [("try out", "all/4.json")]
    assert edge.serves == "all/4.json"
    assert [kind for kind, _ in edge.notes] == ["catalogue installed", "installed", "on trial"]
    assert edge.changed.is_set()


def test_what_is_installed_is_not_fetched_again(edge):
    edge.center.offer(Place.ALL, 4, 4)
    edge.update()
    edge.update()
    edge.updater = edge.new_updater()
    edge.update()
    assert edge.center.fetched.count("all/4.json") == 1


def test_a_canary_takes_what_others_do_not_see_yet(edge):
    edge.center.offer(Place.ALL, 4, 4)
    edge.center.offer(Place.CANARY, 5, 5)
    edge.update()
    assert edge.serves == "all/4.json"
    edge.join_ring(canary=[ME])
    edge.update()
    assert edge.serves == "canary/5.json"
    assert ("policy accepted", {"number": 1, "ring": "canary"}) in edge.notes


def test_a_site_waits_for_its_turn_in_the_queue(edge):
    offered = edge.center.offer(Place.ALL, 4, 4)
    turn = queue_place(ME, offered.offer.sha256)
    edge.center.pace[4] = turn
    edge.update()
    assert edge.serves is None
    edge.center.pace[4] = turn + 1
    edge.update()
    assert edge.serves == "all/4.json"


def test_the_same_release_in_a_wider_ring_is_nothing_new(edge):
    edge.join_ring(canary=[ME])
    edge.center.offer(Place.CANARY, 4, 4)
    edge.update()
    edge.center.offer(Place.ALL, 4, 4)
    edge.update()
    assert len(edge.stage.seen) == 1


def test_a_rollback_is_taken_up_without_fetching(edge):
    for number in (4, 5):
        edge.center.offer(Place.ALL, number, number)
        edge.update()
    edge.center.offer(Place.ALL, 4, 6)
    assert edge.update()
    assert "all/6.json" not in edge.center.fetched
    assert edge.stage.seen[-1] == ("take up", "all/6.json")
    assert edge.serves == "all/6.json"
    assert edge.notes[-1][0] == "adopted"
    assert edge.notes[-1][1]["release"] == 6


def test_a_rollback_during_the_trial_ends_it_and_the_committed_files_get_the_new_number(edge):
    edge.center.offer(Place.ALL, 4, 4)
    edge.update()
    edge.stage.slow = True
    edge.center.offer(Place.ALL, 5, 5)
    edge.update()
    assert edge.installer.on_trial().offer.version == 5
    edge.center.offer(Place.ALL, 4, 6)
    assert edge.update()
    assert edge.stage.seen[-2:] == [("supersede", "all/6.json"), ("renumber", "all/6.json")]
    assert edge.serves == "all/6.json"
    assert "all/6.json" not in edge.center.fetched


def test_a_trial_that_a_restart_interrupted_goes_on_without_the_center(edge, monkeypatch, eventually):
    edge.stage.slow = True
    edge.center.offer(Place.ALL, 4, 4)
    edge.update()
    edge.center.troubles = [UnavailableError("the line is cut")] * 99
    restarted = edge.new_updater()
    restarted.start()
    eventually(lambda: edge.stage.seen == [("try out", "all/4.json")] * 2)
    monkeypatch.setattr(updating, "_RETRY_SECONDS", 5.0)
    restarted.stop()


def test_a_release_that_went_back_is_not_tried_again_but_the_next_one_is(edge):
    edge.stage.bad = {4}
    edge.center.offer(Place.ALL, 4, 4)
    assert not edge.update()
    assert edge.update()
    assert edge.stage.seen == [("try out", "all/4.json")]
    edge.center.offer(Place.ALL, 5, 5)
    assert edge.update()
    assert edge.serves == "all/5.json"


def test_the_center_hears_that_a_release_went_back(edge):
    reported = []

    def report():
        reported.append([refusal.version for refusal in edge.installer.standing().refused])

    edge.updater._papers = dataclasses.replace(edge.updater._papers, changed=report)
    edge.stage.bad = {4}
    edge.center.offer(Place.ALL, 4, 4)
    edge.update()
    assert reported[-1] == [4]


def test_a_candidate_is_kept_to_be_measured_and_taken_up_when_it_is_released(edge):
    edge.center.offer(Place.CANDIDATE, 4, 4, audit="7" * 64)
    assert edge.update()
    assert edge.serves is None
    assert edge.installer.candidate().offer.version == 4
    assert edge.stage.seen == [("rehearse", "candidate/4.json")]
    kept = next(facts for kind, facts in edge.notes if kind == "candidate kept")
    assert kept["center_audit"] == "7" * 64
    edge.center.offer(Place.ALL, 4, 4)
    assert edge.update()
    assert edge.serves == "all/4.json"
    assert edge.center.fetched == ["catalogue/1.json", "candidate/4.json"]
    assert edge.installer.candidate() is None


def test_a_candidate_that_does_not_load_stops_no_release(edge):
    edge.stage.bad = {5}
    edge.center.offer(Place.CANDIDATE, 5, 5)
    edge.center.offer(Place.ALL, 4, 4)
    assert not edge.update()
    assert edge.serves == "all/4.json"
    assert edge.installer.candidate() is None


def test_a_bundle_that_does_not_arrive_stops_no_candidate(edge):
    edge.center.offer(Place.ALL, 4, 4)
    edge.center.offer(Place.CANDIDATE, 5, 5)
    edge.center.broken = {"all/4.json": UnavailableError("a block is missing")}
    assert not edge.update()
    assert edge.updater.trouble.args == ("a block is missing",)
    assert edge.installer.candidate().offer.version == 5
    edge.center.broken = {}
    assert edge.update()
    assert edge.serves == "all/4.json"


def test_a_roster_and_a_policy_that_cannot_be_believed_stop_nothing(edge):
    stranger = Ed25519PrivateKey.generate()
    roster = Roster(federation=edge.federation, version=3, members=(Keys.generate().member(ME),), groups=((ME,),))
    edge.center.roster = (3, roster.sign(stranger))
    edge.center.policy = (1, RingPolicy.of(edge.federation, 1, canary=[ME], early=[]).sign(stranger))
    edge.center.offer(Place.CANARY, 5, 5)
    edge.center.offer(Place.ALL, 4, 4)
    assert edge.update()
    assert edge.serves == "all/4.json"
    edge.center.roster = (3, roster.sign(edge.offline))
    assert edge.update()
    assert Membership(edge.folder, federation=edge.federation).roster().version == 3
    assert ("roster accepted", {"version": 3, "sites": 1}) in edge.notes


def test_a_rollback_does_not_wait_for_a_download(edge, eventually):
    """A site on a slow line is fetching for an hour what the center has long withdrawn."""
    for number in (4, 5):
        edge.center.offer(Place.ALL, number, number)
        edge.update()
    edge.center.offer(Place.CANDIDATE, 6, 6)

    def rollback():
        edge.center.meanwhile = lambda: None
        edge.center.offer(Place.ALL, 4, 7)
        edge.updater.wake()

    edge.center.meanwhile = rollback
    edge.updater.start()
    edge.updater.wake()
    eventually(lambda: edge.serves == "all/7.json", seconds=10)
    edge.updater.stop()
    assert edge.center.fetched == ["catalogue/1.json", "all/4.json", "all/5.json"]


def test_what_a_thief_numbered_binds_nobody_once_its_key_is_replaced(edge):
    """The highest number and epoch there are, signed with a stolen key: honest releases go on from theirs."""
    edge.center.offer(Place.ALL, 4, 4, epoch=1)
    edge.update()
    edge.center.offer(Place.CATALOGUE, 9, 4_000_000_000, epoch=2**40)
    edge.center.offer(Place.ALL, 5, 4_000_000_000, epoch=2**40)
    edge.stage.bad = {4_000_000_001}
    edge.center.offer(Place.CANDIDATE, 6, 4_000_000_001, epoch=2**40)
    edge.update()
    assert edge.installer.bundle().offer.version == 4_000_000_000
    edge.center.bundles.clear()
    edge.center.candidates.clear()
    edge.center.era = 2
    edge.center.offer(Place.CATALOGUE, 1, 2, epoch=1)
    edge.center.offer(Place.ALL, 4, 5, epoch=1)
    edge.center.offer(Place.CANDIDATE, 7, 7, epoch=1)
    assert edge.update()
    assert edge.serves == "all/5.json"
    assert edge.installer.catalogue().offer.version == 2
    assert edge.installer.candidate().offer.version == 7
    edge.center.era = 1
    edge.center.offer(Place.ALL, 8, 4_100_000_000, epoch=2**41)
    edge.update()
    assert edge.serves == "all/5.json"


def test_what_is_on_its_way_is_said(edge):
    seen = []
    edge.center.offer(Place.ALL, 4, 4)
    edge.center.meanwhile = lambda: seen.append(edge.updater.fetching)
    edge.update()
    assert seen == [1, 4]
    assert edge.updater.fetching == 0


def test_what_an_interrupted_download_left_is_swept_away_once_all_is_well(edge):
    left = edge.folder / "blocks" / "bundle" / "0" / "half"
    left.mkdir(parents=True)
    edge.center.offer(Place.ALL, 4, 4)
    edge.center.broken = {"all/4.json": UnavailableError("a block is missing")}
    edge.update()
    assert left.exists()
    edge.center.broken = {}
    edge.update()
    assert not left.exists()


@pytest.mark.parametrize(
    "trouble",
    [UnavailableError("the broker is away"), NoSpaceError("full"), OSError(28, "No space left on device")],
)
def test_an_interrupted_road_is_tried_again_without_being_woken(edge, monkeypatch, eventually, trouble):
    """The thread that installs must outlive whatever happens on the road."""
    monkeypatch.setattr(updating, "_RETRY_SECONDS", 0.05)
    edge.center.offer(Place.ALL, 4, 4)
    edge.center.troubles = [trouble]
    edge.updater.start()
    edge.updater.wake()
    eventually(lambda: edge.serves == "all/4.json")
    eventually(lambda: edge.updater.trouble is None)
    monkeypatch.setattr(updating, "_RETRY_SECONDS", 5.0)
    edge.updater.stop()
    assert not edge.updater._thread.is_alive()
