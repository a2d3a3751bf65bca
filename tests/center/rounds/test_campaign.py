"""A campaign over the real state machines and the real edges' part in them; only the network stands in one process."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from center import durable
from center.rounds import calling, gathering
from center.rounds.averaging import ServerState
from center.rounds.federation import StoppedError
from center.settings import PrivacySettings as PrivacyOfRounds
from edge.rounds.ratchet import Ratchet
from edge.rounds.spending import Spending
from edge.settings import PolicySettings, PrivacySettings
from protocol.errors import BadInputError, TooFewSurvivorsError
from protocol.identity import EdgeId
from protocol.models import weights as model_weights
from protocol.transport import Action, Reply

_spec = importlib.util.spec_from_file_location("town", Path(__file__).with_name("town.py"))
_town = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_town)
ITEMS, NAMES, ROUNDS = _town.ITEMS, _town.NAMES, _town.ROUNDS
KilledError, Town = _town.KilledError, _town.Town


@pytest.fixture
def town(tmp_path, monkeypatch):
    monkeypatch.setattr(gathering, "_LOOK_SECONDS", 0)
    town = Town(tmp_path)
    yield town
    town.close()


def test_a_campaign_sums_what_the_shops_said_and_moves_the_weights_by_their_mean(town) -> None:
    town.run()
    assert town.steps() == [1, 2, 3]
    assert np.array_equal(np.load(town.campaign.popularity(1)), np.full(ITEMS + 1, len(NAMES)))
    first, last = (model_weights.load(town.campaign.weights(n).read_bytes()) for n in (0, 3))
    moved = model_weights.flatten(last.tensors) - model_weights.flatten(first.tensors)
    assert np.allclose(moved, 3.0, atol=1e-4)
    summed = town.rounds()[-1]
    assert summed.figures["loss"] == pytest.approx(2.0, abs=1e-4)
    assert summed.figures["upload_bytes"] > 0


STEPS = (Action.MASKED_UPDATE, Action.SIGN_SURVIVORS, Action.UNMASK)


@pytest.mark.parametrize("step", STEPS)
def test_the_round_survives_one_of_four_edges_falling_silent_at_any_step(town, step) -> None:
    town.transport.swallows = {("riga", step)}
    town.run()
    assert {row.outcome for row in town.rounds()} == {"summed"}
    assert town.rounds()[0].figures["survivors"] == (3 if step is Action.MASKED_UPDATE else 4)


@pytest.mark.parametrize("step", STEPS)
def test_one_edge_more_and_the_round_fails_cleanly_is_given_up_and_asked_again(town, step) -> None:
    """Four edges survive one dropout. The question of the lost round is free again, the campaign ends as ever."""

    def mend(requests):
        if any(request.action == Action.ABANDON for request in requests.values()):
            town.transport.swallows = set()

    town.transport.swallows = {("riga", step), ("visby", step)}
    town.transport.before_send = mend
    town.run()
    first, *others = town.rounds()
    assert first.outcome.startswith("round 1: 2 ")
    assert "4 edges, 3 are needed" in first.outcome
    assert [row.outcome for row in others].count("summed") == 4
    assert town.steps() == [1, 2, 3]


def test_an_update_that_comes_after_the_survivors_were_named_changes_nothing(town) -> None:
    town.transport.slow = {"riga"}
    town.transport.before_send = lambda _requests: town.transport.slow.intersection_update(
        {"riga"} if len(town.rounds()) < 2 else set()
    )
    town.run()
    assert {row.outcome for row in town.rounds()} == {"summed"}
    assert [row.figures["survivors"] for row in town.rounds()] == [3, 3, 4, 4]
    assert np.array_equal(np.load(town.campaign.popularity(1)), np.full(ITEMS + 1, 3))


def test_an_edge_that_shares_no_keys_is_left_out_and_named_by_nobody(town) -> None:
    town.transport.swallows = {("riga", Action.KEEP_ROOTS)}
    town.run()
    assert {row.outcome for row in town.rounds()} == {"summed"}
    assert town.rounds()[0].cohort == ("bergen", "bruges", "visby")


def test_who_was_missing_may_come_back(town) -> None:
    town.transport.swallows = {("riga", Action.MASKED_UPDATE)}

    def mend(_requests):
        town.transport.swallows = {("riga", Action.MASKED_UPDATE)} if len(town.rounds()) < 3 else set()

    town.transport.before_send = mend
    town.run()
    assert [row.outcome for row in town.rounds()].count("summed") == 4
    assert "riga" in town.rounds()[-1].cohort


def test_an_edge_that_is_offline_is_waited_for_and_then_left_out(town) -> None:
    town.shops["riga"].away = True
    town.run()
    assert {row.outcome for row in town.rounds()} == {"summed"}
    assert all("riga" not in row.cohort for row in town.rounds())


def test_a_new_epoch_is_opened_for_an_edge_that_comes_late_and_for_no_other_reason(town) -> None:
    town.shops["riga"].away = True
    town.transport.before_send = lambda _requests: setattr(town.shops["riga"], "away", len(town.rounds()) < 3)
    town.run()
    assert "riga" in town.rounds()[-1].cohort
    assert town.transport.sent.count(("bergen", Action.PREKEY)) == 2


def test_an_edge_that_lost_its_keys_is_back_with_the_next_epoch_and_that_comes_soon(town) -> None:
    def lose(_requests):
        if len(town.registry.rounds("long")) == 1:
            Ratchet(town.folder / "riga" / "ratchet").forget()

    town.transport.before_send = lose
    town.registry.ask_campaign("long", submodel="recommend", rounds=5, now_ms=2)
    town.run(campaign="long")
    survivors = [row.figures["survivors"] for row in town.registry.rounds("long")]
    assert survivors == [3, 3, 4, 4, 4, 4]
    assert town.transport.sent.count(("bergen", Action.PREKEY)) == 2


def test_everybody_who_failed_is_named_whether_it_refused_or_was_silent(town) -> None:
    town.shops["riga"].refusal = "busy"
    town.transport.swallows = {("visby", Action.MASKED_UPDATE)}
    town.transport.before_send = lambda _requests: setattr(town, "stopped", town.rounds()[:1] != ())
    with pytest.raises((StoppedError, TooFewSurvivorsError)):
        town.run()
    town.stopped = False
    town.transport.before_send = lambda _requests: setattr(town, "stopped", len(town.rounds()) > 1)
    with pytest.raises(StoppedError):
        town.run()
    outcome = town.rounds()[0].outcome
    assert "riga: busy" in outcome
    assert "visby: no answer" in outcome


def test_a_refusal_by_policy_costs_the_round_nothing_while_enough_are_left(town) -> None:
    town.policies["visby"] = PolicySettings(min_cohort=9)
    town.run()
    assert {row.outcome for row in town.rounds()} == {"summed"}
    assert town.rounds()[1].cohort == ("bergen", "bruges", "riga")


def test_a_superlink_that_goes_away_costs_no_round_since_its_edges_keep_their_answers(town) -> None:
    town.transport.outages = 1
    town.run()
    assert [row.outcome for row in town.rounds()] == ["summed"] * 4
    assert [row.round for row in town.rounds()] == [1, 2, 3, 4]


def test_a_second_campaign_counts_no_event_twice(town) -> None:
    """What a site has told once it never tells again, or two sums over different sites would give one site away."""
    town.run()
    for shop in town.shops.values():
        shop.events += 2
    town.registry.ask_campaign("autumn", submodel="recommend", rounds=0, now_ms=2)
    town.run(campaign="autumn")
    assert np.array_equal(np.load(town.campaign.popularity(1)), np.full(ITEMS + 1, 2 * len(NAMES)))


def test_what_a_failed_campaign_counted_and_lost_the_next_one_counts(town) -> None:
    """Its edges have answered; unless the lost round is given up, they would say that nothing has happened since."""
    town.transport.swallows = {(name, Action.SIGN_SURVIVORS) for name in NAMES}
    with pytest.raises(TooFewSurvivorsError):
        town.run()
    town.transport.swallows = set()
    town.registry.ask_campaign("autumn", submodel="recommend", rounds=0, now_ms=2)
    town.run(campaign="autumn")
    assert np.array_equal(np.load(town.campaign.popularity(1)), np.full(ITEMS + 1, len(NAMES)))


def _state(town):
    return ServerState.from_bytes(town.campaign.state.read_bytes())


def _swallow_after_the_first_step(town, action):
    def swallow(_requests):
        trained = town.steps() == [1]
        town.transport.swallows = {("riga", action), ("visby", action)} if trained else set()

    town.transport.before_send = swallow


def test_edges_that_are_only_away_cost_the_campaign_no_half_step(town) -> None:
    """Nobody can have opened anything: the question is as good as ever, so the campaign fails and says why."""
    _swallow_after_the_first_step(town, Action.MASKED_UPDATE)
    with pytest.raises(TooFewSurvivorsError):
        town.run()
    assert (_state(town).completed, _state(town).halvings) == (1, 0)
    town.transport.before_send, town.transport.swallows = (lambda _requests: None), set()
    town.run()
    assert town.steps() == [1, 2, 3]


def test_a_question_that_was_opened_in_vain_is_asked_otherwise_after_half_a_step(town) -> None:
    """Two of four have unmasked and the others never will: that question is answered for ever, for nobody."""

    def swallow(_requests):
        stuck = town.steps() == [1] and not _state(town).halvings
        town.transport.swallows = {("riga", Action.UNMASK), ("visby", Action.UNMASK)} if stuck else set()

    town.transport.before_send = swallow
    town.run()
    assert town.steps() == [1, 2, 3]
    assert town.rounds()[2].outcome.startswith("round 3: 2 unmaskings")


def test_a_campaign_whose_questions_are_all_opened_in_vain_fails_and_is_not_called_finished(town) -> None:
    _swallow_after_the_first_step(town, Action.UNMASK)
    with pytest.raises(TooFewSurvivorsError):
        town.run()
    assert (_state(town).completed, _state(town).halvings) == (1, 3)


def test_a_center_killed_amid_a_stuck_question_still_knows_that_it_was_opened(town) -> None:
    def kill(_requests):
        town.transport.swallows = {("riga", Action.UNMASK), ("visby", Action.UNMASK)} if town.steps() == [1] else set()
        if town.steps() == [1] and town.transport.sent[-1][1] == Action.ABANDON:
            raise KilledError

    town.transport.before_send = kill
    with pytest.raises(KilledError):
        town.run()
    town.transport.before_send = lambda _requests: setattr(
        town.transport, "swallows", set() if _state(town).halvings else {("riga", None), ("visby", Action.UNMASK)}
    )
    town.run()
    assert town.steps() == [1, 2, 3]


def test_the_sums_of_answered_questions_do_not_stay_on_the_disk(town) -> None:
    kept = []
    town.run(between=lambda: kept.append(sorted(path.name for path in town.folder.glob("campaigns/**/*.round"))))
    assert kept == [["question-bergen.round"]] * 3
    assert list(town.folder.glob("campaigns/**/*.round")) == []


def test_others_may_ask_between_two_rounds_and_the_campaign_goes_on(town) -> None:
    """Their epochs and round numbers come in between; nothing of the campaign is lost to them."""

    others = [f"other-{number}" for number in range(3)]
    asked = iter(others)

    def ask():
        other = next(asked)
        town.registry.ask_campaign(other, submodel="recommend", rounds=0, now_ms=2)
        town.run(campaign=other)
        town.running = "spring"

    town.run(between=ask)
    assert [row.outcome for other in others for row in town.registry.rounds(other)] == ["summed"] * 3
    assert {row.outcome for row in town.rounds()} == {"summed"}
    assert town.steps() == [1, 2, 3]


def test_a_late_word_of_an_edge_that_is_no_survivor_does_not_end_a_resumed_round(town) -> None:
    kill = _kill_when(Action.SIGN_SURVIVORS, rounds=4)

    def lose_one(requests):
        town.transport.swallows = {("riga", Action.MASKED_UPDATE)} if len(town.rounds()) == 4 else set()
        kill(town, requests)

    town.transport.before_send = lose_one
    with pytest.raises(KilledError):
        town.run()
    town.transport.before_send = lambda _requests: None
    assert "riga" in town.rounds()[3].cohort
    town.transport.held = [("riga", Reply(error="what was that?"))]
    town.run()
    assert town.steps() == [1, 2, 3]


def test_a_step_that_makes_validation_worse_is_taken_back_by_halves(town) -> None:
    def spoil(_requests):
        for shop in town.shops.values():
            shop.ndcg = 0.1 if len(shop.trained_from) == 1 else 0.5

    town.transport.before_send = spoil
    town.run()
    halved, whole = (model_weights.load(town.shops["riga"].trained_from[n]) for n in (2, 1))
    first = model_weights.load(town.campaign.weights(0).read_bytes())
    step, back = (model_weights.flatten(w.tensors) - model_weights.flatten(first.tensors) for w in (whole, halved))
    assert np.allclose(back, step / 2, atol=1e-6)
    assert town.steps() == [1, 1, 2, 3]


def test_a_step_that_stays_bad_ends_the_campaign_near_the_best_weights(town) -> None:
    def spoil(_requests):
        for shop in town.shops.values():
            shop.ndcg = 0.5 if not shop.trained_from else 0.1

    town.transport.before_send = spoil
    town.run()
    assert town.steps() == [1, 1, 1, 1, 1]
    first, last = (model_weights.load(town.campaign.weights(n).read_bytes()) for n in (0, 1))
    moved = model_weights.flatten(last.tensors) - model_weights.flatten(first.tensors)
    assert np.allclose(moved, 1 / 16, atol=1e-4)


def test_sums_of_groups_are_trimmed_so_that_one_poisoned_group_changes_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gathering, "_LOOK_SECONDS", 0)
    names = tuple(EdgeId(f"site-{number:02}") for number in range(24))
    town = Town(tmp_path, names)
    town.policies = dict.fromkeys(names, PolicySettings(groups=True))
    town.center_roster = town.edge_roster = town.roster_of(1, names, groups=[names[:8], names[8:16], names[16:]])
    for name in names[8:16]:
        town.shops[name].step = -1.0
    town.registry.ask_campaign("groups", submodel="recommend", rounds=1, now_ms=2)
    town.run(campaign="groups")
    first, last = (model_weights.load(town.campaign.weights(n).read_bytes()) for n in (0, 1))
    moved = model_weights.flatten(last.tensors) - model_weights.flatten(first.tensors)
    assert np.allclose(moved, 1.0, atol=1e-3)  # the mean would have moved backwards
    assert [len(row.cohort) for row in town.registry.rounds("groups")] == [8] * 6
    town.close()


def test_a_group_that_fails_is_asked_again_while_the_sums_of_the_others_are_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gathering, "_LOOK_SECONDS", 0)
    names = tuple(EdgeId(f"site-{number:02}") for number in range(24))
    town = Town(tmp_path, names)
    town.policies = dict.fromkeys(names, PolicySettings(groups=True))
    town.center_roster = town.edge_roster = town.roster_of(1, names, groups=[names[:8], names[8:16], names[16:]])

    def mend(requests):
        if any(request.action == Action.ABANDON for request in requests.values()):
            town.transport.swallows = set()

    town.transport.swallows = {(name, Action.SIGN_SURVIVORS) for name in names[:3]}
    town.transport.before_send = mend
    town.registry.ask_campaign("groups", submodel="recommend", rounds=1, now_ms=2)
    town.run(campaign="groups")
    assert np.array_equal(np.load(town.campaign.popularity(1)), np.full(ITEMS + 1, 21))  # the three sat out
    town.registry.ask_campaign("again", submodel="recommend", rounds=0, now_ms=3)
    town.run(campaign="again")
    assert np.array_equal(np.load(town.campaign.popularity(1)), np.full(ITEMS + 1, 3))  # and are counted in the end
    town.close()


def test_a_partly_opened_round_is_finished_when_the_others_are_back(town) -> None:
    """Two of four have opened it, so it can never be given up; the other two only have to answer."""

    def mend(_requests):
        if len([action for _, action in town.transport.sent if action == Action.UNMASK]) > 4:
            town.transport.swallows = set()

    town.transport.swallows = {("riga", Action.UNMASK), ("visby", Action.UNMASK)}
    town.transport.before_send = mend
    town.run()
    assert [(row.round, row.outcome) for row in town.rounds()] == [(number, "summed") for number in (1, 2, 3, 4)]


def test_a_center_killed_after_naming_survivors_needs_only_a_threshold_of_them(town) -> None:
    """Its disk has the masked sum, so nobody has to send an update again."""
    kill = _kill_when(Action.SIGN_SURVIVORS, rounds=4)
    town.transport.before_send = lambda requests: kill(town, requests)
    with pytest.raises(KilledError):
        town.run()
    town.transport.before_send = lambda _requests: None
    town.transport.swallows = {("riga", None)}
    town.run()
    assert [(row.round, row.outcome) for row in town.rounds()] == [(number, "summed") for number in (1, 2, 3, 4)]
    assert town.rounds()[3].figures["survivors"] == 4


def test_under_differential_privacy_the_sum_is_noisy_and_every_edge_books_it(town) -> None:
    town.policies = dict.fromkeys(NAMES, PolicySettings(min_cohort=3, max_colluders=0, require_noise=True))
    for shop in town.shops.values():
        shop.weight = 1000.0  # users, whose updates are all zero
    town.registry.ask_campaign("private", submodel="recommend", rounds=1, now_ms=2)
    town.run(campaign="private", privacy=PrivacyOfRounds(noise_multiplier=1.0, colluders=0))
    first, last = (model_weights.load(town.campaign.weights(n).read_bytes()) for n in (0, 1))
    moved = model_weights.flatten(last.tensors) - model_weights.flatten(first.tensors)
    assert 1e-5 < np.std(moved) < 1e-2  # noise of about one user among 4,000
    for name in NAMES:
        spending = Spending(town.folder / name / "spending.db", PrivacySettings(), rounds_per_day=200)
        assert 4 < spending.spent("train") < 7
        assert 4 < spending.spent("popularity") < 7
        spending.close()


def test_a_site_whose_budget_is_spent_trains_no_more_and_says_why(town) -> None:
    town.budgets["riga"] = PrivacySettings(epsilon=6.0)
    for shop in town.shops.values():
        shop.weight = 1000.0
    town.run(privacy=PrivacyOfRounds(noise_multiplier=1.0, colluders=0))
    assert "riga" in town.rounds()[0].cohort
    assert town.shops["riga"].trained_from == []


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
    tensors = [name for name in writes if name.endswith("tensors")]
    assert tensors == ["weights-0000.safetensors", "state.safetensors", "weights-0001.safetensors"]
    state = ServerState.from_bytes(town.campaign.state.read_bytes())
    assert state.completed == 0
    assert town.campaign.weights(state.completed).read_bytes() == state.weights()
    monkeypatch.setattr(durable, "write", durable_write)
    town.run()
    state = ServerState.from_bytes(town.campaign.state.read_bytes())
    assert town.campaign.weights(3).read_bytes() == state.weights()


def _kill_when(action, *, rounds):
    def kill(town, requests):
        if len(town.rounds()) == rounds and any(request.action == action for request in requests.values()):
            raise KilledError

    return kill


@pytest.mark.parametrize("step", STEPS)
def test_a_center_killed_between_two_stages_goes_on_with_the_same_round(town, step) -> None:
    """Its edges have kept their answers, and sign no second survivor set: the first is on disk before they hear it."""
    kill = _kill_when(step, rounds=4)
    town.transport.before_send = lambda requests: kill(town, requests)
    with pytest.raises(KilledError):
        town.run()
    town.transport.before_send = lambda _requests: None
    town.run()
    assert [row.round for row in town.rounds()] == [1, 2, 3, 4]
    assert {row.outcome for row in town.rounds()} == {"summed"}
    assert town.steps() == [1, 2, 3]
    assert len(town.shops["riga"].trained_from) == 3


def test_a_center_killed_after_the_sum_and_before_it_is_on_disk_asks_for_it_again(town, monkeypatch) -> None:
    monkeypatch.setattr(durable, "write", _kill(at="weights-0002.safetensors"))
    with pytest.raises(KilledError):
        town.run()
    monkeypatch.setattr(durable, "write", durable_write)
    town.run()
    assert [row.round for row in town.rounds()] == [1, 2, 3, 4]
    assert len(town.shops["riga"].trained_from) == 3


def test_killed_between_the_state_and_the_books_the_books_are_mended(town, monkeypatch) -> None:
    note = calling.Caller.note

    def die(self, answer, figures):
        if figures.get("step") in {1.0, 3.0}:
            raise KilledError
        note(self, answer, figures)

    for _ in range(2):
        monkeypatch.setattr(calling.Caller, "note", die)
        with pytest.raises(KilledError):
            town.run()
    monkeypatch.setattr(calling.Caller, "note", note)
    town.run()
    assert [(row.round, row.outcome) for row in town.rounds()] == [(number, "summed") for number in (1, 2, 3, 4)]


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


def test_told_to_stop_in_the_middle_of_a_round_it_resumes_it(town) -> None:
    town.transport.swallows = {("riga", Action.MASKED_UPDATE), ("visby", Action.MASKED_UPDATE)}
    town.transport.before_send = lambda _requests: setattr(town, "stopped", town.rounds() != ())
    with pytest.raises(StoppedError):
        town.run()
    assert len(town.rounds()) == 1
    town.transport.swallows, town.stopped = set(), False
    town.transport.before_send = lambda _requests: None
    town.run()
    assert town.steps() == [1, 2, 3]
    assert town.rounds()[0].outcome == "summed"


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

    def admit(_requests):
        if len(town.rounds()) == 2:
            town.edge_roster = town.center_roster = town.roster_of(2, NAMES)

    town.transport.before_send = admit
    town.run()
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
    with pytest.raises(BadInputError, match="began on another catalogue than 2"):
        town.run(items=4, catalogue_version=2)


def test_round_after_round_failing_ends_the_campaign_naming_who(town) -> None:
    town.shops["riga"].refusal = town.shops["visby"].refusal = "busy"
    with pytest.raises(TooFewSurvivorsError) as failed:
        town.run()
    assert failed.value.missing == {"riga", "visby"}
    assert len(town.rounds()) == 10


def test_a_vector_that_is_no_masked_update_is_its_senders_dropout(town, monkeypatch) -> None:
    answer = Town._answer

    def garbled(self, name, request):
        reply = answer(self, name, request)
        garble = name == "riga" and request.action == Action.MASKED_UPDATE
        return SimpleNamespace(body=b"noise", error=None) if garble else reply

    monkeypatch.setattr(Town, "_answer", garbled)
    town.run()
    assert town.rounds()[0].figures["survivors"] == 3
    assert town.rounds()[1].cohort == ("bergen", "bruges", "visby")
