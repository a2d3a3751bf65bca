"""What the service says of itself: whole, true, and readable without a line to anywhere."""

import re

import jsonschema_rs
import pytest

from edge.api.examples import ANSWERS

OPEN = {"/healthz", "/readyz", "/openapi.json", "/docs"}
BODILESS = {"/v1/search/rebuild"}


@pytest.fixture(scope="module")
def shop(agent):
    with agent.client() as client:
        yield client


@pytest.fixture(scope="module")
def document(shop):
    return shop.get("/openapi.json").json()


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def contents(operation):
    taken = operation.get("requestBody", {}).get("content", {})
    given = operation["responses"]["200"]["content"]
    return [*taken.items(), *given.items()]


def test_every_operation_has_a_name_of_its_own_a_text_and_a_tag(document):
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    for method, path, operation in operations(document):
        assert operation["operationId"].isidentifier(), path
        assert len(operation["summary"]) > 10, (method, path)
        assert len(operation["tags"]) == 1
    tags = {operation["tags"][0] for _, _, operation in operations(document)}
    assert {tag["name"] for tag in document["tags"]} == tags


def test_every_operation_shows_what_goes_in_and_what_comes_out(document):
    bare = [
        f"{method} {path} {kind}"
        for method, path, operation in operations(document)
        for kind, content in contents(operation)
        if "example" not in content
    ]
    assert bare == []
    posts = {path: operation for method, path, operation in operations(document) if method in {"POST", "PATCH"}}
    assert {path for path in posts if "requestBody" not in posts[path]} == BODILESS


def test_no_example_is_of_a_route_that_is_gone(document):
    assert set(ANSWERS) <= {(method, path) for method, path, _ in operations(document)}


def test_examples_of_answers_are_answers(document):
    for method, path, operation in operations(document):
        for kind, content in operation["responses"]["200"]["content"].items():
            schema = {**content["schema"], "components": document["components"]}
            faults = [error.message for error in jsonschema_rs.validator_for(schema).iter_errors(content["example"])]
            assert faults == [], (method, path, kind)


def test_examples_of_requests_are_understood(document, shop):
    for method, path, operation in operations(document):
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            body = {"json": content["example"]} if kind.endswith("/json") else {"content": content["example"]}
            answer = shop.request(method, path, headers={"Content-Type": kind}, **body)
            assert answer.status_code in {200, 404}, (method, path, answer.text)


def test_who_may_ask_is_said_and_true(document, shop):
    schemes = document["components"]["securitySchemes"]
    assert (schemes["key"]["scheme"], schemes["header"]["name"]) == ("bearer", "X-API-Key")
    stranger = {"X-API-Key": "wrong", "Content-Type": "application/json"}
    for method, path, operation in operations(document):
        said = [scope for known in operation.get("security", ()) for scope in known.values()]
        assert (said == []) == (path in OPEN), path
        assert len({tuple(scope) for scope in said}) <= 1
        answer = shop.request(method, path, headers=stranger)
        assert answer.status_code == (200 if path in OPEN else 401), path


def test_problems_are_told_alike_everywhere(document):
    told = document["components"]["responses"]
    for response in told.values():
        assert list(response["content"]) == ["application/problem+json"]
        assert response["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/ProblemOut"}
    assert "Retry-After" in told["Problem429"]["headers"]
    for _, path, operation in operations(document):
        if path not in OPEN:
            assert {"401", "403", "422", "429"} <= set(operation["responses"]), path


def test_the_page_needs_nothing_from_elsewhere(document, shop):
    page = shop.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert re.findall(r"(?:src|href)=\"(?!#)", page.text) == []
    assert "<script" not in page.text
    for path in document["paths"]:
        assert path in page.text
    for link in re.findall(r'href="#([^"]+)"', page.text):
        assert f'id="{link}"' in page.text
