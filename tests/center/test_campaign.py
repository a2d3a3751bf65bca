"""A campaign over the real state machines and the real edges' part in them; only the network stands in one process."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from center import campaign as campaigns
from center import durable
from center.averaging import ServerState
from center.campaign import Folder, StoppedError, Surroundings, run_campaign
from center.registry import Registry
from center.settings import ModelSettings, RoundSettings
from center.transport import GridTransport
from edge.flower_node import build_client_app
from edge.keys import Keys
from edge.ledger import Ledger
from edge.participation import Participation
from edge.settings import PolicySettings
from protocol import lessons
from protocol.errors import BadInputError, PeerMisbehavedError, TooFewSurvivorsError, UnavailableError
from protocol.identity import EdgeId, FederationId, Roster
from protocol.models import weights as model_weights
from simulation.network import InProcessGrid, Site

CENTER = Ed25519PrivateKey.from_private_bytes(b"c" * 32)
NAMES = tuple(EdgeId(name) for name in ("bergen", "bruges", "riga", "visby"))
ITEMS = 3
SHAPE = model_weights.SequenceConfig(items=ITEMS, embedding_size=2, history_length=2, layers=1, heads=1)
ROUNDS = RoundSettings(deadline_seconds=1000, gather_seconds=5, min_cohort=3, clip=10.0)


class KilledError(BaseException):
    """The process ends here: nothing catches it, nothing is tidied up."""


class Shop:
    """What one site says: every item bought once, and a step of one in each parameter."""

    def __init__(self):
        self.away = False
        self.refusal = None
        self.weight = 1.0
        self.trained_from = []

    def layout(self, announcement, weights):
        if self.refusal:
            raise PeerMisbehavedError(self.refusal)
        if weights:
            return lessons.training_layout(model_weights.parameters(weights), clip=announcement.clip)
        return lessons.popularity_layout(ITEMS)

    def values(self, _announcement, weights):
        if not weights:
            return {"counts": np.ones(ITEMS + 1, np.float32), "weight": 1.0}
        self.trained_from.append(weights)
        step = np.full(model_weights.parameters(weights), self.weight, np.float32)
        share = {name: self.weight * value for name, value in (("loss", 2.0), ("ndcg", 0.5), ("recall", 0.25))}
        return {"update": step, "weight": self.weight, **share}


class Town:
    """A center's folder and four edges; `center()` is a new process on the same disk."""

    def __init__(self, folder):
        self.folder = folder
        self.clock = itertools.count(1_700_000_000_000, 100)
        self.keys = {name: Keys.generate() for name in NAMES}
        self.shops = {name: Shop() for name in NAMES}
        self.policies = dict.fromkeys(NAMES, PolicySettings(min_cohort=3))
        self.center_roster = self.edge_roster = self.roster_of(1, NAMES)
        self.wakes = []
        self.stopped = False
        self.ledgers = {name: Ledger(folder / f"{name}.db") for name in NAMES}
        self.registry = Registry(folder / "registry.db")
        self.registry.ask_campaign("spring", submodel="recommend", rounds=3, now_ms=1)
        self.transport = self._transport()

    def roster_of(self, version, names):
        return Roster.of(FederationId("hanse"), version, [self.keys[name].member(name) for name in names])

    def _participation(self, name):
        return Participation(
            me=name,
            keys=self.keys[name],
            center=CENTER.public_key(),
            roster=lambda: self.edge_roster,
            policy=self.policies[name],
            ledger=self.ledgers[name],
            lessons=dict.fromkeys(("popularity", "train"), self.shops[name]),
            now_ms=lambda: 1_700_000_000_000,
        )

    def _answer(self, name, request):
        return self._participation(name).answer(request)

    def _transport(self):
        sites = {}
        for name in NAMES:
            der = self.keys[name].node.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            app = build_client_app(lambda request, name=name: self._answer(name, request))
            sites[name] = Site(key=der, app=app)
        return Line(GridTransport(InProcessGrid(sites), edges={n: s.key for n, s in sites.items()}, poll=0), self)

    def center(self, **changes):
        around = Surroundings(
            roster=lambda: self.center_roster,
            center_epoch=1,
            center_key=CENTER,
            transport=self.transport,
            registry=self.registry,
            catalogue_version=1,
            items=ITEMS,
            initial=lambda counts: model_weights.initial(
                SHAPE, popularity=counts, min_support=1, rng=np.random.default_rng(7)
            ).to_bytes(),
            wake=lambda campaign, until_ms: self.wakes.append((campaign, until_ms)),
            stopped=lambda: self.stopped,
            now_ms=lambda: next(self.clock),
        )
        return replace(around, **changes)

    def run(self, *, rounds=ROUNDS, **changes):
        run_campaign(
            self.registry.campaign("spring"),
            folder=self.campaign,
            around=self.center(**changes),
            rounds=rounds,
            model=ModelSettings(),
        )

    @property
    def campaign(self):
        return Folder(path=self.folder / "campaign")

    def rounds(self):
        return self.registry.rounds("spring")

    def steps(self):
        return [row.figures["step"] for row in self.rounds() if "step" in row.figures]

    def close(self):
        self.registry.close()
        for ledger in self.ledgers.values():
            ledger.close()


class Line:
    """The line to the edges: those that are away are not seen online, those that are cut off swallow requests."""

    def __init__(self, transport, town):
        self.transport, self.town = transport, town
        self.cut_off = set()
        self.outages = 0
        self.before_send = lambda: None

    def online(self):
        return frozenset(name for name in self.transport.online() if not self.town.shops[name].away)

    def send(self, requests):
        self.before_send()
        self.transport.send({edge: request for edge, request in requests.items() if edge not in self.cut_off})

    def receive(self, *, timeout):
        if self.outages:
            self.outages -= 1
            raise UnavailableError("SuperLink does not answer")
        del timeout
        return self.transport.receive(timeout=0)

    def forget(self):
        self.transport.forget()


@pytest.fixture
def town(tmp_path, monkeypatch):
    monkeypatch.setattr(campaigns, "_LOOK_SECONDS", 0)
    town = Town(tmp_path)
    yield town
    town.close()


def test_a_campaign_sums_what_the_shops_said_and_moves_the_weights_by_their_mean(town) -> None:
    town.run()
    assert town.steps() == [1, 2, 3]
    assert np.array_equal(np.load(town.campaign.popularity), np.full(ITEMS + 1, len(NAMES)))
    first, last = (model_weights.load(town.campaign.weights(n).read_bytes()) for n in (0, 3))
    moved = model_weights.flatten(last.tensors) - model_weights.flatten(first.tensors)
    assert np.allclose(moved, 3.0, atol=1e-4)
    summed = town.rounds()[-1]
    assert summed.figures["loss"] == pytest.approx(2.0, abs=1e-4)
    assert summed.figures["upload_bytes"] > 0


def test_a_missing_edge_fails_the_round_by_name_and_the_next_runs_without_it(town) -> None:
    town.transport.cut_off = {"riga"}
    town.run()
    first, second, *_ = town.rounds()
    assert first.outcome == "round 1: no masked update from riga"
    assert second.outcome == "summed"
    assert second.cohort == ("bergen", "bruges", "visby")


def test_who_was_missing_may_come_back(town) -> None:
    town.transport.cut_off = {"riga"}

    def mend():
        town.transport.cut_off = {"riga"} if len(town.rounds()) < 3 else set()

    town.transport.before_send = mend
    town.run()
    assert [row.outcome for row in town.rounds()].count("summed") == 4
    assert "riga" in town.rounds()[-1].cohort


def test_an_edge_that_is_offline_is_waited_for_and_then_left_out(town) -> None:
    town.shops["riga"].away = True
    town.run()
    assert {row.outcome for row in town.rounds()} == {"summed"}
    assert all("riga" not in row.cohort for row in town.rounds())


def test_two_edges_that_fail_in_turn_do_not_fail_every_round(town) -> None:
    """Left out for one round only, they would take turns in spoiling the sum until patience ends."""
    town.center_roster = town.edge_roster = town.roster_of(1, NAMES)
    rounds = RoundSettings(**{**ROUNDS.model_dump(), "min_cohort": 2})

    def take_turns():
        cohort = set(town.rounds()[-1].cohort)
        town.transport.cut_off = {"riga"} if "riga" in cohort else {"visby"}

    town.transport.before_send = take_turns
    with pytest.raises(TooFewSurvivorsError):  # two edges are too few for each other, and they say so
        town.run(rounds=rounds)
    first, second, third, *_ = [row.cohort for row in town.rounds()]
    assert (first, second, third) == (NAMES, ("bergen", "bruges", "visby"), ("bergen", "bruges"))


def test_everybody_who_failed_is_named_whether_it_refused_or_was_silent(town) -> None:
    town.shops["riga"].refusal = "busy"
    town.transport.cut_off = {"visby"}
    town.transport.before_send = lambda: _stop_after_a_round(town)
    with pytest.raises(StoppedError):
        town.run()
    assert town.rounds()[0].outcome == "round 1: riga: busy; visby: no masked update"


def _stop_after_a_round(town):
    town.stopped = len(town.rounds()) > 1


def test_a_refusal_by_policy_is_in_the_books(town) -> None:
    town.policies["visby"] = PolicySettings(min_cohort=9)
    town.run()
    assert town.rounds()[0].outcome == (
        "round 1: visby: this site's policy refuses a cohort of 4: it allows at least 9"
    )
    assert town.steps() == [1, 2, 3]


def test_a_superlink_that_goes_away_costs_one_round_number_and_no_edge_its_place(town) -> None:
    town.transport.outages = 1
    town.run()
    first, second, *_ = town.rounds()
    assert "SuperLink does not answer" in first.outcome
    assert (second.cohort, second.outcome) == (NAMES, "summed")


def test_an_answer_to_an_interrupted_round_does_not_spoil_the_next(town) -> None:
    """The next cohort may be smaller; who is not in it must not be charged with a late word."""
    town.transport.outages = 1
    town.transport.before_send = lambda: town.shops["riga"].__setattr__("away", len(town.rounds()) >= 1)
    town.run()
    assert [row.outcome for row in town.rounds()][1:] == ["summed"] * 4


def _kill(*, at):
    """A `durable.write` that dies before it writes the file of this name."""

    def write(path, data, **options):
        if path.name == at:
            raise KilledError
        durable_write(path, data, **options)

    return write


durable_write = durable.write


@pytest.mark.parametrize(
    "at", ["weights-0000.safetensors", "weights-0001.safetensors", "weights-0002.safetensors", "state.safetensors"]
)
def test_killed_at_any_write_it_resumes_with_the_same_weights(town, tmp_path, monkeypatch, at) -> None:
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    with_no_kill = Town(undisturbed)
    with_no_kill.run()
    with_no_kill.close()
    monkeypatch.setattr(durable, "write", _kill(at=at))
    with pytest.raises(KilledError):
        town.run()
    monkeypatch.setattr(durable, "write", durable_write)
    town.run()
    assert town.steps() == [1, 2, 3]
    assert sum(row.purpose == "popularity" for row in town.rounds()) == 1
    assert town.campaign.weights(3).read_bytes() == with_no_kill.campaign.weights(3).read_bytes()


def test_killed_between_the_two_writes_weights_and_state_agree(town, monkeypatch) -> None:
    writes = []

    def write(path, data, **options):
        if path.name == "state.safetensors" and "weights-0001.safetensors" in writes:
            raise KilledError  # weights-0001 are there, the state still says 0
        writes.append(path.name)
        durable_write(path, data, **options)

    monkeypatch.setattr(durable, "write", write)
    with pytest.raises(KilledError):
        town.run()
    assert writes[1:] == ["weights-0000.safetensors", "state.safetensors", "weights-0001.safetensors"]
    state = ServerState.from_bytes(town.campaign.state.read_bytes())
    assert state.completed == 0
    assert town.campaign.weights(state.completed).read_bytes() == state.weights()
    monkeypatch.setattr(durable, "write", durable_write)
    town.run()
    state = ServerState.from_bytes(town.campaign.state.read_bytes())
    assert town.campaign.weights(3).read_bytes() == state.weights()


def test_a_summed_round_is_never_repeated_after_a_kill(town) -> None:
    """Killed before the third training round is sent: the first two are on disk and stay as they are."""

    def kill():
        if len(town.rounds()) == 4:
            raise KilledError

    town.transport.before_send = kill
    with pytest.raises(KilledError):
        town.run()
    town.transport.before_send = lambda: None
    town.run()
    numbers = [row.round for row in town.rounds()]
    assert numbers == [1, 2, 3, 4, 5]
    assert town.steps() == [1, 2, 3]
    assert len(town.shops["riga"].trained_from) == 3
    assert town.shops["riga"].trained_from[2] == town.campaign.weights(2).read_bytes()


def test_a_finished_campaign_asks_nobody_again(town) -> None:
    town.run()
    before = len(town.rounds())
    town.run()
    assert len(town.rounds()) == before


def test_told_to_stop_while_it_waits_for_edges_it_stops(town) -> None:
    for shop in town.shops.values():
        shop.away = True
    town.stopped = True
    with pytest.raises(StoppedError):
        town.run()
    assert town.rounds() == ()


def test_told_to_stop_in_the_middle_of_a_round_it_gives_the_round_up_and_resumes(town) -> None:
    town.transport.cut_off = {"riga"}
    town.transport.before_send = lambda: setattr(town, "stopped", True)
    with pytest.raises(StoppedError):
        town.run()
    assert len(town.rounds()) == 1
    town.transport.cut_off, town.stopped = set(), False
    town.transport.before_send = lambda: None
    town.run()
    assert town.steps() == [1, 2, 3]


def test_sleeping_edges_are_woken_again_until_there_are_enough(town) -> None:
    """A learner goes to sleep when the last wake is over; a federation that slept a night must still come together."""
    for name in ("bergen", "riga"):
        town.shops[name].away = True

    def wake(campaign, until_ms):
        town.wakes.append((campaign, until_ms))
        if len(town.wakes) == 4:
            town.shops["bergen"].away = town.shops["riga"].away = False

    town.run(wake=wake)
    assert town.steps() == [1, 2, 3]
    untils = [until for _, until in town.wakes]
    assert untils == sorted(untils)
    assert untils[3] - untils[0] >= 3 * 1000 * ROUNDS.gather_seconds


def test_a_site_admitted_in_the_middle_of_a_campaign_takes_part(town) -> None:
    """Edges refuse a round on an old roster, so a campaign that kept the first one would end there."""
    town.center_roster = town.edge_roster = town.roster_of(1, NAMES[:3])

    def admit():
        if len(town.rounds()) == 2:
            town.edge_roster = town.center_roster = town.roster_of(2, NAMES)

    town.transport.before_send = admit
    town.run()
    assert "roster 1, this edge has 2" in town.rounds()[1].outcome
    assert town.steps() == [1, 2, 3]
    assert town.rounds()[-1].cohort == NAMES


def test_a_federation_without_a_single_example_ends_with_one_clear_error(town) -> None:
    for shop in town.shops.values():
        shop.weight = 0.0
    with pytest.raises(BadInputError, match="no site has anything to learn from"):
        town.run()
    assert town.steps() == []


def test_a_campaign_does_not_go_on_over_another_catalogue(town) -> None:
    town.run()
    town.campaign.state.unlink()
    with pytest.raises(BadInputError, match="a catalogue of 3 items, now there are 4"):
        town.run(items=4)


def test_round_after_round_failing_ends_the_campaign_naming_who(town) -> None:
    town.shops["riga"].refusal = town.shops["visby"].refusal = "busy"
    with pytest.raises(TooFewSurvivorsError) as failed:
        town.run()
    assert failed.value.missing == {"riga", "visby"}
    assert len(town.rounds()) == 10


def test_a_vector_that_is_no_masked_update_is_charged_to_its_sender(town, monkeypatch) -> None:
    answer = Town._answer

    def garbled(self, name, request):
        reply = answer(self, name, request)
        return SimpleNamespace(body=b"noise", error=None) if name == "riga" else reply

    monkeypatch.setattr(Town, "_answer", garbled)
    town.run()
    assert town.rounds()[0].outcome.startswith("round 1: riga: ")
    assert town.rounds()[1].cohort == ("bergen", "bruges", "visby")
