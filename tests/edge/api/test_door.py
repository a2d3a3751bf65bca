"""Routes of every kind behind the door, and what it writes down of them."""

import asyncio
import io
import json

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from edge.api.access_log import AccessLog
from edge.api.admission import Budget
from edge.api.door import ARRIVED, Door
from edge.api.keys import ApiKey, ApiKeys, Permission, digest
from edge.api.lean import LeanRoute, json_response, lean_router, spec
from edge.serving.metrics import Metrics

SCOPES = {"reader": {Permission.QUERY}, "till": {Permission.INGEST}, "boss": set(Permission)}
QUERIES = Budget(most=2, wait_seconds=0.5)


class Body(BaseModel):
    """A number."""

    number: int


class House:
    """A few routes behind a door, and all that can be seen of it."""

    def __init__(self, *, keys=True, budgets=None, detail="all", most=100):
        self.metrics, self.written = Metrics(), io.StringIO()
        self.log = AccessLog(detail, stream=lambda: self.written, most=most)
        self.open = asyncio.Event()
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        routes = [route for route in self._routes().routes if isinstance(route, LeanRoute)]
        self.door = Door(
            app,
            keys=ApiKeys(ApiKey(digest=digest(name), label=name, scopes=frozenset(SCOPES[name])) for name in SCOPES)
            if keys
            else None,
            metrics=self.metrics,
            routes=routes,
            budgets={**dict.fromkeys(("query", "ingest", "admin", "stream"), QUERIES), **(budgets or {})},
            log=self.log,
        )

    def _routes(self):
        router = lean_router()

        @router.post("/v1/double", **spec(dict[str, int], permission=Permission.QUERY))
        async def double(body: Body) -> Response:
            return json_response({"number": 2 * body.number})

        @router.get("/v1/rules/{name}", **spec(dict[str, str], permission=Permission.ADMIN))
        async def rule(request: Request) -> Response:
            return json_response({"name": request.path_params["name"]})

        @router.delete("/v1/rules/{name}", **spec(dict[str, str], permission=Permission.ADMIN))
        async def drop(request: Request) -> Response:
            return json_response({"dropped": request.path_params["name"]})

        @router.post("/v1/stream", **spec(dict[str, int], permission=Permission.INGEST, largest_body=None))
        async def stream(request: Request) -> Response:
            return json_response({"bytes": sum([len(piece) async for piece in request.stream()])})

        @router.post("/v1/small", **spec(dict[str, int], permission=Permission.INGEST, largest_body=100))
        async def small(request: Request) -> Response:
            return json_response({"bytes": len(await request.body())})

        @router.get("/v1/wait", **spec(dict[str, str], permission=Permission.QUERY))
        async def wait() -> Response:
            await self.open.wait()
            return json_response({})

        @router.get("/v1/broken", **spec(dict[str, str], permission=Permission.QUERY))
        async def broken() -> Response:
            raise RuntimeError("ada has bought a ring")

        @router.get("/health", **spec(dict[str, str], permission=None, sheds=False))
        async def health() -> Response:
            return json_response({"status": "ok"})

        return router

    async def ask(self, method, path, *, key="boss", **parts):
        headers = {"X-API-Key": key, **parts.pop("headers", {})}
        transport = httpx.ASGITransport(self.door)
        async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
            return await client.request(method, path, headers=headers, **parts)

    def say(self, method, path, **parts):
        return asyncio.run(self.ask(method, path, **parts))

    def lines(self):
        self.log.write()
        return [json.loads(line) for line in self.written.getvalue().splitlines()]


@pytest.fixture
def house():
    return House()


def test_paths_with_names_in_them_keep_their_scope(house):
    assert house.say("GET", "/v1/rules/no%20fish").json() == {"name": "no fish"}
    assert house.say("DELETE", "/v1/rules/x").json() == {"dropped": "x"}
    assert house.say("GET", "/v1/rules/x", key="reader").status_code == 403
    assert house.say("GET", "/v1/rules/{name}", key="reader").status_code == 403
    assert house.say("DELETE", "/v1/rules/x", key="").status_code == 401


def test_another_method_is_told_which_there_are(house):
    refused = house.say("POST", "/v1/rules/x")
    assert (refused.status_code, refused.headers["allow"]) == (405, "DELETE, GET")
    assert house.say("GET", "/v1/double").headers["allow"] == "POST"
    assert house.say("GET", "/v1/nothing").status_code == 404


def test_monitors_may_ask_for_the_head_alone(house):
    assert house.say("HEAD", "/health", key="").status_code == 200


def test_without_keys_everybody_may_do_everything():
    assert House(keys=False).say("DELETE", "/v1/rules/x", key="").status_code == 200


def test_a_stream_has_no_end_and_a_small_body_has(house):
    assert house.say("POST", "/v1/stream", content=pieces(40)).json() == {"bytes": 40 << 16}
    assert house.say("POST", "/v1/small", content=b"x" * 100).json() == {"bytes": 100}
    assert house.say("POST", "/v1/small", content=b"x" * 101).status_code == 413
    assert house.say("POST", "/v1/small", content=pieces(1)).status_code == 413


async def pieces(count):
    for _ in range(count):
        yield b"x" * (1 << 16)


def test_a_body_that_breaks_off_is_not_taken_for_a_whole_one(house):
    async def go():
        messages = [{"type": "http.request", "body": b'{"number": 12', "more_body": True}, {"type": "http.disconnect"}]
        sent = []

        async def receive():
            return messages.pop(0)

        async def send(message):
            sent.append(message)

        headers = [(b"x-api-key", b"boss"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/double", "headers": headers}
        await house.door(scope, receive, send)
        return sent[0]["status"]

    assert asyncio.run(go()) == 400


def test_a_fault_of_ours_says_nothing_of_anybody(house, capsys):
    failed = house.say("GET", "/v1/broken")
    assert (failed.status_code, failed.headers["content-type"]) == (500, "application/problem+json")
    said = capsys.readouterr()
    assert "RuntimeError" in said.out + said.err
    assert "test_door.py" in said.out + said.err
    assert "ring" not in failed.text + said.out + said.err
    assert house.lines()[-1]["status"] == 500


def test_too_many_at_once_are_sent_away_but_not_health_and_not_the_tills(house):
    async def go():
        waiting = [asyncio.create_task(house.ask("GET", "/v1/wait")) for _ in range(5)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 3:
            done, _ = await asyncio.wait(waiting, timeout=0.01)
        refused = [task.result() for task in done]
        assert [answer.status_code for answer in refused] == [429] * 3
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert (await house.ask("GET", "/health", key="")).status_code == 200
        assert (await house.ask("POST", "/v1/small", key="till", content=b"x")).status_code == 200
        assert 'hanse_edge_requests_in_flight{lane="query"} 2.0' in house.metrics.page().decode()
        house.open.set()
        answers = await asyncio.gather(*(task for task in waiting if task not in done))
        assert [answer.status_code for answer in answers] == [200, 200]
        assert (await house.ask("GET", "/v1/wait")).status_code == 200

    asyncio.run(go())
    assert 'hanse_edge_requests_shed_total{lane="query"} 3.0' in house.metrics.page().decode()


def test_who_has_stood_too_long_before_the_door_is_sent_away():
    house = House(budgets={"query": Budget(most=2, wait_seconds=1e-9)})
    house.open.set()

    async def arrived_long_ago(scope, receive, send):
        await house.door({**scope, ARRIVED: -1e9}, receive, send)

    async def go(path):
        transport = httpx.ASGITransport(arrived_long_ago)
        async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
            return await client.get(path, headers={"X-API-Key": "boss"})

    assert asyncio.run(go("/v1/wait")).status_code == 200
    assert asyncio.run(go("/v1/wait")).status_code == 429
    assert asyncio.run(go("/health")).status_code == 200


def test_the_log_says_what_kind_of_thing_was_asked_by_whom_and_nothing_else(house):
    house.say("POST", "/v1/double?user=ada", json={"number": 4}, key="reader")
    house.say("GET", "/v1/rules/secret-name")
    house.say("GET", "/v1/ada")
    house.say("POST", "/v1/double", json={"number": 4}, key="wrong")
    lines = house.lines()
    assert [(line["method"], line["route"], line["status"], line["key"]) for line in lines] == [
        ("POST", "/v1/double", 200, "reader"),
        ("GET", "/v1/rules/{name}", 200, "boss"),
        ("other", "other", 404, "boss"),
        ("POST", "/v1/double", 401, None),
    ]
    assert set(lines[0]) == {"event", "time", "method", "route", "status", "ms", "key", "bytes"}
    assert lines[0]["bytes"] == len('{"number":8}')
    assert lines[0]["time"].startswith("20")
    assert "ada" not in house.written.getvalue()
    assert "secret" not in house.written.getvalue()


@pytest.mark.parametrize(("detail", "count"), [("none", 0), ("failures", 1), ("all", 2)])
def test_the_log_is_as_long_as_it_was_asked_to_be(detail, count):
    house = House(detail=detail)
    house.say("GET", "/v1/broken")
    house.say("GET", "/health")
    assert len(house.lines()) == count


def test_a_flood_is_counted_and_not_kept():
    house = House(most=3)
    for _ in range(10):
        house.say("GET", "/health")
    assert [line["event"] for line in house.lines()] == ["request"] * 3 + ["requests not logged"]
    assert house.lines()[-1]["count"] == 7


def test_figures_are_by_template(house):
    for number in range(20):
        house.say("GET", f"/v1/rules/{number}")
        house.say("GET", f"/{number}")
    page = house.metrics.page().decode()
    assert 'hanse_edge_requests_total{method="GET",route="/v1/rules/{name}",status="200"} 20.0' in page
    assert 'hanse_edge_requests_total{method="other",route="other",status="404"} 20.0' in page
    assert 'hanse_edge_request_seconds_count{route="/v1/rules/{name}"} 20.0' in page


def test_an_endpoint_takes_one_thing():
    router = lean_router()
    with pytest.raises(TypeError, match="more than one body"):

        @router.post("/v1/x", **spec(dict[str, str], permission=Permission.QUERY))
        async def two(body: Body, other: Body) -> Response:
            raise NotImplementedError
