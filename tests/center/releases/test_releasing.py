"""From a folder to the rings, by orders alone: a real repository, a real broker, no center that serves."""

import signal
import subprocess
import sys
from contextlib import closing

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from center.cli import main
from center.founding import open_repository
from center.mqtt.broker import mosquitto_path
from center.registry import Registry
from center.releases import releasing
from center.releases.health import Health
from center.releases.orders import Orders
from center.releases.rollout import Due, State
from center.releases.rollouts import moving
from center.releases.staging import ApprovalNeededError
from center.signing import rotation
from center.sites import membership
from protocol.audit import check_chain
from protocol.errors import BadInputError
from protocol.identity import EdgeId
from protocol.release import Pace, is_target, offered_to

GOOD, BETTER, BAD = b"a good model", b"a better model", b"a bad model"
SITES = tuple(EdgeId(f"site-{number}") for number in range(8))
CANARIES, EARLY = SITES[:3], SITES[3:5]


@pytest.fixture(autouse=True)
def _log_of_its_own():
    yield
    structlog.reset_defaults()  # a command logs to the standard error of its test


@pytest.fixture
def broker_kind():
    return "mosquitto" if mosquitto_path() else "embedded"


class Office:
    """A center's folder and its books; every order is given anew, as by a command."""

    def __init__(self, town):
        self.town = town
        self.registry = Registry(town.folder / "registry.db")
        self.orders = Orders(directory=town.folder, settings=town.settings, registry=self.registry)

    def propose(self, model, *, waived="a test"):
        folder = self.town.build({"recommend/model.onnx": model})
        return releasing.propose(
            int(folder.name.partition("-")[2]),
            folder,
            directory=self.town.folder,
            settings=self.town.settings,
            registry=self.registry,
            figures={"campaign": "spring", "rounds": 3},
            evaluation={"ndcg": 0.5},
            waived=waived,
        )["version"]

    def go_on(self):
        """The stage that is open does well; the next one is signed."""
        orders = self.orders
        with self.town.connected() as voice, moving(self.town.folder):
            was = orders.rollouts.active()
            if was.due(now_ms=orders.now_ms(), terms=self.town.settings.rollout) is not Due.SIGN:
                sites = was.reached.sites
                now = was.judged(
                    Health(sites=sites, kept=sites, went_back=0), now_ms=orders.now_ms(), terms=orders.settings.rollout
                )
                orders.rollouts.save(now, was=was)
                was = now
            return orders.carry_out(was, voice) if was.active else was

    def release(self, model):
        """All the way."""
        version = self.propose(model)
        while self.orders.rollouts.get(version).active:
            self.go_on()
        return version

    def taken(self, site):
        """Which model a site would serve that starts now: (number, model)."""
        repository = open_repository(self.town.folder)
        policy = membership.rings_in_force(self.town.folder, self.town.settings)
        reach = {
            pace.version: pace.reach
            for name, file in repository.listed().items()
            if is_target(name) and name.startswith("pace/")
            for pace in [Pace.from_custom(name, file.custom)]
        }
        offer = offered_to(repository.offers().values(), ring=policy.ring_of(site), edge=site, reach=reach)
        if offer is None:
            return None
        return offer.version, self.town.read_as(site)[offer.target]["recommend/model.onnx"]

    def listed(self):
        names = open_repository(self.town.folder).listed()
        return sorted(name for name in names if not name.startswith(("roster", "policy")))


@pytest.fixture
def office(town):
    town.set("rollout", bake_seconds=0)
    town.admit(*SITES)
    membership.choose_rings(town.folder, town.settings, canary=CANARIES, early=EARLY, now=town.now)
    office = Office(town)
    with closing(office.registry):
        yield office


def test_a_candidate_is_offered_to_nobody_and_read_by_everybody(office) -> None:
    assert office.propose(GOOD, waived="") == 1
    assert office.listed() == ["candidate/1.json"]
    assert office.orders.rollouts.active().state is State.GATING
    assert {office.taken(site) for site in SITES} == {None}
    assert office.town.read_as(SITES[0])["candidate/1.json"]["recommend/model.onnx"] == GOOD


def test_each_ring_in_turn(office) -> None:
    office.release(GOOD)
    office.propose(BETTER)
    assert office.listed() == ["all/1.json", "canary/1.json", "canary/2.json", "early/1.json", "pace/1.json"]
    assert [office.taken(site) for site in (CANARIES[0], EARLY[0], SITES[-1])] == [(2, BETTER), (1, GOOD), (1, GOOD)]
    office.go_on()
    assert [office.taken(site) for site in (CANARIES[0], EARLY[0], SITES[-1])] == [(2, BETTER), (2, BETTER), (1, GOOD)]
    office.go_on()
    assert {office.taken(site) for site in SITES} == {(2, BETTER)}
    assert office.go_on().state is State.FINISHED


def test_a_release_that_does_badly_is_replaced_at_its_ring_by_the_older_files(office) -> None:
    office.release(GOOD)
    office.propose(BAD)
    orders = office.orders
    with office.town.connected() as voice, moving(office.town.folder):
        was = orders.rollouts.active()
        bad = was.judged(Health(sites=3, kept=0, went_back=3), now_ms=1, terms=orders.settings.rollout)
        orders.rollouts.save(bad, was=was)
        done = orders.carry_out(bad, voice)
    assert (done.state, done.successor, done.active) == (State.REVERTED, 3, False)
    assert [office.taken(site) for site in (CANARIES[0], EARLY[0], SITES[-1])] == [(3, GOOD), (1, GOOD), (1, GOOD)]
    offers = open_repository(office.town.folder).offers()
    assert offers["canary/3.json"].sha256 == offers["all/1.json"].sha256
    assert office.propose(BETTER) == 4
    assert office.orders.rollouts.active().previous == 1


def test_one_release_at_a_time(office) -> None:
    office.propose(GOOD)
    with pytest.raises(BadInputError, match="release 1 is running"):
        office.propose(BETTER)
    assert office.listed() == ["canary/1.json"]


def test_a_rollback_takes_everybody_back_at_once(office, capsys) -> None:
    office.release(GOOD)
    office.release(BETTER)
    assert main(["rollback", "--dir", str(office.town.folder), "--json"]) == 0
    assert '"successor": 3' in capsys.readouterr().out
    assert {office.taken(site) for site in SITES} == {(3, GOOD)}
    assert main(["rollback", "--dir", str(office.town.folder)]) == 1  # release 1 was the first
    assert "is the first one" in capsys.readouterr().err


def test_a_rollback_goes_to_any_older_release(office) -> None:
    for model in (GOOD, BETTER, BAD):
        office.release(model)
    with office.town.connected() as voice:
        assert office.orders.roll_back(lambda: voice, to=1).successor == 4
        assert office.taken(SITES[-1]) == (4, GOOD)
        with pytest.raises(BadInputError, match="no release 9 before"):
            office.orders.roll_back(lambda: voice, to=9)


def test_a_rollback_of_a_running_release_reaches_as_far_as_it_did(office) -> None:
    office.release(GOOD)
    office.propose(BAD)
    office.go_on()
    with office.town.connected() as voice:
        assert office.orders.roll_back(lambda: voice).successor == 3
    assert "early/3.json" in office.listed()
    assert {office.taken(site) for site in SITES} == {(3, GOOD), (1, GOOD)}
    assert [office.taken(site)[0] for site in SITES] == [3] * 5 + [1] * 3


def test_a_rollback_ends_the_candidate_that_would_come_next(office) -> None:
    office.release(GOOD)
    office.release(BAD)
    office.propose(BETTER, waived="")
    with office.town.connected() as voice:
        assert office.orders.roll_back(lambda: voice).successor == 4
    assert office.orders.rollouts.get(3).state is State.ABORTED
    assert {office.taken(site) for site in SITES} == {(4, GOOD)}


def test_files_that_are_no_longer_listed_are_published_again_from_their_folder(office) -> None:
    office.release(GOOD)
    office.release(BETTER)
    repository = open_repository(office.town.folder)
    for name in ("all/1.json", "early/1.json", "canary/1.json", "pace/1.json"):
        repository.remove_target(name)
    repository.publish_version(now=office.town.now)
    with office.town.connected() as voice:
        assert office.orders.roll_back(lambda: voice).successor == 3
    assert office.taken(SITES[-1]) == (3, GOOD)


def test_the_first_release_can_only_be_withdrawn(office) -> None:
    office.propose(BAD)
    with office.town.connected() as voice:
        done = office.orders.abort(lambda: voice)
    assert (done.state, done.successor, done.active) == (State.ABORTED, 0, False)
    assert office.listed() == []
    assert office.propose(GOOD) == 2  # a number is never used twice


def test_an_aborted_candidate_leaves_the_list(office) -> None:
    office.propose(BAD, waived="")
    with office.town.connected() as voice:
        office.orders.abort(lambda: voice)
    assert (office.listed(), office.orders.rollouts.active()) == ([], None)


def test_what_was_paused_goes_on_where_it_was(office) -> None:
    office.propose(GOOD)
    assert office.orders.pause().state is State.PAUSED
    with pytest.raises(BadInputError, match="is paused"):
        office.orders.pause()
    assert office.orders.resume().due(now_ms=10**15, terms=office.town.settings.rollout) is Due.HEALTH


@pytest.fixture
def approver(office):
    """The key of a person who must approve what leaves the canary ring."""
    key = Ed25519PrivateKey.generate()
    folder = office.town.folder
    rotation.add_approver(
        folder, key.public_key(), offline=[folder / "offline"], approving=[key], approvals=1, now=office.town.now
    )
    return key


def test_what_leaves_the_canary_ring_waits_for_a_second_key(office, approver, tmp_path, capsys) -> None:
    office.propose(GOOD)  # the canary ring takes no approval
    with pytest.raises(ApprovalNeededError):
        office.go_on()
    waiting = office.orders.rollouts.active()
    assert (waiting.state, office.listed()) == (State.WAITING, ["canary/1.json"])
    stranger, path = tmp_path / "stranger.pem", tmp_path / "approver.pem"
    for file, key in ((stranger, Ed25519PrivateKey.generate()), (path, approver)):
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    words = ["--dir", str(office.town.folder)]
    assert main(["rollout", "approve", "--key", str(stranger), *words]) == 1
    assert "approves nothing here" in capsys.readouterr().err
    assert office.orders.rollouts.active().state is State.WAITING
    assert main(["rollout", "approve", "--key", str(path), *words]) == 0
    assert office.orders.rollouts.active().state is State.RUNNING
    assert office.listed() == ["canary/1.json", "early/1.json"]


@pytest.mark.usefixtures("approver")
def test_an_abort_before_approval_takes_back_only_what_was_reached(office) -> None:
    office.propose(GOOD)
    with pytest.raises(ApprovalNeededError):
        office.go_on()
    with office.town.connected() as voice:
        done = office.orders.abort(lambda: voice)
    assert (done.reached.place.value, done.active, office.listed()) == ("canary", False, [])


def test_without_approval_the_way_back_waits_but_nobody_more_takes_the_release(office, approver) -> None:
    def everybody_approves(step):
        with pytest.raises(ApprovalNeededError):
            step()
        with office.town.connected() as voice:
            return office.orders.approve([approver], lambda: voice)

    office.propose(GOOD)
    everybody_approves(office.go_on)
    everybody_approves(office.go_on)
    assert office.go_on().state is State.FINISHED
    office.propose(BAD)
    everybody_approves(office.go_on)
    everybody_approves(office.go_on)
    assert office.taken(SITES[-1]) == (2, BAD)
    with office.town.connected() as voice, pytest.raises(ApprovalNeededError):
        office.orders.roll_back(lambda: voice)
    assert office.orders.rollouts.active().goes_back
    assert office.taken(SITES[-1]) == (1, GOOD)  # one that has not taken it yet
    with office.town.connected() as voice:
        assert office.orders.approve([approver], lambda: voice).successor == 3
    assert {office.taken(site) for site in SITES} == {(3, GOOD)}


_DYING = """
import os, signal, sys
from contextlib import closing, contextmanager
from pathlib import Path
from center import durable, settings
from center.mqtt import road
from center.mqtt.connection import Connection
from center.keys import CenterKeys
from center.releases.orders import Orders
from center.registry import Registry
from center.releases.rollouts import moving

left = int(sys.argv[2])

def count():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def watched(owner, name):
    inner = getattr(owner, name)
    def call(*args, **options):
        count()
        done = inner(*args, **options)
        count()
        return done
    setattr(owner, name, call)

inner = Registry.transaction

@contextmanager
def transaction(self):
    count()
    with inner(self) as db:
        yield db
        count()
    count()

watched(durable, "write")
watched(Connection, "deliver")
Registry.transaction = transaction
folder = Path(sys.argv[1])
loaded = settings.load(folder)
with closing(Registry(folder / "registry.db")) as registry:
    orders = Orders(directory=folder, settings=loaded, registry=registry)
    with road.connected(folder, loaded, CenterKeys.load(folder)) as voice:
        active = orders.rollouts.active()
        if active is not None:  # as `serve` does it
            with moving(folder):
                orders.carry_out(active, voice)
        elif orders.rollouts.newest_finished().version == 2:
            orders.roll_back(lambda: voice)
"""


def dies(town, step):
    """Does a rollback die before it is done, if it is killed at this step?"""
    words = [sys.executable, "-c", _DYING, str(town.folder), str(step)]
    code = subprocess.run(words, check=False, timeout=60).returncode
    assert code in {0, -signal.SIGKILL}
    return code != 0


def test_killed_anywhere_a_rollback_is_carried_out_once(office) -> None:
    office.release(GOOD)
    office.release(BAD)
    deaths, numbers = 0, set()
    for step in (*range(1, 24, 2), 10**9):
        if not dies(office.town, step):
            break
        deaths += 1
        numbers |= {offer.version for offer in open_repository(office.town.folder).offers().values()}
        check_chain(office.registry.audit_log())
    assert deaths > 5
    assert numbers == {1, 2, 3}
    back = office.orders.rollouts.get(2)
    assert (back.state, back.successor, back.active) == (State.REVERTED, 3, False)
    assert {office.taken(site) for site in SITES} == {(3, GOOD)}


def test_the_log_tells_it_all_and_each_offer_names_its_head(office) -> None:
    office.release(GOOD)
    entries = office.registry.audit_log()
    check_chain(entries)
    digests = {entry.digest for entry in entries}
    assert all(offer.audit in digests for offer in open_repository(office.town.folder).offers().values())
    kinds = [entry.kind for entry in entries if entry.facts.get("release") == 1]
    assert kinds == [
        "candidate",
        "gate waived",
        *["stage signed", "health good", "stage due"] * 2,
        *["stage signed", "health good", "finished"],
    ]
