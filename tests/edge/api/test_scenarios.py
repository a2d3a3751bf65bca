"""Scenarios and campaigns as documents: what is set is read back, what is wrong is refused, what is gone is gone."""

import asyncio

import httpx
import pytest

from edge.api.app import build_app
from edge.arranging.arranging import Arranging
from edge.shop import Shop

FULL = {
    "name": "christmas",
    "filter": {"category": ["tea"], "where": "price < 20"},
    "boosts": [
        {"factor": 2, "filter": {"brand": ["own"]}},
        {"factor": 0.5, "by": {"attribute": "margin", "low": 0, "high": 0.5}},
        {"factor": 1.5, "fresh": {"attribute": "released", "half_life_days": 30}},
    ],
    "rules": [
        {"do": "pin", "items": ["i1"], "position": 2, "start": "2026-12-01T00:00:00+00:00"},
        {"do": "bury", "filter": {"brand": ["acme"]}, "end": "2027-01-01T00:00:00+00:00"},
        {"do": "exclude", "items": ["i2"]},
    ],
    "diversity": {"relevance": 0.5, "caps": {"category": 2}},
    "exploration": {"positions": [3], "epsilon": 0.2},
    "anchor": {"related": 1},
    "bought": "hide",
    "fusion": "votes",
    "voices": ["sequence", "popularity"],
}


class Office:
    def __init__(self, service):
        self.service = service
        self._app = build_app(Shop(service=service), api_keys=None)

    def ask(self, method, path, **parts):
        async def asking():
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
                return await client.request(method, path, **parts)

        return asyncio.run(asking())

    def post(self, path, body):
        return self.ask("POST", path, json=body)

    def scenarios(self):
        return {each["name"]: each for each in self.ask("GET", "/v1/scenarios").json()["scenarios"]}


@pytest.fixture
def office(make_service, load_release):
    return Office(make_service(load_release(3)))


def test_what_was_set_is_read_back(office):
    told = office.post("/v1/scenarios", FULL).json()
    assert told == {"name": "christmas", "unknown": ["margin", "released"]}
    listed = office.scenarios()
    assert listed["christmas"] == {**FULL, "built_in": False}
    assert {name for name, each in listed.items() if each["built_in"]} == {
        "home",
        "product",
        "basket",
        "email",
        "plain",
    }


def test_another_process_sees_it_within_a_second(office, stocked):
    seconds = [100.0]
    other = Arranging(stocked, clock=lambda: seconds[0])
    assert "christmas" not in other.scenarios.known()
    office.post("/v1/scenarios", FULL)
    seconds[0] += 1.0
    assert other.scenarios.known()["christmas"] == office.service.arranging.scenario("christmas")


def test_a_built_in_scenario_is_changed_and_comes_back(office):
    office.post("/v1/scenarios", {"name": "home", "bought": "hide"})
    assert office.scenarios()["home"] == {"name": "home", "bought": "hide", "built_in": False}
    removed = office.post("/v1/scenarios/remove", {"name": "home"}).json()
    assert removed == {"name": "home", "built_in": True}
    assert office.scenarios()["home"]["built_in"] is True
    again = office.post("/v1/scenarios/remove", {"name": "home"})
    assert again.status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"name": ""},
        {"name": "nul\x00"},
        {"name": "x", "colour": "red"},
        {"name": "x", "filter": {"where": "price <"}},
        {"name": "x", "boosts": [{"factor": 0, "filter": {}}]},
        {"name": "x", "boosts": [{"factor": 2}]},
        {"name": "x", "boosts": [{"factor": 2, "filter": {}, "by": {"attribute": "a", "low": 0, "high": 1}}]},
        {"name": "x", "boosts": [{"factor": 2, "by": {"attribute": "a", "low": 1, "high": 1}}]},
        {"name": "x", "boosts": [{"factor": 2, "fresh": {"attribute": "a", "half_life_days": 0}}]},
        {"name": "x", "boosts": [{"factor": 2, "filter": {}}] * 51},
        {"name": "x", "rules": [{"do": "pin", "filter": {}}]},
        {"name": "x", "rules": [{"do": "pin", "items": ["i1"], "position": 0}]},
        {"name": "x", "rules": [{"do": "bury"}]},
        {"name": "x", "rules": [{"do": "bury", "items": ["i1"], "start": "tomorrow"}]},
        {"name": "x", "rules": [{"do": "bury", "items": ["i1"], "start": "2026-01-02", "end": "2026-01-01"}]},
        {"name": "x", "diversity": {"relevance": 1.1}},
        {"name": "x", "diversity": {"caps": {"category": 0}}},
        {"name": "x", "exploration": {"positions": list(range(1, 12))}},
        {"name": "x", "exploration": {"epsilon": 2}},
        {"name": "x", "voices": ["choir"]},
        {"name": "x", "fusion": "dice"},
    ],
)
def test_a_wrong_scenario_is_refused_in_one_line_and_not_written(office, stocked, wrong):
    answer = office.post("/v1/scenarios", wrong)
    assert answer.status_code == 422, answer.text
    assert "\n" not in answer.json()["detail"]
    assert stocked.documents("scenario") == {}


def test_a_document_that_this_edge_does_not_understand_stops_no_answer(office, stocked):
    stocked.put_document("scenario", "home", {"name": "home", "from_the_future": True})
    assert office.post("/v1/recommendations", {"user": "ada"}).status_code == 200


def test_a_name_that_means_nothing_any_more_stops_no_answer(office):
    told = office.post(
        "/v1/scenarios",
        {
            "name": "home",
            "filter": {"where": "not margin < 0.1"},
            "boosts": [{"factor": 2, "filter": {"where": "margin"}}],
        },
    )
    assert told.json()["unknown"] == ["margin"]
    assert office.post("/v1/recommendations", {"user": "ada"}).json()["items"]


CAMPAIGN = {
    "name": "tea-week",
    "title": "A week of tea",
    "items": ["i1"],
    "filter": {"category": ["tea"]},
    "start": "2026-11-20T00:00:00+00:00",
    "end": "2026-12-27T00:00:00+00:00",
    "audience": {"interest": {"category": ["tea"], "did": "bought", "days": 60.0}, "regions": ["north"]},
    "placement": {"scenarios": ["home", "email"], "positions": [2, 5], "slots": 2},
    "impressions": 1000,
    "data": {"banner": "/tea.webp", "loud": True, "size": 3.0},
}


def test_a_campaign_is_set_listed_and_removed(office):
    assert office.post("/v1/promotions", CAMPAIGN).json() == {"name": "tea-week", "unknown": []}
    (listed,) = office.ask("GET", "/v1/promotions").json()["promotions"]
    assert listed == {**CAMPAIGN, "shown": 0, "running": False}
    assert office.post("/v1/promotions/remove", {"name": "tea-week"}).json() == {"name": "tea-week"}
    assert office.ask("GET", "/v1/promotions").json() == {"promotions": []}
    assert office.post("/v1/promotions/remove", {"name": "tea-week"}).status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"items": []},
        {"items": ["i1"], "placement": {"positions": []}},
        {"items": ["i1"], "placement": {"positions": [101]}},
        {"items": ["i1"], "impressions": 0},
        {"items": ["i1"], "start": "2026-01-02", "end": "2026-01-02"},
        {"items": ["i1"], "audience": {"interest": {"category": []}}},
        {"items": ["i1"], "audience": {"everybody": True}},
        {"items": ["i1"], "data": {"nested": {"deep": 1}}},
    ],
)
def test_a_wrong_campaign_is_refused(office, stocked, wrong):
    assert office.post("/v1/promotions", {"name": "week", **wrong}).status_code == 422
    assert stocked.documents("promotion") == {}


def test_how_often_a_campaign_was_shown_survives_a_restart(office, stocked):
    office.post("/v1/promotions", {"name": "week", "items": ["i1"], "impressions": 2})
    promotions = office.service.arranging.promotions
    promotions.note_shown(["week", "week"])
    promotions.save_if_possible()
    assert Arranging(stocked).promotions.shown("week") == 2
    office.post("/v1/promotions/remove", {"name": "week"})
    assert Arranging(stocked).promotions.shown("week") == 0
