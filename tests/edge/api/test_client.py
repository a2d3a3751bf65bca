"""The client that shops get: it knows every operation, says what it means, and repeats only what is harmless."""

import ast
import inspect
import json
import typing
from pathlib import Path

import httpx
import pytest

import edge.client.edge
from edge.client import Edge, EdgeError
from edge.client.answers import Item

WHOLE = {"events", "items", "scenario", "promotion", "experiment", "synonyms"}
"""Bodies that are given whole, as one argument."""


@pytest.fixture(scope="module")
def shop(agent):
    with Edge(agent.url, agent.key) as shop:
        yield shop


def calls():
    """Method, path and the name of the client's method, as they stand in its source."""
    tree = ast.parse(Path(edge.client.edge.__file__).read_text())
    for method in ast.walk(tree):
        if not isinstance(method, ast.FunctionDef):
            continue
        for call in ast.walk(method):
            if isinstance(call, ast.Call):
                words = [part.value for part in call.args if isinstance(part, ast.Constant)]
                if len(words) >= 2 and words[0] in {"GET", "POST", "PATCH", "PUT", "DELETE"}:
                    yield words[0], words[1], method.name


@pytest.fixture(scope="module")
def document(shop):
    return shop.openapi()


def test_every_operation_has_a_method_and_every_method_an_operation(document):
    known = {(method, path) for method, path, _ in calls()}
    said = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert known == said


def schema_of(document, schema):
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def test_arguments_are_the_fields_of_the_body(document):
    for method, path, name in calls():
        content = document["paths"][path][method.lower()].get("requestBody", {}).get("content", {})
        schema = schema_of(document, content.get("application/json", {}).get("schema", {}))
        taken = set(inspect.signature(getattr(Edge, name)).parameters) - {"self"}
        if schema and not (len(taken) == 1 and taken <= WHOLE):
            assert taken == set(schema["properties"]), name


def test_an_event_is_given_by_its_fields(document):
    taken = set(inspect.signature(Edge.add_event).parameters) - {"self"}
    assert taken == set(document["components"]["schemas"]["EventIn"]["properties"])


def test_types_of_answers_are_those_of_the_schema(document):
    for method, path, name in calls():
        content = document["paths"][path][method.lower()]["responses"]["200"]["content"]
        gives = typing.get_type_hints(getattr(Edge, name))["return"]
        if "application/json" in content and typing.is_typeddict(gives):
            agree(document, content["application/json"]["schema"], gives, name)


def agree(document, schema, gives, where):
    schema = schema_of(document, schema)
    hints = typing.get_type_hints(gives)
    assert set(hints) == set(schema["properties"]), where
    for name, kind in hints.items():
        for part in typing.get_args(kind):
            if typing.is_typeddict(part):
                agree(document, schema["properties"][name]["items"], part, f"{where}.{name}")


def test_a_day_in_a_shop(shop):
    assert shop.put_items([{"item": "new", "title": "New", "category": "tea", "price": 3}]) == {"changed": 1}
    assert shop.patch_items([{"item": "new", "price": 2.5, "stock": 4}]) == {"changed": 1}
    assert shop.read_items(["new", "nothing"])["missing"] == ["nothing"]
    answer = shop.recommend(user="dora", limit=3, exclude=["i1"])
    assert len(answer["items"]) == 3
    assert set(answer["items"][0]) >= Item.__required_keys__
    assert shop.add_event("purchase", user="dora", item="new", rec_id=answer["rec_id"]) == {"added": 1, "duplicates": 0}
    assert shop.stream_events({"type": "view", "session": "s9", "item": f"i{n}"} for n in range(1, 4))["added"] == 3
    assert shop.merge(session="s9", user="dora") == {"moved": 3}
    assert len(shop.read_events(user="dora")["events"]) == 4
    known = list(shop.export(user="dora"))
    assert known[0] == {"user": "dora", "sessions": ["s9"]}
    assert len(known) == 5
    assert shop.erase(user="dora")["events"] == 4
    assert shop.read_events(user="dora")["events"] == []
    assert shop.trending_in("tea", limit=2)["items"] is not None
    assert shop.alive() == {"status": "ok"}
    assert "hanse_edge_requests_total" in shop.metrics()


def test_a_refusal_is_one_error_with_the_edges_own_words(shop, agent):
    with pytest.raises(EdgeError, match="give either") as refused:
        shop.recommend()
    assert refused.value.status == 422
    with Edge(agent.url, "wrong") as stranger, pytest.raises(EdgeError) as refused:
        list(stranger.export(user="ada"))
    assert refused.value.status == 401
    assert "API key" in refused.value.detail


def test_nobody_there_is_the_same_error():
    with Edge("http://127.0.0.1:9", retries=0) as shop, pytest.raises(EdgeError, match="does not answer") as refused:
        shop.alive()
    assert refused.value.status is None


def test_something_else_there_is_the_same_error():
    page = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>"))
    with Edge("http://x", transport=page) as shop, pytest.raises(EdgeError, match="is no edge"):
        shop.ready()


class Unsteady(httpx.BaseTransport):
    """A line that loses answers, or an edge that has no time, and at last an answer."""

    def __init__(self, *answers):
        self.answers, self.seen = list(answers), []

    def handle_request(self, request):
        self.seen.append(request.read())
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer[0], json=answer[1], headers=answer[2] if len(answer) > 2 else {})


BUSY = (429, {"detail": "the edge has too much to do"}, {"Retry-After": "0"})
LOST = httpx.ReadError("connection reset")
DOWN = httpx.ConnectError("refused")
ADDED = (200, {"added": 1, "duplicates": 0})


@pytest.mark.parametrize("trouble", [LOST, DOWN, BUSY])
def test_an_event_is_sent_again_under_the_same_name(trouble):
    line = Unsteady(trouble, ADDED)
    with Edge("http://x", transport=line) as shop:
        assert shop.add_event("view", user="ada", item="i1")["added"] == 1
    first, second = (json.loads(body)["events"][0] for body in line.seen)
    assert first == second
    assert first["event_id"]


@pytest.mark.parametrize(("trouble", "tries"), [(LOST, 1), (DOWN, 2), (BUSY, 2)])
def test_a_removal_whose_answer_was_lost_is_not_sent_again(trouble, tries):
    line = Unsteady(trouble, (200, {"name": "x"}))
    with Edge("http://x", transport=line) as shop:
        try:
            shop.remove_promotion("x")
        except EdgeError:
            assert tries == 1
    assert len(line.seen) == tries


@pytest.mark.parametrize("trouble", [LOST, DOWN, BUSY])
def test_a_stream_is_read_once(trouble):
    line = Unsteady(trouble, ADDED)
    with Edge("http://x", transport=line) as shop, pytest.raises(EdgeError):
        shop.stream_events([{"type": "view"}])
    assert len(line.seen) == 1


def test_an_edge_that_wants_to_be_left_alone_for_long_is_not_asked_again():
    line = Unsteady((429, {"detail": "later"}, {"Retry-After": "60"}), ADDED)
    with Edge("http://x", transport=line) as shop, pytest.raises(EdgeError) as refused:
        shop.add_event("view", user="ada", item="i1")
    assert (refused.value.status, refused.value.retry_after, len(line.seen)) == (429, 60, 1)


def test_what_is_wrong_stays_wrong():
    line = Unsteady((422, {"detail": "no"}), ADDED)
    with Edge("http://x", transport=line) as shop, pytest.raises(EdgeError):
        shop.add_event("view", user="ada", item="i1")
    assert len(line.seen) == 1


def test_it_gives_up_after_so_many_times():
    line = Unsteady(DOWN, DOWN, DOWN, ADDED)
    with Edge("http://x", transport=line, retries=2) as shop, pytest.raises(EdgeError, match="does not answer"):
        shop.alive()
    assert len(line.seen) == 3
