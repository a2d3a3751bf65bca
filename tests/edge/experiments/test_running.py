import asyncio
from collections import Counter

import pytest

from edge.arranging.scenario import Scenario
from edge.experiments.design import Kind, Metric, Unit, What
from edge.records.store import Store
from protocol.errors import BadInputError, FederationError

USERS = [f"user-{number}" for number in range(600)]
DAY = 86_400_000


def test_who_comes_back_keeps_the_arm_even_after_a_restart(trade):
    trade.begin()
    before = {user: trade.visit(user) for user in USERS}
    trade.flush()
    trade.open()
    assert {user: trade.visit(user) for user in USERS} == before
    assert set(before.values()) == {"taste/control", "taste/new"}
    assert {units for _, units in trade.figures().values()} == set(Counter(before.values()).values())


def test_a_draft_and_a_stopped_experiment_give_nobody_an_arm(trade):
    trade.begin(run=False)
    assert trade.visit("ada") is None
    trade.begin()
    assert trade.visit("ada") is not None
    trade.experiments.stop("taste")
    trade.experiments.look_again()
    assert trade.visit("ada") is None


def test_it_applies_where_it_was_asked_for_only(trade):
    trade.begin(scenarios=("home",))
    assert trade.visit("ada", scenario="search") is None
    assert trade.visit("ada", scenario="home") is not None


def test_it_begins_and_ends_on_time_by_itself(trade):
    start, end = trade.now_ms + DAY, trade.now_ms + 2 * DAY
    trade.begin(start_ms=start, end_ms=end)
    found = []
    for trade.now_ms in (start - 1, start, end - 1, end):
        found.append(trade.visit("ada") is not None)
    assert found == [False, True, True, False]


def test_a_visitor_who_logs_in_keeps_the_arm(trade):
    trade.begin()
    for number in range(40):
        user, session = f"user-{number}", f"visit-{number}"
        arm = trade.visit(session=session)
        if number % 2:
            trade.happens("view", session=session)
        trade.flush()
        trade.store.merge(session, user)
        assert trade.visit(user) == arm
        assert trade.visit(session=session) == arm
    assert sum(units for _, units in trade.figures().values()) == 40


def test_a_user_whose_new_visit_had_the_other_arm_keeps_the_users(trade):
    trade.begin()
    arms = {user: trade.visit(user) for user in USERS[:20]}
    trade.flush()
    for number, user in enumerate(arms):
        trade.visit(session=f"visit-{number}")
        trade.flush()
        trade.store.merge(f"visit-{number}", user)
        assert trade.visit(user) == arms[user]
        assert trade.visit(session=f"visit-{number}") == arms[user]
    assert sum(units for _, units in trade.figures().values()) == 20


def test_each_visit_is_a_unit_where_visits_are_compared(trade):
    trade.begin(unit=Unit.SESSION)
    assert trade.visit("ada") is None
    arms = {visit: trade.visit("ada", visit) for visit in ("a", "b", "c", "d", "e", "f")}
    assert len(set(arms.values())) == 2
    assert {visit: trade.visit("ada", visit) for visit in arms} == arms
    trade.happens("purchase", "ada", session="a")
    assert sum(units for _, units in trade.figures().values()) == 6
    assert trade.figures()[arms["a"].split("/")[1]][0] > 0
    sold = sum(round(mean * units) for mean, units in trade.figures().values())
    assert sold == 1


def test_only_what_was_bought_after_the_first_exposure_and_within_the_window_counts(trade):
    trade.begin()
    arm = trade.visit("ada").split("/")[1]
    trade.happens("purchase", "ada", at=trade.now_ms - 1)
    trade.happens("purchase", "ada", at=trade.now_ms + 7 * DAY)
    assert trade.figures()[arm] == (0, 1)
    trade.happens("purchase", "ada", at=trade.now_ms + 7 * DAY - 1)
    trade.happens("purchase", "ada", at=trade.now_ms)
    assert trade.figures()[arm] == (1, 1)


def test_the_window_begins_with_the_first_exposure_however_often_one_comes_back(trade):
    trade.begin()
    arm = trade.visit("ada").split("/")[1]
    trade.flush()
    trade.happens("purchase", "ada")
    trade.now_ms += DAY
    trade.visit("ada")
    assert trade.figures()[arm] == (1, 1)
    trade.happens("purchase", "bob", at=trade.now_ms)
    assert trade.figures()[arm] == (1, 1)


def test_an_event_sent_twice_counts_once(trade):
    trade.begin(metrics=(Metric(name="clicked", kind=Kind.CLICKS),))
    arm = trade.visit("ada").split("/")[1]
    trade.visit("ada")
    trade.happens("click", "ada")
    trade.numbers = iter([next(trade.numbers) - 1])
    trade.happens("click", "ada")
    assert trade.figures("clicked")[arm] == (0.5, 1)


def test_revenue_is_quantity_times_price_cut_at_the_cap(trade):
    from edge.records.events import Item

    trade.store.put_items([Item(item="i1", title="Tea", price=2.5), Item(item="gold", title="Gold", price=9_000.0)])
    trade.begin(metrics=(Metric(name="spent", kind=Kind.REVENUE, cap=100),))
    arms = {user: trade.visit(user).split("/")[1] for user in USERS[:50]}
    frugal = next(user for user, arm in arms.items() if arm == "control")
    lavish = next(user for user, arm in arms.items() if arm == "new")
    trade.happens("purchase", frugal, item="i1", quantity=3)
    trade.happens("purchase", frugal, item="i1", quantity=1)
    trade.happens("purchase", lavish, item="gold")
    units = Counter(arms.values())
    found = trade.figures("spent")
    assert found["control"][0] == pytest.approx(10 / units["control"], abs=1e-9)
    assert found["new"][0] == pytest.approx(100 / units["new"])


def test_figures_are_those_of_the_values_themselves(trade, rng):
    """The sums that SQLite makes against the same reckoned by hand, over random behaviour."""
    trade.begin(metrics=(Metric(name="clicked", kind=Kind.CLICKS, cap=2), Metric(name="sold", kind=Kind.CONVERSION)))
    values = {"control": [], "new": []}
    for user in USERS[:120]:
        shown = int(rng.integers(1, 4))
        arm = [trade.visit(user) for _ in range(shown)][-1].split("/")[1]
        clicks = int(rng.poisson(2))
        for _ in range(clicks):
            trade.happens("click", user)
        values[arm].append(min(clicks / shown, 2))
    for arm in trade.report()["arms"]:
        clicked = arm["metrics"][0]
        steps = [round(value * 25_000) for value in values[arm["name"]]]
        assert clicked["sums"] == {
            "units": len(steps),
            "total": sum(steps),
            "squares": sum(step * step for step in steps),
            "hits": sum(step > 0 for step in steps),
            "step": 2 / 50_000,
        }


def test_once_the_last_window_has_closed_only_the_sums_stay(trade):
    trade.begin(end_ms=trade.now_ms + DAY)
    arm = trade.visit("ada").split("/")[1]
    trade.happens("purchase", "ada")
    figures = trade.figures()
    trade.now_ms += 8 * DAY
    watch_once(trade)
    with trade.store.reading() as db:
        assert db.execute("SELECT count(*) FROM exposures").fetchone() == (0,)
    assert trade.figures() == figures
    assert figures[arm] == (1, 1)


def test_before_that_nothing_is_closed(trade):
    trade.begin(end_ms=trade.now_ms + DAY)
    trade.visit("ada")
    trade.flush()
    trade.now_ms += 8 * DAY - 1
    watch_once(trade)
    with trade.store.reading() as db:
        assert db.execute("SELECT count(*) FROM exposures").fetchone() == (1,)


def test_an_erased_user_is_in_no_sum_and_not_written_again(trade):
    trade.begin()
    trade.visit("ada")
    trade.happens("purchase", "ada")
    trade.flush()
    trade.visit("ada")
    trade.visit("bob")
    trade.store.erase(user="ada", also=trade.experiments.forget)
    assert sum(units for _, units in trade.figures().values()) == 1
    assert all(mean in {0, None} for mean, _ in trade.figures().values())
    assert not trade.store.user_known("ada")


def test_an_arm_follows_its_scenario_when_an_operator_changes_that(trade):
    trade.begin(what=What(overrides={"diversity": {"relevance": 0.5}}))
    user = next(user for user in USERS if trade.visit(user) == "taste/new")
    assert trade.experiments.choose("email", user=user, session=None).scenario.filter.in_stock
    trade.service.arranging.scenarios.put("email", Scenario(name="email", bought="hide"))
    changed = trade.experiments.choose("email", user=user, session=None).scenario
    assert (changed.filter.in_stock, changed.bought, changed.diversity.relevance) == (False, "hide", 0.5)


def test_more_exposures_than_fit_into_one_transaction_are_all_written(trade):
    trade.begin()
    for number in range(4_500):
        trade.visit(f"user-{number}")
    assert sum(units for _, units in trade.figures().values()) == 4_500


def test_a_removed_experiment_leaves_nothing_and_a_new_one_of_that_name_draws_anew(trade):
    trade.begin()
    before = {user: trade.visit(user) for user in USERS}
    trade.flush()
    trade.experiments.remove("taste")
    trade.begin()
    after = {user: trade.visit(user) for user in USERS}
    assert 0.4 < sum(before[user] == after[user] for user in USERS) / len(USERS) < 0.6


def test_an_exposure_noted_before_its_experiment_was_removed_is_not_written(trade):
    trade.begin()
    trade.visit("ada")
    trade.experiments.remove("taste")
    trade.flush()
    with trade.store.reading() as db:
        assert db.execute("SELECT count(*) FROM exposures").fetchone() == (0,)


def test_experiments_of_a_layer_never_share_a_user_and_those_of_two_layers_answer_by_name(trade):
    trade.begin("b-first", control=0.2, other=0.2)
    trade.begin("a-second", control=0.3, other=0.3)
    trade.begin("c-third", layer="other")
    names = Counter(trade.visit(user).split("/")[0] for user in USERS)
    assert set(names) == {"b-first", "a-second"}
    assert names["b-first"] == pytest.approx(240, abs=50)
    with pytest.raises(BadInputError, match="layer shop has 0 of its units left"):
        trade.begin("d-fourth", control=0.1, other=0.1)
    trade.experiments.stop("b-first")
    trade.experiments.look_again()
    names = Counter(trade.visit(user).split("/")[0] for user in USERS)
    assert set(names) == {"c-third", "a-second"}


def test_what_is_stopped_or_over_leaves_its_room_to_the_next(trade):
    trade.begin("first")
    trade.experiments.stop("first")
    trade.begin("second", end_ms=trade.now_ms + DAY)
    with pytest.raises(BadInputError, match="0 of its units left"):
        trade.begin("third")
    trade.now_ms += DAY
    trade.begin("third")
    assert trade.visit("ada").startswith("third/")


def test_users_and_sessions_do_not_mix_in_a_layer(trade):
    trade.begin()
    with pytest.raises(BadInputError, match="layer shop holds experiments with another unit"):
        trade.begin("visits", unit=Unit.SESSION)


def test_nobody_moves_when_a_running_experiment_grows(trade, trading):
    trade.begin(design=trading.design(0.1, 0.1))
    before = {user: trade.visit(user) for user in USERS}
    trade.begin(design=trading.design(0.4, 0.4))
    after = {user: trade.visit(user) for user in USERS}
    assert all(after[user] == arm for user, arm in before.items() if arm)
    assert sum(arm is not None for arm in after.values()) > 400


def test_exposures_wait_where_the_disk_takes_none(trade):
    trade.begin()
    trade.visit("ada")
    with Store.open(trade.store.path) as other, other.writing():
        trade.store._writer.execute("PRAGMA busy_timeout=1")
        with pytest.raises(FederationError):
            trade.flush()
        trade.visit("ada")
    with trade.store.reading() as db:
        assert db.execute("SELECT count(*) FROM exposures").fetchone() == (0,)
    trade.flush()
    with trade.store.reading() as db:
        assert db.execute("SELECT count FROM exposures").fetchone() == (2,)


def test_who_is_seen_while_a_write_fails_is_counted_too(trade):
    trade.begin()
    trade.visit("ada")
    trade.store._writer.execute("PRAGMA busy_timeout=300")

    async def story():
        with Store.open(trade.store.path) as other, other.writing():
            flushing = asyncio.create_task(trade.experiments.flush())
            await asyncio.sleep(0)
            trade.visit("ada")
            trade.visit("bob")
            with pytest.raises(FederationError):
                await flushing
        await trade.experiments.flush()

    asyncio.run(story())
    with trade.store.reading() as db:
        assert db.execute("SELECT count FROM exposures ORDER BY count").fetchall() == [(1,), (2,)]


def test_a_release_that_is_not_here_lets_the_control_answer_and_counts_nobody(trade):
    trade.begin(what=What(release=2))
    choices = [trade.experiments.choose("home", user=user, session=None) for user in USERS[:30]]
    assert {choice.label for choice in choices} == {"taste/control"}
    assert all(choice.stand_in for choice in choices)
    trade.visit("ada")
    assert trade.report()["waits_for"] == ["release 2"]
    assert sum(units for _, units in trade.figures().values()) == 0


def test_an_installed_release_answers_beside_the_one_that_serves(trade, load_release):
    trade.installed[2] = (load_release(2), None)
    trade.begin(what=What(release=2))
    watch_once(trade)
    choices = {user: trade.experiments.choose("home", user=user, session=None) for user in USERS[:30]}
    versions = {(choice.arm.name, choice.loaded and choice.loaded.release.version) for choice in choices.values()}
    assert versions == {("control", None), ("new", 2)}
    trade.service.swap(trade.service.loaded.with_version(4))
    choices = [trade.experiments.choose("home", user=user, session=None) for user in choices]
    assert {choice.loaded.release.version for choice in choices if choice.arm.name == "new"} == {2}


def test_the_release_that_serves_is_at_hand_without_loading_it_twice(trade):
    trade.begin(what=What(release=3))
    choices = [trade.experiments.choose("home", user=user, session=None) for user in USERS[:30]]
    assert {id(choice.loaded) for choice in choices if choice.arm.name == "new"} == {id(trade.service.loaded)}


def watch_once(trade):
    async def turn():
        await trade.experiments._turn(close=True)

    asyncio.run(turn())
