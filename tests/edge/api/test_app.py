"""The HTTP service as a shop, a stranger and a vandal meet it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from edge.api.app import build_app
from edge.api.keys import ApiKey, ApiKeys, Permission, digest
from edge.records.store import Store
from edge.shop import Shop
from protocol.errors import NoSpaceError

KEY = "a-key-of-this-shop"
HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def shop(make_service, load_release):
    return client_of(make_service(load_release(3)))


class Customer:
    """A synchronous client of the app itself; a handler that raises answers 500, as a server would."""

    def __init__(self, app, headers):
        self.headers = dict(headers)
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    def request(self, method, path, *, headers=None, **body):
        async def ask():
            async with httpx.AsyncClient(transport=self._transport, base_url="http://edge") as client:
                return await client.request(method, path, headers={**self.headers, **(headers or {})}, **body)

        return asyncio.run(ask())

    def get(self, path, **parts):
        return self.request("GET", path, **parts)

    def post(self, path, **parts):
        return self.request("POST", path, **parts)


def client_of(service):
    keys = ApiKeys([ApiKey(digest=digest(KEY), label="tests", scopes=frozenset(Permission))])
    return Customer(build_app(Shop(service=service), api_keys=keys), HEADERS)


def recommend(shop, **body):
    return shop.post("/v1/recommendations", json=body)


def is_problem(response, status):
    body = response.json()
    return (
        response.status_code == body["status"] == status
        and response.headers["content-type"] == "application/problem+json"
        and "\n" not in body["detail"]
        and body["detail"]
    )


def test_answer_names_release_rung_and_rec_id(shop):
    body = recommend(shop, user="ada", limit=2).json()
    assert body["release"] == 3
    assert (body["rung"], body["degraded"], body["reasons"]) == ("sequence", False, [])
    assert body["rec_id"]
    assert body["items"][0]["item"] == "i2"
    assert body["items"][0]["title"] == "Item i2"


def test_before_the_first_release_the_answer_says_so(make_service):
    body = recommend(client_of(make_service()), user="stranger").json()
    assert body["release"] is None
    assert body["degraded"] is True
    assert "no_release" in body["reasons"]
    assert body["items"]


def test_posted_event_changes_the_next_answer(shop):
    before = recommend(shop, user="eve", limit=1).json()["items"]
    event = {"event_id": "e1", "type": "purchase", "user": "eve", "item": "i12"}
    assert shop.post("/v1/events", json=event).json() == {"added": 1, "duplicates": 0}
    assert recommend(shop, user="eve", limit=1).json()["items"] != before
    assert shop.post("/v1/events", json=event).json() == {"added": 0, "duplicates": 1}


def test_several_events_are_written_together_or_not_at_all(shop, stocked):
    before = stocked.event_count()
    good = {"type": "view", "user": "eve", "item": "i1"}
    refused = shop.post("/v1/events", json={"events": [good, {**good, "time": 12}]})
    assert is_problem(refused, 422)
    assert refused.json()["detail"].startswith("events[1]: time 1970")
    assert stocked.event_count() == before
    assert shop.post("/v1/events", json={"events": [good, good]}).json() == {"added": 2, "duplicates": 0}


@pytest.mark.parametrize(
    "change",
    [
        {"type": "theft"},
        {"quantity": -1},
        {"quantity": "many"},
        {"time": "2100-01-01"},
        {"time": "1970-01-01T00:00:00Z"},
        {"time": "yesterday"},
        {"time": 10**40},
        {"item": "not-in-the-list"},
        {"item": None},
        {"item": "nul\0byte"},
        {"user": ""},
        {"user": "\ud800"},
        {"user": "x" * 300},
        {"usr": "misspelt"},
    ],
)
def test_unbelievable_event_is_a_problem_in_one_line(shop, stocked, change):
    before = stocked.event_count()
    event = {"type": "purchase", "user": "eve", "item": "i1", **change}
    assert is_problem(shop.post("/v1/events", content=json.dumps(event), headers=JSON), 422)
    assert stocked.event_count() == before


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": "ada", "history": ["i1"]},
        {"user": "ada", "limit": 0},
        {"user": "ada", "limit": 101},
        {"user": "ada", "filter": {"colour": ["red"]}},
        {"history": ["i1"] * 1001},
        {"user": None},
        [],
        "ada",
    ],
)
def test_wrong_question_is_a_problem_in_one_line(shop, body):
    assert is_problem(shop.post("/v1/recommendations", json=body), 422)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"user": NaN}', b'{"user":"\\ud800"}'])
def test_what_is_no_json_is_no_crash(shop, content):
    response = shop.post("/v1/recommendations", content=content, headers=JSON)
    assert 400 <= response.status_code < 500
    assert is_problem(response, response.status_code)


@pytest.mark.parametrize("path", ["/v1/recommendations", "/v1/events", "/v1/similar", "/metrics", "/x"])
@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"X-API-Key": KEY + " "}, {"X-API-Key": ""}]
)
def test_without_the_key_nothing_is_said(shop, path, headers):
    shop.headers.pop("Authorization")
    response = shop.post(path, json={"user": "ada"}, headers=headers)
    assert is_problem(response, 401)
    assert "ada" not in response.text


def test_both_ways_of_sending_the_key_work(shop):
    shop.headers.pop("Authorization")
    for headers in (HEADERS, {"X-API-Key": KEY}):
        assert shop.post("/v1/recommendations", json={"user": "ada"}, headers=headers).status_code == 200


def test_health_needs_no_key_and_tells_nothing_private(shop):
    shop.headers.pop("Authorization")
    assert shop.get("/healthz").json() == {"status": "ok"}
    assert shop.get("/readyz").json()["release"]["version"] == 3


def test_huge_body_is_refused_before_it_is_read(shop):
    assert is_problem(shop.post("/v1/recommendations", content=b" " * (1 << 20) + b"{}", headers=JSON), 413)


def test_huge_body_without_a_length_is_refused_while_it_is_read(shop):
    async def endless():
        for _ in range(40):
            yield b" " * (1 << 16)

    assert is_problem(shop.post("/v1/recommendations", content=endless(), headers=JSON), 413)


def test_unknown_item_is_not_found(shop):
    assert is_problem(shop.post("/v1/similar", json={"item": "i99"}), 404)
    assert shop.post("/v1/similar", json={"item": "i5", "limit": 2}).json()["items"][0]["item"] in {"i4", "i6"}


def test_unknown_route_and_method_are_problems_too(shop):
    assert is_problem(shop.get("/v1/nothing"), 404)
    assert is_problem(shop.get("/v1/similar"), 405)


def test_numbers_are_as_good_ids_as_texts(shop, stocked):
    assert shop.post("/v1/events", json={"type": "view", "user": 17, "item": "i1"}).status_code == 200
    assert stocked.history("17", limit=5) == ["i1"]


def test_metrics_do_not_grow_with_what_callers_make_up(shop):
    for number in range(50):
        shop.get(f"/made-up/{number}")
        shop.request(f"VERB{number}", "/healthz")
        recommend(shop, user=f"user-{number}")
    page = shop.get("/metrics").text
    assert page.count("hanse_edge_requests_total{") < 12
    assert "user-" not in page
    assert 'hanse_edge_degraded_total{reason="unknown_user"} 50.0' in page
    assert "hanse_edge_release_version 3.0" in page


def test_full_disk_is_said_and_reading_goes_on(make_service, stocked):
    shop = client_of(make_service())
    pages = stocked._writer.execute("PRAGMA page_count").fetchone()[0]
    stocked._writer.execute(f"PRAGMA max_page_count={pages}")
    before = stocked.event_count()
    events = [{"type": "view", "user": f"u{n}" * 60, "item": "i1", "session": "s" * 200} for n in range(500)]
    assert is_problem(shop.post("/v1/events", json={"events": events}), 507)
    assert stocked.event_count() == before
    assert recommend(shop, user="ada").json()["items"]
    with pytest.raises(NoSpaceError):
        _fill(stocked)


def _fill(store):
    from edge.records.events import Event, EventType

    store.add_events(
        Event(event_id=f"x{n}", type=EventType.VIEW, user="u" * 200, item="i1", time_ms=1, session="s" * 200)
        for n in range(2_000)
    )


def test_openapi_names_bodies_and_errors(shop):
    paths = shop.get("/openapi.json").json()["paths"]
    assert {"/v1/recommendations", "/v1/similar", "/v1/events", "/healthz", "/readyz", "/metrics"} <= set(paths)
    assert {"200", "401", "413", "422"} <= set(paths["/v1/events"]["post"]["responses"])


def test_serving_starts_without_torch_and_flwr():
    assert imported_by("edge.serving.fitting, edge.records.importing, edge.releases.catalogue, edge.api.app") == set()


def test_serving_an_existing_store_loads_no_data_frames(stocked):
    open_it = f"; from pathlib import Path; edge.records.store.Store.open(Path({str(stocked.path)!r}))"
    assert imported_by("edge.records.store, edge.api.app", then=open_it, heavy={"pandas", "pyarrow", "onnx"}) == set()


def imported_by(modules, *, then="", heavy=frozenset({"torch", "flwr", "protocol.models"})):
    code = f"import sys, json, {modules}{then}; print(json.dumps(sorted({set(heavy)!r} & set(sys.modules))))"
    return set(json.loads(subprocess.check_output([sys.executable, "-c", code], timeout=60)))


SERVER = """
import secrets, sys, uvicorn
from pathlib import Path
from edge.api.app import build_app
from edge.serving.release import Loaded
from edge.serving.service import Service
from edge.records.store import Store
from edge.shop import Shop

store = Store.open(Path(sys.argv[1]))
service = Service(store, Loaded.of(store, None), draw=secrets.token_bytes, now_ms=lambda: 1_795_000_000_000)
app = build_app(Shop(service=service), api_keys=None)
uvicorn.run(app, port=int(sys.argv[2]), log_level="error", loop="uvloop", http="httptools")
"""


def test_kill_9_while_serving_loses_no_confirmed_event(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = tmp_path / "store.db"
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(path), str(port)])
    confirmed = []
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as shop:
            wait_until_alive(shop)
            began = time.monotonic()
            while time.monotonic() - began < 1.0:
                name = f"event-{len(confirmed)}"
                body = {"event_id": name, "type": "purchase", "user": "ada", "item": "i1"}
                assert shop.post("/v1/events", json=body).json() == {"added": 1, "duplicates": 0}
                confirmed.append(name)
            os.kill(server.pid, signal.SIGKILL)
    finally:
        server.kill()
        server.wait()
    with Store.open(path) as store:
        assert len(confirmed) > 20
        assert store.event_count() >= len(confirmed)
        assert len(store.history("ada", limit=10**6)) == store.event_count()


def wait_until_alive(shop):
    for _ in range(200):
        try:
            if shop.get("/healthz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail("the server did not start")
