"""What the service says of itself at `/openapi.json`: FastAPI's account of the routes, and what it cannot know."""

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from edge.api.examples import ANSWERS
from edge.api.lean import TRAITS, LeanRoute
from edge.api.problems import ProblemOut, responses

TITLE: Final = "Hanse edge"
VERSION: Final = "1"
DESCRIPTION: Final = """\
Recommendations, search and events of one shop, answered on the shop's own machine.

Send the API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`. A key is for queries, for ingest, for
administration, or for several of them; each operation names what it needs. Errors are problem details (RFC 9457) of one
clear line. After 429 wait for the seconds in `Retry-After`. Users, visits and searches stand in bodies, never in a URL.
"""
_SCHEMES: Final = {
    "key": {"type": "http", "scheme": "bearer", "description": "hanse-edge key new NAME --scope query"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key, sent plainly."},
}


def operation_id(route: APIRoute) -> str:
    """Method and path in one word, such as `post_events`: it stays when a function gets another name."""
    words = [word.strip("{}") for word in route.path.split("/") if word and word != "v1"]
    return (
        "_".join([*(method.lower() for method in sorted(route.methods or ())), *words])
        .replace("-", "_")
        .replace(".", "_")
    )


def describe(app: FastAPI, routes: Iterable[LeanRoute]) -> dict[str, Any]:
    """The whole OpenAPI document.

    Args:
        routes: those of the app, for examples: FastAPI leaves out of them what is null.
    """
    document = get_openapi(
        title=TITLE, version=VERSION, description=DESCRIPTION, routes=app.routes, servers=[{"url": "/"}]
    )
    for route in (route for route in routes if route.include_in_schema):
        for method in route.methods or ():
            _show(document["paths"][route.path][method.lower()], route, method)
    statuses: set[int] = set()
    for operation in operations(document):
        _summarize(operation)
        statuses |= _refer(operation)
        _tell_size(operation)
        for known in list(operation.get("security", ())):
            operation["security"].append({"header": known["key"]})
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})["ProblemOut"] = ProblemOut.model_json_schema()
    components["responses"] = responses(*statuses)
    components["securitySchemes"] = _SCHEMES
    document["tags"] = [{"name": name} for name in sorted(_tags(document))]
    return document


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those of all paths."""
    for path in document["paths"].values():
        yield from path.values()


def _show(operation: dict[str, Any], route: LeanRoute, method: str) -> None:
    """What goes in, and what comes out: as the route says it, or as we have it in our list."""
    said = (route.openapi_extra or {}).get("requestBody", {}).get("content", {})
    for kind, content in said.items():
        operation["requestBody"]["content"][kind].update(content)
    given = operation["responses"]["200"]["content"]
    for kind, content in route.responses[HTTPStatus.OK].get("content", {}).items():
        given[kind].update(content)
    for content in given.values():
        if (method, route.path) in ANSWERS:
            content.setdefault("example", ANSWERS[method, route.path])


def _summarize(operation: dict[str, Any]) -> None:
    """The first sentence of a description says it in short."""
    text = operation.get("description", "")
    if text:
        operation["summary"] = text.split("\n")[0].split(". ")[0].rstrip(".")


def _refer(operation: dict[str, Any]) -> set[int]:
    """Point from each problem to what is said of all of that status."""
    problems = {int(status) for status in operation["responses"] if int(status) >= HTTPStatus.BAD_REQUEST}
    for status in problems:
        operation["responses"][str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    return problems


def _tell_size(operation: dict[str, Any]) -> None:
    largest = operation.pop(TRAITS, {}).get("largest_body")
    if "requestBody" in operation and largest is not None:
        operation["x-max-body-bytes"] = largest


def _tags(document: dict[str, Any]) -> set[str]:
    return {tag for operation in operations(document) for tag in operation.get("tags", ())}
