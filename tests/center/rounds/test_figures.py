"""Questions about releases as real secure sums over real artifacts and books; only the network is in one process."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from center import durable
from center.releases.export import export
from center.rounds import gathering
from center.rounds.figures import Figures
from center.settings import CenterSettings
from center.settings import PrivacySettings as PrivacyOfRounds
from edge.records.events import Event, EventType
from edge.records.store import Store
from edge.releases.catalogue import Catalogue
from edge.releases.evaluating import evaluate
from edge.releases.trial_record import Outcome, TrialRecord
from edge.rounds.figures import EvaluationLesson, HealthLesson
from edge.serving.release import Release
from edge.settings import PolicySettings
from protocol import content
from protocol.bundle import CARD, FileDigest
from protocol.card import BundleCard
from protocol.errors import TooFewSurvivorsError
from protocol.identity import FederationId
from protocol.lessons import EVALUATED, QUALITY
from protocol.models import weights as model_weights
from protocol.transport import Action

_spec = importlib.util.spec_from_file_location("town", Path(__file__).with_name("town.py"))
_town = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_town)
NAMES, ROUNDS, KilledError, Town = _town.NAMES, _town.ROUNDS, _town.KilledError, _town.Town

ITEMS = [f"i{row}" for row in range(1, 31)]
SHAPE = model_weights.SequenceConfig(items=len(ITEMS), embedding_size=16, history_length=5, layers=1, heads=1)
DAY_MS = 86_400_000
NOW_MS = 1_795_000_000_000


def write_bundle(folder, *, seed, version):
    """A bundle as the center exports it."""
    rng = np.random.default_rng(seed)
    popularity = np.append(0.0, rng.integers(1, 100, len(ITEMS)))
    weights = model_weights.initial(SHAPE, popularity=popularity, min_support=1, rng=rng)
    exported = export(weights, content.token_table((name, "own", "tea") for name in ITEMS), popularity)
    for path, data in exported.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    card = BundleCard(
        version=version,
        federation=FederationId("hanse"),
        created_ms=1,
        catalogue_version=1,
        catalogue_sha256="c" * 64,
        submodels={"recommend": {"history_length": 5, "embedding_size": 16, "items": len(ITEMS)}},
        files={path: FileDigest.of(data) for path, data in exported.files.items()},
    )
    (folder / CARD).write_bytes(card.to_bytes())
    return folder


def load(folder, version):
    blank = ("",) * (len(ITEMS) + 1)
    catalogue = Catalogue(
        version=1,
        sha256="c" * 64,
        row_of={name: row for row, name in enumerate(ITEMS, start=1)},
        names=("", *ITEMS),
        titles=blank,
        categories=blank,
        brands=blank,
        prices=np.full(len(ITEMS) + 1, np.nan, np.float32),
    )
    return Release.load(folder, catalogue, version=version, sha256="0" * 64)


class Places:
    """The edges' folders: candidates that have arrived, what serves, how trials went."""

    def __init__(self, town, folder):
        self.town, self.folder = town, folder
        self.candidate = write_bundle(folder / "candidate", seed=1, version=8)
        self.committed = write_bundle(folder / "committed", seed=2, version=7)
        self.arrived = dict.fromkeys(NAMES, True)
        self.records = dict.fromkeys(NAMES)
        self.measured = []
        for number, name in enumerate(NAMES):
            with self.store(name) as store:
                store.add_events(_events(np.random.default_rng(number)))
            town.lessons[name] |= {
                "evaluate": EvaluationLesson(
                    candidate=lambda version, name=name: self._candidate(version, name),
                    serving=lambda: lambda: load(self.committed, 7),
                    store=lambda name=name: self.store(name),
                ),
                "health": HealthLesson(record=lambda name=name: self.records[name]),
            }

    def store(self, name):
        return Store.open(self.folder / f"{name}.db")

    def _candidate(self, version, name):
        if version != 8 or not self.arrived[name]:
            return None

        def measure():
            self.measured.append(name)
            return load(self.candidate, 8)

        return measure

    def expected(self, names=NAMES):
        """The same sums, by nobody's grace but our own."""
        total = {name: np.zeros(len(QUALITY)) for name in EVALUATED}
        for name in names:
            with self.store(name) as store:
                for segment, sums in evaluate(store, load(self.candidate, 8), load(self.committed, 7), draw=8).items():
                    total[segment] += sums
        return total


def _events(rng):
    for number in range(200):
        day = int(rng.integers(60))
        yield Event(
            event_id=f"{number}",
            type=EventType.PURCHASE,
            user=f"u{rng.integers(20)}",
            item=f"i{31 - rng.integers(1, 31 - day // 3)}",
            time_ms=NOW_MS - day * DAY_MS,
        )


@pytest.fixture
def town(tmp_path, monkeypatch):
    monkeypatch.setattr(gathering, "_LOOK_SECONDS", 0)
    town = Town(tmp_path)
    yield town
    town.close()


@pytest.fixture
def places(town, tmp_path):
    return Places(town, tmp_path)


@pytest.fixture
def figures(town):
    return figures_of(town)


def figures_of(town, *, privacy=None):
    """What a new process of the center asks with."""
    return Figures(
        town.folder / "rollouts",
        federation=town.federation(),
        settings=CenterSettings(federation="hanse", rounds=ROUNDS, privacy=privacy or PrivacyOfRounds()),
    )


def rounds(town):
    return town.registry.rounds("release-8")


def test_the_gate_hears_what_all_sites_together_measured_with_the_served_artifact(town, places, figures) -> None:
    found = figures.ask_gate(8)
    expected = places.expected()
    for name, (events, *sums) in expected.items():
        quality = found.segments[name]
        assert quality.events == events > 0
        means = (quality.ndcg, quality.recall, quality.base_ndcg, quality.base_recall)
        assert means == pytest.approx([part / events for part in sums], abs=1e-3)
    assert found.segments["all"].ndcg != found.segments["all"].base_ndcg
    assert (found.sites, found.deviation) == (4, 0.0)
    assert [(row.purpose, row.outcome) for row in rounds(town)] == [("evaluate", "summed")]
    assert list((town.folder / "rollouts").rglob("*.round")) == []


def test_asked_again_the_center_reads_what_it_was_told(town, places, figures) -> None:
    assert figures.ask_gate(8) == figures_of(town).ask_gate(8)
    assert sorted(places.measured) == sorted(NAMES)


def test_a_candidate_that_has_not_reached_enough_sites_is_asked_for_again_later(town, places, figures) -> None:
    places.arrived |= {"riga": False, "visby": False}
    with pytest.raises(TooFewSurvivorsError):
        figures.ask_gate(8)
    assert "riga: candidate 8 has not arrived here yet" in rounds(town)[0].outcome
    places.arrived |= {"riga": True, "visby": True}
    found = figures.ask_gate(8)
    expected = places.expected(rounds(town)[-1].cohort)
    assert found.segments["all"].events == expected["all"][0]


def test_one_site_without_the_candidate_does_not_hold_the_others_up(town, places, figures) -> None:
    places.arrived["riga"] = False
    assert figures.ask_gate(8).sites == 3
    assert [row.outcome for row in rounds(town)] == ["summed"]


def test_killed_before_the_figures_are_on_disk_it_asks_for_the_same_sum_again(town, places, monkeypatch) -> None:
    write = durable.write

    def die(path, data, **options):
        if path.name == "gate-figures.json":
            raise KilledError
        write(path, data, **options)

    monkeypatch.setattr(durable, "write", die)
    with pytest.raises(KilledError):
        figures_of(town).ask_gate(8)
    monkeypatch.setattr(durable, "write", write)
    found = figures_of(town).ask_gate(8)
    assert found.segments["all"].events == places.expected()["all"][0]
    assert [row.outcome for row in rounds(town)] == ["summed"]


def test_under_differential_privacy_the_figures_say_how_noisy_they_are(town, places) -> None:
    town.policies = dict.fromkeys(NAMES, PolicySettings(min_cohort=3, max_colluders=0, require_noise=True))
    found = figures_of(town, privacy=PrivacyOfRounds(noise_multiplier=0.5, colluders=0)).ask_gate(8)
    events = places.expected()["all"][0]
    assert 1 < found.deviation < 4
    assert 0 < abs(found.segments["all"].events - events) < 6 * found.deviation
    assert found.segments["new_items"].events < 6 * found.deviation


def record(outcome=Outcome.KEPT, **changes):
    plain = TrialRecord(
        version=8,
        sha256="0" * 64,
        outcome=outcome,
        answers=100,
        errors=1,
        slow=2,
        overlap=0.5,
        queries=10,
        ndcg_new=0.2,
        ndcg_old=0.4,
        events=50,
    )
    return replace(plain, **changes)


RING = NAMES[:3]


def test_the_health_of_a_ring_is_the_sum_of_its_sites_and_of_no_other(town, places, figures) -> None:
    places.records = dict(zip(NAMES, (record(), record(Outcome.WENT_BACK, ndcg_new=0.0), None, record()), strict=True))
    found = figures.ask_health(8, RING, attempt=1)
    assert (found.sites, found.reached, found.kept, found.went_back) == (3, 2, 1, 1)
    assert (found.answers, found.errors, found.slow, found.events) == (200, 2, 4, 100)
    assert (found.overlap, found.ndcg_new, found.ndcg_old) == pytest.approx((0.5, 10.0, 40.0), abs=1e-3)
    assert [row.cohort for row in rounds(town)] == [RING]


def test_a_site_whose_trial_ends_later_adds_its_figures_and_the_others_do_not_tell_theirs_again(
    town, places, figures
) -> None:
    places.records = dict(zip(RING, (record(), record(Outcome.ON_TRIAL), record()), strict=True))
    first = figures.ask_health(8, RING, attempt=1)
    assert (first.reached, first.kept, first.answers) == (3, 2, 200)
    places.records["bruges"] = record(Outcome.WENT_BACK, errors=90)
    second = figures_of(town).ask_health(8, RING, attempt=2)
    assert (second.reached, second.kept, second.went_back) == (3, 2, 1)
    assert (second.answers, second.errors, second.events) == (300, 92, 150)
    told = [row.figures for row in rounds(town)]
    assert [row["kept"] for row in told] == [2, 2]
    assert figures_of(town).ask_health(8, RING, attempt=1) == first


def test_a_ring_of_which_too_few_are_there_is_not_waited_for(town, places, figures) -> None:
    town.shops["riga"].away = town.shops["visby"].away = True
    places.records = dict.fromkeys(NAMES, record())
    with pytest.raises(TooFewSurvivorsError, match="2 of 3 edges are online, 3 are needed"):
        figures.ask_health(8, ("bergen", "bruges", "riga"), attempt=1)
    town.shops["riga"].away = False
    assert figures.ask_health(8, ("bergen", "bruges", "riga"), attempt=1).kept == 3


def test_health_that_was_opened_in_vain_is_asked_in_another_window(town, places, figures) -> None:
    """One of three has unmasked and the others never will: under that window nobody can answer again."""
    places.records = dict.fromkeys(NAMES, record())
    town.transport.swallows = {("bruges", Action.UNMASK), ("riga", Action.UNMASK)}
    with pytest.raises(TooFewSurvivorsError):
        figures.ask_health(8, RING, attempt=1)
    town.transport.swallows = set()
    found = figures_of(town).ask_health(8, RING, attempt=1)
    assert (found.reached, found.kept) == (3, 3)


def test_two_sites_are_never_asked_for_a_sum_of_their_own(town, figures) -> None:
    with pytest.raises(TooFewSurvivorsError):
        figures.ask_health(8, NAMES[:2], attempt=1)
    assert not any(action == Action.MASKED_UPDATE for _, action in town.transport.sent)


def test_rollout_and_campaign_take_turns_and_share_one_key_epoch(town, places) -> None:
    places.records = dict.fromkeys(NAMES, record())
    federation = town.federation()
    asking = Figures(
        town.folder / "rollouts", federation=federation, settings=CenterSettings(federation="hanse", rounds=ROUNDS)
    )
    attempts = iter(range(1, 9))
    told = []
    town.run(federation=federation, between=lambda: told.append(asking.ask_health(8, RING, attempt=next(attempts))))
    assert [one.kept for one in told] == [3, 3, 3]
    assert town.steps() == [1, 2, 3]
    assert {row.outcome for row in (*town.rounds(), *rounds(town))} == {"summed"}
    assert town.transport.sent.count(("bergen", Action.PREKEY)) == 1
