"""Keys change hands: python-tuf's own client follows, whoever holds the old keys is believed no more."""

import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import BadVersionNumberError, DownloadHTTPError, UnsignedMetadataError
from tuf.api.metadata import Metadata, TargetFile
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from center.founding import Addresses, found, open_repository, signing
from center.keys import load_signing_key, new_signing_key
from center.registry import Registry
from center.signing import key_status, rotation
from center.signing.key_files import online_keys
from center.signing.metadata import key_id
from center.sites import inviting
from protocol.enrolment import Token, secret_digest
from protocol.errors import BadInputError
from protocol.identity import FederationId
from protocol.release import Offer, Place

NOW = datetime.now(UTC)
ONLINE = ("releases", "membership", "snapshot", "timestamp")
FAR = 2**31


class Mirror(FetcherInterface):
    """A server that hands out whatever it was given last."""

    def __init__(self):
        self.files = {}

    def serve(self, published):
        self.files = {**published.metadata, **{f"targets/{name}": data for name, data in published.targets.items()}}

    def _fetch(self, url):
        name = url.removeprefix("tuf:///")
        if name not in self.files:
            raise DownloadHTTPError(f"{name} is not there", 404)
        return iter([self.files[name]])


class Edge:
    """python-tuf's client, as an edge uses it."""

    def __init__(self, folder, mirror, root):
        folder.mkdir()
        self.folder, self.mirror, self.root = folder, mirror, root

    def fetch(self, name):
        updater = Updater(
            str(self.folder),
            "tuf:///",
            target_base_url="tuf:///targets/",
            fetcher=self.mirror,
            config=UpdaterConfig(prefix_targets_with_hash=True),
            bootstrap=self.root,
        )
        target = updater.get_targetinfo(name)
        if target is None:
            return None
        return Path(updater.download_target(target, str(self.folder / "target"))).read_bytes()


class Center:
    """A founded center without its servers."""

    def __init__(self, folder):
        self.folder = folder
        self.offline = folder / "offline"
        addresses = Addresses(host="127.0.0.1", gateway_port=1, superlink_port=2, broker_port=3)
        found(folder, federation=FederationId("hanse"), addresses=addresses, now=NOW)
        self.mirror = Mirror()
        self.serve()

    def serve(self):
        self.mirror.serve(open_repository(self.folder).published())

    def release(self, version, place=Place.CANARY, approvals=(), content=None):
        digest = f"{version:064x}"
        with signing(self.folder) as repository:
            repository.add(
                Offer(place=place, version=version, sha256=digest, bytes=1, evaluation={}),
                content or b"release %d" % version,
            )
            self.mirror.serve(repository.publish_version(now=NOW, approvals=approvals))

    def rotate(self, *roles, **options):
        done = rotation.rotate(self.folder, roles, **{"offline": [self.offline], "now": NOW, **options})
        self.serve()
        return done

    def key(self, role):
        return load_signing_key(self.folder / "keys" / f"{role}.key")

    def edge(self, name="edge"):
        return Edge(self.folder / name, self.mirror, open_repository(self.folder).first_root)

    def trusted(self, role):
        return open_repository(self.folder).chain.terms(role).keyids


@pytest.fixture
def center(tmp_path):
    return Center(tmp_path)


class Thief:
    """Whoever stole online keys, with the broker in hand."""

    def __init__(self, center, *roles):
        self.center = center
        self.signers = {role: CryptoSigner(center.key(role)) for role in roles}

    def forge(self, name, content=b"poison", *, version=FAR):
        """Serve everything with numbers far ahead, signed with the stolen keys."""
        files = dict(self.center.mirror.files)
        changed = {}
        for file, data in files.items():
            role = file.removesuffix(".json").split(".")[-1]
            if role in {"releases", "snapshot", "timestamp"} and "/" not in file:
                changed[role] = Metadata.from_bytes(data)
        listed = changed["releases"].signed
        listed.targets[name] = TargetFile.from_data(name, content, ["sha256"])
        changed["snapshot"].signed.meta["releases.json"].version = version
        changed["timestamp"].signed.snapshot_meta.version = version
        for role, metadata in changed.items():
            metadata.signed.version = version
            metadata.sign(self.signers[role])
            files["timestamp.json" if role == "timestamp" else f"{version}.{role}.json"] = metadata.to_bytes()
        files[f"targets/{listed.targets[name].get_prefixed_paths()[0]}"] = content
        self.center.mirror.files = files


def test_online_keys_that_were_stolen_are_useless_after_a_rotation_also_after_a_fast_forward(center):
    center.release(1)
    canary, honest = center.edge("canary"), center.edge("honest")
    assert honest.fetch("canary/1.json") == b"release 1"
    thief = Thief(center, "releases", "snapshot", "timestamp")
    thief.forge("canary/2147483648.json")
    assert canary.fetch("canary/2147483648.json") == b"poison"  # until it is noticed, the canary ring is his
    assert honest.fetch("canary/1.json") == b"release 1"  # this one has seen his numbers, too

    center.rotate("releases", "snapshot", "timestamp")
    center.release(2)
    for edge in (canary, honest):
        assert edge.fetch("canary/2.json") == b"release 2"
        assert edge.fetch("canary/2147483648.json") is None

    thief.forge("canary/3.json", version=FAR + 1)
    for edge in (canary, honest, center.edge("newcomer")):
        with pytest.raises(UnsignedMetadataError):
            edge.fetch("canary/3.json")
    center.serve()
    assert honest.fetch("canary/2.json") == b"release 2"


def test_without_a_rotation_a_fast_forward_would_last(center):
    """What the test above is about: the honest metadata alone do not get through again."""
    center.release(1)
    edge = center.edge()
    Thief(center, "releases", "snapshot", "timestamp").forge("canary/9.json")
    edge.fetch("canary/9.json")
    center.release(2)
    with pytest.raises(BadVersionNumberError):
        edge.fetch("canary/2.json")


@pytest.fixture
def person(tmp_path):
    return new_signing_key(tmp_path / "person.key")


@pytest.fixture
def approver(center, person):
    """One person must approve what leaves the canary ring."""
    rotation.add_approver(center.folder, person.public_key(), offline=[center.offline], approving=[person], now=NOW)
    center.serve()
    return person


@pytest.mark.usefixtures("approver")
def test_online_keys_reach_no_further_than_the_canary_ring_where_people_approve(center):
    thief = Thief(center, "releases", "snapshot", "timestamp")
    thief.forge("all/1.json")  # listed by the role `releases`, which does not sign for that place
    assert center.edge().fetch("all/1.json") is None
    with pytest.raises(BadInputError, match="1 more approval"):
        center.release(1, Place.ALL)


def test_the_approved_stays_approved_when_an_online_key_is_rotated(center, approver):
    center.release(1, Place.ALL, approvals=[approver])
    edge = center.edge()
    assert edge.fetch("all/1.json") == b"release 1"
    done = center.rotate("releases")  # nobody who approves is asked
    assert "wide" not in done.versions
    assert edge.fetch("all/1.json") == b"release 1"
    with pytest.raises(BadInputError, match="1 more approval"):
        center.release(2, Place.ALL)
    center.release(2, Place.ALL, approvals=[approver])
    assert edge.fetch("all/2.json") == b"release 2"


def test_what_is_out_already_must_be_approved_by_the_first_who_approves(center, person):
    center.release(1, Place.ALL)
    with pytest.raises(BadInputError, match="wide was signed by 1/2 keys"):
        rotation.add_approver(center.folder, person.public_key(), offline=[center.offline], now=NOW)
    assert center.trusted("wide") == center.trusted("releases")


def test_any_of_several_people_may_approve_and_one_who_goes_approves_no_more(center, approver, tmp_path):
    second = new_signing_key(tmp_path / "second.key")
    options = {"offline": [center.offline], "now": NOW}
    rotation.add_approver(center.folder, second.public_key(), **options)
    center.serve()
    assert open_repository(center.folder).approvals_needed == 1
    for version, key in ((1, approver), (2, second)):
        center.release(version, Place.ALL, approvals=[key])
    with pytest.raises(BadInputError, match="signs there already"):
        rotation.add_approver(center.folder, second.public_key(), **options)
    with pytest.raises(BadInputError, match="1 people cannot give 2 approvals"):
        rotation.remove_approver(center.folder, key_id(approver), approvals=2, **options)
    with pytest.raises(BadInputError, match="wide was signed by 1/2 keys"):  # the last release bears hers
        rotation.remove_approver(center.folder, key_id(second), **options)
    rotation.remove_approver(center.folder, key_id(second)[:8], approving=[approver], **options)
    center.serve()
    with pytest.raises(BadInputError, match="approves nothing here"):
        center.release(3, Place.ALL, approvals=[second])
    assert center.edge().fetch("all/2.json") == b"release 2"
    rotation.remove_approver(center.folder, key_id(approver), **options)
    center.release(3, Place.ALL)
    assert center.edge("other").fetch("all/3.json") == b"release 3"


def test_both_of_two_people_can_be_wanted(center, approver, tmp_path):
    second = new_signing_key(tmp_path / "second.key")
    options = {"offline": [center.offline], "now": NOW}
    rotation.add_approver(center.folder, second.public_key(), approvals=2, approving=[approver, second], **options)
    with pytest.raises(BadInputError, match="1 more approval"):
        center.release(1, Place.ALL, approvals=[second])
    center.release(1, Place.ALL, approvals=[second, approver])
    assert center.edge().fetch("all/1.json") == b"release 1"


@pytest.mark.parametrize("role", ["targets", *ONLINE])
def test_one_role_changes_its_key_and_edges_follow(center, role):
    center.release(1)
    center.release(2, Place.EARLY)
    edge = center.edge()
    edge.fetch("canary/1.json")
    old = center.trusted(role)
    done = center.rotate(role)
    assert done.old[role] == old
    assert done.new[role] == center.trusted(role) != old
    assert (edge.fetch("canary/1.json"), edge.fetch("early/2.json")) == (b"release 1", b"release 2")
    center.release(3)
    assert edge.fetch("canary/3.json") == b"release 3"
    assert [p.name for p in center.folder.rglob("*.next.key")] == []
    held = [center.offline / "targets.key", *((center.folder / "keys").glob("*.key"))]
    assert not set(old) & {key_id(key) for path in held if (key := _maybe(path))}


def _maybe(path):
    try:
        return load_signing_key(path)
    except BadInputError:
        return None


def test_everything_at_once_takes_one_new_root(center):
    center.release(1)
    edge = center.edge()
    edge.fetch("canary/1.json")
    done = center.rotate("root", "targets", *ONLINE)
    assert done.versions["root"] == 2
    assert set(done.new) == {"root", "targets", *ONLINE, "wide"}
    assert edge.fetch("canary/1.json") == b"release 1"
    assert center.edge("newcomer").fetch("canary/1.json") == b"release 1"  # it pins root 1


def test_root_keys_come_from_as_many_media_as_there_are(center, tmp_path):
    media = [tmp_path / name for name in ("safe", "bank", "home")]
    for number, medium in enumerate(media, 1):
        medium.mkdir()
        (center.offline / f"root-{number}.key").rename(medium / f"root-{number}.key")
    before = center.trusted("root")
    with pytest.raises(BadInputError, match="root was signed by 1/2 keys"):
        center.rotate("root", offline=media[:1])
    assert center.trusted("root") == before
    assert sorted(path.name for medium in media for path in medium.iterdir()) == [f"root-{n}.key" for n in (1, 2, 3)]
    done = center.rotate("root", offline=media[:2])
    assert (done.old["root"], len(done.new["root"])) == (before[:2], 2)
    assert before[2] in center.trusted("root")
    done = center.rotate("root", offline=media[1:])  # the one that was left and one of the new ones
    assert before[2] in done.old["root"]


def test_a_lost_root_key_is_replaced_by_the_others(center):
    (center.offline / "root-2.key").unlink()
    lost = center.trusted("root")[1]
    edge = center.edge()
    done = center.rotate("root", replace=[lost[:10]])
    assert done.old == {"root": [lost]}
    assert len(center.trusted("root")) == 3
    assert len(list(center.offline.glob("root-*.key"))) == 3
    center.release(1)
    assert edge.fetch("canary/1.json") == b"release 1"
    center.rotate("root")


def test_a_repository_from_an_old_backup_is_made_good_by_a_rotation(center, tmp_path):
    center.release(1)
    shutil.copytree(center.folder / "tuf", tmp_path / "backup")
    center.release(2)
    edge = center.edge()
    edge.fetch("canary/2.json")
    shutil.rmtree(center.folder / "tuf")
    (tmp_path / "backup").rename(center.folder / "tuf")
    center.serve()
    with pytest.raises(BadVersionNumberError):
        edge.fetch("canary/1.json")
    center.rotate("releases", "snapshot", "timestamp")
    assert (edge.fetch("canary/1.json"), edge.fetch("canary/2.json")) == (b"release 1", None)


def test_old_root_keys_make_no_root_that_anybody_takes_after_the_new_one(center):
    old = [load_signing_key(center.offline / f"root-{n}.key") for n in (1, 2)]
    edge = center.edge()
    edge.fetch("canary/1.json")
    center.rotate("root")
    edge.fetch("canary/1.json")
    forged = Metadata.from_bytes(center.mirror.files["2.root.json"])
    forged.signed.version = 3
    forged.signatures.clear()
    for key in old:
        forged.sign(CryptoSigner(key), append=True)
    center.mirror.files["3.root.json"] = forged.to_bytes()
    with pytest.raises(UnsignedMetadataError):
        edge.fetch("canary/1.json")


def test_one_root_key_alone_does_not_replace_the_others(center, tmp_path):
    """The new root would have enough signatures of its own; the old one does not agree."""
    alone = tmp_path / "alone"
    alone.mkdir()
    (center.offline / "root-1.key").rename(alone / "root-1.key")
    others = center.trusted("root")[1:]
    with pytest.raises(BadInputError, match="root 1 does not accept these keys"):
        center.rotate("root", offline=[alone], replace=others)
    assert center.trusted("root")[1:] == others


def test_a_lost_online_key_is_replaced_as_well(center):
    (center.folder / "keys" / "timestamp.key").unlink()
    (center.folder / "keys" / "releases.key").write_bytes(b"damaged")
    with pytest.raises(BadInputError, match=r"releases\.key"):
        open_repository(center.folder)
    center.rotate("timestamp", "releases")
    center.release(1)
    assert center.edge().fetch("canary/1.json") == b"release 1"


@pytest.mark.parametrize(
    ("roles", "options", "why"),
    [
        (["roster"], {}, "no key of a role 'roster'"),
        (["timestamp"], {"offline": []}, "root was signed by 0/2 keys"),
        (["releases"], {"offline": []}, "targets was signed by 0/1 keys"),
        (["root"], {"offline": []}, "no key of root 1 lies there"),
        (["root"], {"replace": ["ffff"]}, "no key 'ffff'"),
        (["root"], {"replace": [""]}, "no key ''"),
    ],
)
def test_a_rotation_that_cannot_be_changes_nothing(center, roles, options, why):
    before = {path: path.read_bytes() for path in center.folder.rglob("*") if path.is_file()}
    with pytest.raises(BadInputError, match=why):
        rotation.rotate(center.folder, roles, **{"offline": [center.offline], "now": NOW, **options})
    after = {path: path.read_bytes() for path in center.folder.rglob("*") if path.is_file()}
    assert {path.name for path in after} - {path.name for path in before} <= {"lock"}
    assert {path: after[path] for path in before} == before


def test_a_medium_that_is_not_there_is_said(center, tmp_path):
    with pytest.raises(BadInputError, match="usb is no folder"):
        center.rotate("timestamp", offline=[tmp_path / "usb"])


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
import center.durable as durable, center.signing.key_files as key_files
from center.signing import rotation

folder, after, *roles = sys.argv[1:]
steps = int(after)

def step(what):
    def done(*args, **options):
        global steps
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        steps -= 1
        return what(*args, **options)
    return done

durable.write = step(durable.write)
key_files.KeyFile.take_place = step(key_files.KeyFile.take_place)
rotation.rotate(Path(folder), roles, offline=[Path(folder) / "offline"], now=datetime.now(UTC))
print("whole", steps)
"""


def _interrupted(center, after, *roles):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(center.folder), str(after), *roles],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode != 0


def test_a_rotation_killed_anywhere_leaves_a_repository_that_serves_and_is_ended_by_the_same_command(center):
    """Ten durable steps: four new keys, root, targets, releases, wide, snapshot, timestamp; then four keys move."""
    center.release(1)
    center.release(2, Place.EARLY)
    edge = center.edge()
    edge.fetch("canary/1.json")
    roles = ("root", "timestamp", "releases")
    killed = 0
    while True:
        before = {role: set(center.trusted(role)) for role in roles}
        if not _interrupted(center, killed, *roles):
            break
        killed += 1
        center.serve()
        assert edge.fetch("canary/1.json") == b"release 1"
        with signing(center.folder) as repository:  # the running center goes on meanwhile
            center.mirror.serve(repository.refresh(now=NOW))
        assert edge.fetch("early/2.json") == b"release 2"
        center.rotate(*roles)
        assert edge.fetch("canary/1.json") == b"release 1"
        assert list(center.folder.rglob("*.next.key")) == []
        for role in roles:
            assert not before[role] & set(center.trusted(role))
    assert killed >= 15


def test_a_key_that_was_made_and_never_trusted_goes(center):
    assert _interrupted(center, 1, "timestamp")
    assert (center.folder / "keys" / "timestamp.next.key").exists()
    center.rotate("snapshot")
    assert list(center.folder.rglob("*.next.key")) == []


def test_an_interrupted_rotation_is_ended_without_yet_another_key(center):
    center.release(1)
    count = 0
    while not (center.folder / "keys" / "timestamp.next.key").exists() or (
        key_id(load_signing_key(center.folder / "keys" / "timestamp.next.key")) not in center.trusted("timestamp")
    ):
        assert _interrupted(center, count, "timestamp")
        count += 1
    assert "interrupted" in key_status.examine(center.folder, now=NOW).problem
    trusted = center.trusted("timestamp")
    done = center.rotate("timestamp")
    assert (done.finished, done.new, center.trusted("timestamp")) == (["timestamp"], {}, trusted)
    assert key_status.examine(center.folder, now=NOW).well
    assert len(online_keys(center.folder)) == 4


def test_offline_signatures_are_renewed_in_time_and_the_doctor_asks_for_it(center, approver):
    soon = NOW + timedelta(days=310)
    with signing(center.folder) as repository:
        repository.refresh(now=soon)
    asked = key_status.examine(center.folder, now=soon)
    assert asked.problem.startswith("the signatures of root end on")
    assert "hanse-center keys renew" in asked.fix
    options = {"offline": [center.offline], "now": soon}
    assert rotation.renew(center.folder, **options).versions.keys() >= {"root", "targets"}
    asked = key_status.examine(center.folder, now=soon)
    assert asked.problem.startswith("the signatures of wide end on")
    assert "--approve-with" in asked.fix
    rotation.renew(center.folder, approvals=[approver], **options)
    assert key_status.examine(center.folder, now=soon).well
    later = key_status.examine(center.folder, now=soon + timedelta(days=5))
    assert later.problem.startswith("the signatures of timestamp end on")
    assert "hanse-center serve" in later.fix


def test_a_renewal_gives_another_year_under_the_same_keys(center):
    before, edge = center.trusted("root"), center.edge()
    edge.fetch("canary/1.json")
    with pytest.raises(BadInputError, match="root was signed by 0/2 keys"):
        rotation.renew(center.folder, offline=[], now=NOW)
    rotation.renew(center.folder, offline=[center.offline], now=NOW + timedelta(days=300))
    chain = open_repository(center.folder).chain
    assert {role: (chain.roles[role].signed.expires - NOW).days for role in ("root", "targets")} == {
        "root": 664,
        "targets": 664,
    }
    assert center.trusted("root") == before
    center.serve()
    center.release(1)
    assert edge.fetch("canary/1.json") == b"release 1"


def test_where_keys_lie_is_said(center):
    rows = {row.role: row for row in key_status.look(center.folder, offline=[center.offline])}
    assert list(rows) == ["root", "targets", "releases", "wide", "membership", "snapshot", "timestamp"]
    assert [path.name for path in rows["root"].keys.values()] == ["root-1.key", "root-2.key", "root-3.key"]
    assert (rows["root"].threshold, rows["root"].version) == (2, 1)
    away = {row.role: row for row in key_status.look(center.folder)}
    assert list(away["targets"].keys.values()) == [None]
    assert [path.name for path in away["wide"].keys.values()] == ["releases.key"]


def test_a_key_that_nobody_trusts_is_found(center):
    new_signing_key(center.folder / "keys" / "snapshot.key")
    found = key_status.examine(center.folder, now=NOW)
    assert "snapshot.key is not trusted" in found.problem


def test_signatures_of_keys_long_gone_do_not_pile_up(center):
    for _ in range(4):
        center.rotate("membership")
    assert len(open_repository(center.folder).chain.roles["membership"].signatures) == 2


def test_a_new_era_begins_with_a_new_releases_key_only(center):
    era = lambda: open_repository(center.folder).chain.targets.unrecognized_fields["x-hanse-era"]  # noqa: E731
    center.rotate("timestamp", "targets")
    assert era() == 1
    center.rotate("releases")
    assert era() == 2


def test_who_joins_after_a_rotation_pins_the_new_root_so_that_stolen_keys_do_not_reach_him_either(center):
    """A broker in the thief's hand can keep the newer roots from a newcomer, if he starts at an older one."""
    thief, before = Thief(center, "releases", "snapshot", "timestamp"), dict(center.mirror.files)
    token = Token.from_text(inviting.invite(center.folder, "visby", life=timedelta(hours=1), now=NOW))
    center.rotate("releases", "snapshot", "timestamp")
    later = Token.from_text(inviting.invite(center.folder, "riga", life=timedelta(hours=1), now=NOW))
    registry, repository = Registry(center.folder / "registry.db"), open_repository(center.folder)
    pinned = {t.site: repository.root(registry.pinned_root(secret_digest(t.bearer()))) for t in (token, later)}
    registry.close()
    assert [sha256(pinned[t.site]).digest() for t in (token, later)] == [token.root_sha256, later.root_sha256]

    center.mirror.files = {**before, "root.json": before["1.root.json"]}
    thief.forge("canary/9.json")
    assert Edge(center.folder / "early", center.mirror, pinned["visby"]).fetch("canary/9.json") == b"poison"
    with pytest.raises(UnsignedMetadataError):
        Edge(center.folder / "late", center.mirror, pinned["riga"]).fetch("canary/9.json")
