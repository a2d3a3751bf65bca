"""The driver in `serve`: real books, repository and broker; only what the sites say is scripted."""

import itertools
from contextlib import closing
from dataclasses import replace

import pytest
import structlog

from center.cli import main
from center.cli_rollout import wait_for_end
from center.founding import open_repository
from center.mqtt.broker import mosquitto_path
from center.registry import Registry
from center.releases import releasing
from center.releases.gate import GateFigures, Quality
from center.releases.orders import Orders
from center.releases.rolling import Around, Rolling
from center.releases.rollout import State
from center.rounds.figures import HealthFigures
from center.service_lock import alone
from center.sites import membership, rings
from protocol.errors import BadInputError, FederationError, TooFewSurvivorsError, UnavailableError
from protocol.identity import EdgeId, FederationId
from protocol.lessons import EVALUATED
from protocol.release import Kind

GOOD, BETTER = b"a good model", b"a better model"
SITES = tuple(EdgeId(f"site-{number}") for number in range(8))
CANARIES = SITES[:3]
BAKE_MS = 60_000
HOUR_MS = 3_600_000


def quality(ndcg):
    one = Quality(events=1000.0, ndcg=ndcg, recall=0.2, base_ndcg=0.1, base_recall=0.2)
    return GateFigures(segments=dict.fromkeys(EVALUATED, one), sites=8)


def health(edges, **changes):
    figures = HealthFigures(
        sites=len(edges),
        reached=len(edges),
        kept=len(edges),
        went_back=0,
        answers=500,
        errors=1,
        slow=0,
        queries=50,
        overlap=0.8,
        events=1000,
        ndcg_new=100.0,
        ndcg_old=100.0,
    )
    return replace(figures, **changes)


class Sites:
    """What the sites would answer, and what they say that they run."""

    def __init__(self):
        self.ndcg, self.changes, self.trouble = 0.1, {}, None
        self.asked = []
        self.statuses = {site: {"online": True, "release": 0, "candidate": 0, "went_back": 0} for site in SITES}

    def ask_gate(self, version):
        self.asked.append(("gate", version))
        if self.trouble:
            raise self.trouble
        return quality(self.ndcg)

    def ask_health(self, version, edges, *, attempt):
        self.asked.append(("health", version, tuple(edges), attempt))
        if self.trouble:
            raise self.trouble
        return health(edges, **self.changes)

    def hold(self, version, sites=SITES):
        for site in sites:
            self.statuses[site]["candidate"] = version

    def run(self, version, sites=SITES):
        for site in sites:
            self.statuses[site]["release"] = version


class Office:
    def __init__(self, town, voice):
        self.town, self.voice = town, voice
        self.registry = Registry(town.folder / "registry.db")
        self.clock = itertools.count()
        self.now = 1_000_000
        self.sites = Sites()
        self.orders = Orders(
            directory=town.folder, settings=town.settings, registry=self.registry, now_ms=lambda: self.now
        )
        self.restart()

    def restart(self):
        """A new process on the same disk."""
        around = Around(
            orders=self.orders,
            settings=self.town.settings,
            voice=self.voice,
            questions=self.sites,
            rings=lambda: rings.members_by_ring(*self._membership()),
            statuses=lambda: self.sites.statuses,
            now_ms=lambda: self.now,
        )
        self.rolling = Rolling(around, clock=lambda: 10.0 * next(self.clock))

    def _membership(self):
        from center.keys import CenterKeys
        from center.sites import admission

        options = {"federation": FederationId("hanse"), "keys": CenterKeys.load(self.town.folder)}
        return rings.read_rings(self.town.folder, **options), admission.read_roster(self.town.folder, **options)

    def propose(self, model, waived=""):
        folder = self.town.build({"recommend/model.onnx": model})
        return releasing.propose(
            open_repository(self.town.folder).next_version(Kind.BUNDLE),
            folder,
            directory=self.town.folder,
            settings=self.town.settings,
            registry=self.registry,
            figures={"campaign": "spring", "rounds": 3},
            evaluation={},
            waived=waived,
        )["version"]

    @property
    def newest(self):
        return self.orders.rollouts.newest()

    def step(self, times=1):
        for _ in range(times):
            self.rolling.step()
        return self.newest

    def listed(self):
        names = open_repository(self.town.folder).listed()
        return sorted(name for name in names if not name.startswith(("roster", "policy")))


@pytest.fixture(autouse=True)
def _log_of_its_own():
    yield
    structlog.reset_defaults()


@pytest.fixture
def broker_kind():
    return "mosquitto" if mosquitto_path() else "embedded"


@pytest.fixture
def office(town):
    town.set("rollout", bake_seconds=60, patience_hours=1)
    town.set("rounds", min_cohort=3)
    town.admit(*SITES)
    membership.choose_rings(town.folder, town.settings, canary=CANARIES, early=[], now=town.now)
    with town.connected() as voice:
        office = Office(town, voice)
        with closing(office.registry):
            yield office


def began(office):
    """A candidate that was written down with the driver's clock."""
    version = office.propose(GOOD)
    office.now = office.newest.since_ms
    office.sites.hold(version)
    return version


def test_a_good_release_goes_its_whole_way_by_itself(office) -> None:
    assert began(office) == 1
    office.now += 1
    assert office.step().state is State.RUNNING
    assert office.step().signed
    assert office.listed() == ["canary/1.json"]
    assert len(office.sites.asked) == 1
    office.now += BAKE_MS
    office.step()
    assert office.sites.asked[1:] == []  # nobody says yet that it runs there
    office.sites.run(1, CANARIES)
    office.step(2)
    assert office.listed() == ["all/1.json", "canary/1.json", "pace/1.json"]
    office.sites.run(1)
    office.now += BAKE_MS
    assert office.step().state is State.FINISHED
    assert office.sites.asked == [
        ("gate", 1),
        ("health", 1, CANARIES, 1),
        ("health", 1, SITES[3:], 2),
    ]
    assert office.orders.rollouts.in_force().version == 1


def test_a_candidate_that_measures_worse_is_offered_to_nobody(office) -> None:
    office.sites.ndcg = 0.05
    began(office)
    done = office.step(3)
    assert done.state is State.REFUSED
    assert "NDCG@10 of all users falls from 0.1000 to 0.0500" in done.why
    assert office.listed() == []


def test_nobody_is_asked_before_enough_hold_the_candidate(office) -> None:
    began(office)
    office.sites.hold(0, SITES[3:])
    office.now += HOUR_MS // 2
    assert office.step().why == "3 of 8 sites hold the candidate, 4 are needed"
    office.now += HOUR_MS
    paused = office.step()
    assert (paused.state, office.sites.asked) == (State.PAUSED, [])
    assert "in 1 hours: 3 of 8" in paused.why
    office.orders.resume()
    office.sites.hold(1)
    assert office.step().state is State.RUNNING


def test_a_bad_release_stops_at_the_canaries_and_goes_back_by_itself(office) -> None:
    office.propose(GOOD, waived="a test")
    office.now = office.newest.since_ms + 1
    for _ in range(2):
        office.sites.run(1)
        office.now += BAKE_MS
        office.step(2)
    assert office.newest.state is State.FINISHED
    office.propose(BETTER, waived="a test")
    office.now = office.newest.since_ms + BAKE_MS
    for site in CANARIES:
        office.sites.statuses[site]["went_back"] = 2
    office.sites.changes = {"kept": 0, "went_back": 3}
    assert office.step().state is State.REVERTED
    office.step()
    reverted = office.orders.rollouts.get(2)
    assert (reverted.state, reverted.successor, reverted.active) == (State.REVERTED, 3, False)
    offers = open_repository(office.town.folder).offers()
    assert offers["canary/3.json"].sha256 == offers["all/1.json"].sha256
    assert "all/2.json" not in offers


def test_a_release_that_measures_worse_at_the_canaries_goes_back(office) -> None:
    office.propose(GOOD, waived="a test")
    office.sites.run(1)
    office.now = office.newest.since_ms + BAKE_MS
    office.sites.changes = {"ndcg_new": 80.0}
    assert office.step().why == "NDCG@10 fell from 0.1000 to 0.0800 on 1000 events"
    office.step()
    assert (office.newest.state, office.newest.active, office.listed()) == (State.REVERTED, False, [])


def test_a_canary_ring_too_small_for_a_sum_is_judged_by_who_keeps_the_release(office) -> None:
    membership.choose_rings(
        office.town.folder, office.town.settings, canary=CANARIES[:1], early=[], now=office.town.now
    )
    office.propose(GOOD, waived="a test")
    office.now = office.newest.since_ms + BAKE_MS
    assert office.step().stage == 0
    office.sites.run(1, CANARIES[:1])
    assert office.step().stage == 1
    assert office.sites.asked == []


def test_a_question_that_was_not_answered_is_asked_again_under_the_same_name(office) -> None:
    office.propose(GOOD, waived="a test")
    office.sites.run(1)
    office.now = office.newest.since_ms + BAKE_MS
    office.sites.trouble = TooFewSurvivorsError("2 of 3 edges are online")
    assert office.step().why == "2 of 3 edges are online"
    office.sites.trouble = UnavailableError("SuperLink does not answer")
    assert office.step().stage == 0
    office.sites.trouble = None
    assert office.step().stage == 1
    assert [asked[-1] for asked in office.sites.asked] == [1, 1, 1]


def test_what_a_crash_left_unsigned_is_signed_by_the_next_process(office) -> None:
    began(office)
    assert not office.step().signed  # the intention is on disk, and the center is killed
    office.restart()
    office.step()
    assert office.listed() == ["canary/1.json"]


def test_what_a_crash_left_unsaid_is_signed_only_once(office) -> None:
    began(office)
    was = office.step()
    office.step()
    with office.registry.transaction() as db:  # as if the last transaction had been lost
        db.execute("DELETE FROM steps WHERE place >= ?", (len(was.history),))
    office.orders.rollouts.save(was, was=replace(office.newest, history=was.history))
    numbers = open_repository(office.town.folder).chain.delegated("releases").version
    assert office.step().signed
    assert open_repository(office.town.folder).chain.delegated("releases").version == numbers


def test_an_order_that_came_first_counts(office) -> None:
    began(office)

    def paused_meanwhile(_version):
        office.orders.pause()
        return quality(0.1)

    office.sites.ask_gate = paused_meanwhile
    assert office.step(3).state is State.PAUSED
    assert office.listed() == ["candidate/1.json"]


def test_a_broker_that_is_away_delays_and_loses_nothing(office) -> None:
    began(office)
    office.step()

    class Away:
        def publish_metadata(self, _published):
            raise UnavailableError("the broker does not answer")

    around = office.rolling._around
    office.rolling = Rolling(replace(around, voice=Away()), clock=lambda: 10.0 * next(office.clock))
    assert not office.step().signed
    office.restart()
    assert office.step().signed


def test_whoever_waits_for_the_end_is_told_how_it_came(office) -> None:
    said = []
    began(office)
    with pytest.raises(BadInputError, match="no center serves"):
        wait_for_end(office.town.folder, 1, say=said.append)
    office.sites.ndcg = 0.05
    with alone(office.town.folder):
        office.step()
        with pytest.raises(FederationError, match="release 1 is refused: NDCG@10 of all users falls"):
            wait_for_end(office.town.folder, 1, say=said.append)


def test_the_commands_show_and_move_it(office, capsys) -> None:
    words = ["--dir", str(office.town.folder)]
    assert main(["rollout", "status", *words]) == 0
    assert "Nothing has been released yet" in capsys.readouterr().out
    assert main(["rollout", "pause", *words]) == 1
    assert "no release is on its way" in capsys.readouterr().err
    office.propose(GOOD, waived="a test")
    for word, state in (("pause", "paused"), ("resume", "running"), ("abort", "aborted")):
        assert main(["rollout", word, *words]) == 0
        assert f"Release 1 is {state}" in capsys.readouterr().out
    assert main(["rollout", "status", *words]) == 0
    out = capsys.readouterr().out
    assert "is aborted at ring canary: aborted by hand" in out
    assert "gate waived reason a test" in out
    assert main(["rollout", "status", "--all", "--json", *words]) == 0
    assert '"state": "aborted"' in capsys.readouterr().out
