"""Experiments as an operator sets them, and as the answers and figures show them."""

import asyncio
import json

import httpx
import pytest

from edge.api.app import build_app
from edge.arranging.scenario import Rule, Scenario
from edge.experiments.releases import Releases
from edge.experiments.running import Experiments
from edge.records.events import Event, EventType
from edge.search.searching import Search
from edge.shop import Shop

NOW = 1_795_000_000_000


class Door:
    """The app without keys; what its parts watch is looked after by hand."""

    def __init__(self, service, search=None):
        self.service = service
        self.installed = {}
        self.numbers = iter(range(1, 1_000))
        self.experiments = Experiments(
            service.store,
            Releases(service, self.installed.get),
            scenarios=self.service.arranging.scenarios.known,
            draw=lambda size: next(self.numbers).to_bytes(size, "big"),
            now_ms=lambda: NOW,
        )
        self._app = build_app(Shop(service=service, experiments=self.experiments, search=search), api_keys=None)

    def ask(self, method, path, **parts):
        async def asking():
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
                return await client.request(method, path, **parts)

        return asyncio.run(asking())

    def post(self, path, **body):
        return self.ask("POST", path, json=body)

    def begin(self, **parts):
        arms = [{"name": "control", "share": 0.5}, {"name": "new", "share": 0.5, "what": parts.pop("what", {})}]
        answer = self.post("/v1/experiments", **{"name": "taste", "arms": arms, "run": True, **parts})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def figures(self):
        asyncio.run(self.experiments.flush())
        answer = self.ask("GET", "/v1/experiments")
        assert answer.status_code == 200, answer.text
        return answer.json()["experiments"]


@pytest.fixture
def door(make_service, load_release):
    return Door(make_service(load_release(3)))


def refused(answer, status, line):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert line in answer.json()["detail"]


def test_an_experiment_is_set_shown_stopped_and_removed(door):
    assert door.begin(what={"fusion": "votes"}) == {"name": "taste", "state": "running"}
    (found,) = door.figures()
    assert (found["name"], found["state"], found["unit"]) == ("taste", "running", "user")
    assert [(arm["name"], arm["units"], arm["what"]) for arm in found["arms"]] == [
        ("control", 0, {}),
        ("new", 0, {"fusion": "votes"}),
    ]
    assert [metric["name"] for metric in found["arms"][0]["metrics"]] == ["conversion", "clicks"]
    assert door.post("/v1/experiments/stop", name="taste").json() == {"name": "taste", "state": "stopped"}
    assert door.post("/v1/experiments/remove", name="taste").json() == {"name": "taste"}
    assert door.figures() == []


def test_no_salt_leaves_the_site(door):
    door.begin()
    documents = door.service.store.documents("experiment")["taste"]
    told = door.ask("GET", "/v1/experiments").text
    assert documents["salt"] not in told
    assert documents["layer_salt"] not in told


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({"name": "a/b"}, "a slash separates experiment and arm"),
        ({"name": ""}, "name"),
        ({"arms": [{"name": "only", "share": 1}]}, "arms"),
        ({"arms": [{"name": "a", "share": 0.7}, {"name": "b", "share": 0.7}]}, "more than 1"),
        ({"arms": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5, "what": {"fusoin": "votes"}}]}, "fusoin"),
        ({"metrics": [{"name": "m", "kind": "revenue"}]}, "metric m has no cap"),
        ({"metrics": [{"name": "m", "kind": "profit"}]}, "kind"),
        ({"start": "tomorrow"}, "neither ISO 8601"),
        ({"start": "2026-12-02", "end": "2026-12-01"}, "ends before it starts"),
        ({"planned_units": 0}, "planned_units"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_in_one_line(door, parts, line):
    body = {"name": "taste", "arms": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5}], **parts}
    refused(door.post("/v1/experiments", **body), 422, line)
    assert door.figures() == []


def test_changing_the_arms_of_a_running_experiment_is_refused(door):
    door.begin()
    arms = [{"name": "control", "share": 0.9}, {"name": "new", "share": 0.1}]
    refused(door.post("/v1/experiments", name="taste", arms=arms), 422, "may only grow, all by the same factor")
    assert door.figures()[0]["arms"][0]["share"] == 0.5


@pytest.mark.parametrize("path", ["/v1/experiments/stop", "/v1/experiments/remove"])
def test_an_unknown_experiment_is_not_found(door, path):
    refused(door.post(path, name="nobody"), 404, "there is no experiment nobody")


def test_a_draft_cannot_be_stopped(door):
    door.begin(run=False)
    refused(door.post("/v1/experiments/stop", name="taste"), 422, "experiment taste does not run")


def test_the_example_of_the_documentation_is_taken(door):
    body = door.ask("GET", "/openapi.json").json()["paths"]["/v1/experiments"]["post"]["requestBody"]
    assert door.post("/v1/experiments", **body["content"]["application/json"]["example"]).json()["state"] == "running"


def ask(door, **body):
    answer = door.post("/v1/recommendations", **{"limit": 3, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def bought(user, item, at=NOW):
    return Event(event_id=f"{user}-{item}", type=EventType.PURCHASE, user=str(user), item=item, time_ms=at)


def arms_of(door, users=range(30), **body):
    return {str(user): ask(door, user=str(user), **body)["arm"] for user in users}


def units(door):
    return sum(arm["units"] for arm in door.figures()[0]["arms"])


def test_the_answer_names_its_arm_and_who_got_it_is_counted(door):
    door.begin()
    arms = arms_of(door)
    assert set(arms.values()) == {"taste/control", "taste/new"}
    assert arms_of(door) == arms
    assert units(door) == 30


def test_without_an_experiment_and_for_nobody_in_particular_there_is_no_arm(door):
    assert ask(door, user="ada")["arm"] is None
    door.begin()
    assert ask(door, history=["i1"])["arm"] is None
    assert units(door) == 0


def test_an_arm_answers_as_its_settings_say(door):
    door.begin(what={"overrides": {"filter": {"category": ["fish"]}}})
    found = {ask(door, user=str(user))["arm"]: ask(door, user=str(user)) for user in range(30)}
    fish = {f"i{number}" for number in range(2, 13, 2)}
    assert {item["item"] for item in found["taste/new"]["items"]} <= fish
    assert not {item["item"] for item in found["taste/control"]["items"]} <= fish


def test_an_arm_answers_as_another_scenario(door):
    door.service.arranging.scenarios.put("pinned", Scenario(name="pinned", rules=[Rule(do="pin", items=["i11"])]))
    door.begin(what={"scenario": "pinned"})
    first = {answer["arm"]: answer["items"][0]["item"] for user in range(30) if (answer := ask(door, user=str(user)))}
    assert first["taste/new"] == "i11"
    assert first["taste/control"] != "i11"


def test_an_arm_answers_from_another_release(door, load_release):
    door.installed[2] = (load_release(2), None)
    door.begin(what={"release": 2})
    asyncio.run(door.experiments._turn(close=False))
    releases = {(answer["arm"], answer["release"]) for user in range(30) if (answer := ask(door, user=str(user)))}
    assert releases == {("taste/control", 3), ("taste/new", 2)}


def test_where_the_release_is_not_here_the_control_answers_and_says_so(door):
    door.begin(what={"release": 2})
    answers = [ask(door, user=str(user)) for user in range(30)]
    assert {answer["arm"] for answer in answers} == {"taste/control"}
    assert {answer["release"] for answer in answers} == {3}
    assert all("arm_not_here" in answer["reasons"] and answer["degraded"] for answer in answers)
    assert door.figures()[0]["waits_for"] == ["release 2"]
    assert units(door) == 0


def test_a_scenario_that_is_removed_while_an_arm_names_it_makes_no_answer_fail(door):
    door.service.arranging.scenarios.put("deals", Scenario(name="deals"))
    door.begin(what={"scenario": "deals"})
    door.service.arranging.scenarios.drop("deals")
    assert "arm_not_here" in ask(door, user="ada")["reasons"]
    assert door.figures()[0]["waits_for"] == ["scenario deals"]


def test_a_visitor_keeps_the_arm_at_the_very_moment_of_logging_in(door):
    door.begin()
    for number in range(30):
        session, user = f"visit-{number}", f"user-{number}"
        arm = ask(door, session=session)["arm"]
        assert door.post("/v1/sessions/merge", session=session, user=user).status_code == 200
        assert ask(door, user=user)["arm"] == arm
    assert units(door) == 30


@pytest.fixture
def searching(make_service, load_release, tmp_path):
    service = make_service(load_release(3))
    search = Search.open(tmp_path / "search", service, language="english", draw=bytes, clock=lambda: 1_000.0)
    search.follower.step()
    search.look_again()
    yield Door(service, search)
    search.close()


def find(door, user):
    answer = door.post("/v1/search", query="item", user=str(user), limit=12)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_search_is_answered_under_an_arm_too(searching):
    searching.begin(scenarios=["search"], what={"search": {"personal": False}})
    orders = {}
    for user in range(30):
        searching.service.store.add_events([bought(user, "i2"), bought(user, "i12", at=NOW + 1)])
        found = find(searching, user)
        orders.setdefault(found["arm"], set()).add(tuple(item["item"] for item in found["items"]))
    assert set(orders) == {"taste/control", "taste/new"}
    assert not orders["taste/control"] & orders["taste/new"]
    assert ask(searching, user="1")["arm"] is None
    assert units(searching) == 30


def test_a_search_says_so_where_the_control_stands_in(searching):
    searching.begin(what={"release": 2})
    assert "arm_not_here" in find(searching, 1)["reasons"]
    assert units(searching) == 0


def test_who_is_erased_is_in_no_figure(door):
    door.begin()
    arms_of(door, range(3))
    asyncio.run(door.experiments.flush())
    assert door.post("/v1/users/erase", user="1").json()["known"]
    assert units(door) == 2


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ({"scenario": "nowhere"}, "there is no scenario nowhere"),
        ({"overrides": {"diversity": {"relevance": 2}}}, "overrides make no scenario: diversity.relevance"),
        ({"overrides": {"divresity": {}}}, "overrides make no scenario: divresity"),
        ({"overrides": {"name": "home"}}, "cannot rename a scenario"),
    ],
)
def test_an_arm_that_could_not_answer_is_refused_beforehand(door, what, line):
    arms = [{"name": "control", "share": 0.5}, {"name": "new", "share": 0.5, "what": what}]
    refused(door.post("/v1/experiments", name="taste", arms=arms, run=True), 422, line)


def test_the_table_for_people_says_what_the_figures_say(door, rng):
    from edge.experiments import telling
    from edge.experiments.exposing import Unit

    door.begin(metrics=[{"name": "sold", "kind": "conversion"}])
    choices = {user: door.experiments.choose("home", user=user, session=None) for user in map(str, range(4_000))}
    for user, choice in choices.items():
        door.experiments.answered(choice)
        assert choice.unit == Unit(person=user)
    buyers = [user for user, choice in choices.items() if rng.random() < (0.1, 0.3)[choice.arm.name == "new"]]
    bought = [Event(event_id=f"e{user}", type=EventType.PURCHASE, user=user, item="i1", time_ms=NOW) for user in buyers]
    door.service.store.add_events(bought)
    (found,) = json.loads(json.dumps(door.figures()))
    assert found["sample_ratio"]["mismatch"] is False
    said = found["arms"][1]["metrics"][0]["against_control"]
    assert said["verdict"] == "higher"
    assert said["comparison"]["always"]["low"] > 0.1
    control, new = telling.rows(found)
    assert control[:2] == ("sold", "control")
    assert new[-1] == "higher"
    assert new[4].startswith("+")
    assert "%" in new[5]
    assert "taste: running, everywhere, by user" in telling.heading(found)
