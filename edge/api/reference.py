"""What the service says of itself: `/openapi.json` for programs, `/docs` for people.

The page is plain HTML of our own. FastAPI's is a script from elsewhere, and an edge may have no line to elsewhere.
"""

from collections.abc import Callable, Iterator
from functools import cache
from html import escape
from typing import Any

import orjson
from fastapi import APIRouter, Response

from edge.api.lean import LeanResponse, json_response, lean_router, spec

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
h2{border-bottom:1px solid #ccc;margin-top:2.5rem}h3{font:600 1rem/1.5 ui-monospace,monospace}
pre{background:#f4f4f2;padding:.75rem;overflow-x:auto}
td,th{text-align:left;padding:.15rem 1rem .15rem 0;vertical-align:top}
.needs{color:#666;font-size:.9rem}
"""


def routes(document: Callable[[], dict[str, Any]]) -> APIRouter:
    """Routes about the routes; open to anybody, for they say the same of every edge.

    Args:
        document: makes the OpenAPI document, once all routes are there; asked once.
    """
    router, document = lean_router(), cache(document)

    @router.get("/openapi.json", **spec(dict[str, object], permission=None, answer={"openapi": "3.1.0"}, sheds=False))
    async def openapi() -> Response:
        """This document."""
        return json_response(document())

    @router.get("/docs", **spec(str, permission=None, answer="<!doctype html>…", media="text/html", sheds=False))
    async def docs() -> Response:
        """The same as a page to read."""
        found = LeanResponse(page(document()).encode(), 200, b"text/html; charset=utf-8")
        found.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
        return found

    return router


def page(document: dict[str, Any]) -> str:
    """HTML of an OpenAPI document."""
    info = document["info"]
    parts = [
        f"<h1>{escape(info['title'])}</h1>",
        *(f"<p>{escape(text)}</p>" for text in info["description"].split("\n\n")),
    ]
    for tag in document["tags"]:
        parts.append(f"<h2>{escape(tag['name'])}</h2>")
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation.get("tags", ()):
                    parts.extend(_operation(method, path, operation))
    parts.append("<h2>schemas</h2>")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts.extend(_schema(name, schema))
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f"<style>{_STYLE}</style><body>{body}</body></html>\n"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    needs = " or ".join(
        sorted({scope for known in operation.get("security", ()) for scopes in known.values() for scope in scopes})
    )
    problems = ", ".join(sorted(status for status in operation["responses"] if status >= "400"))
    yield f"<h3>{method.upper()} {escape(path)}</h3><p>{escape(operation.get('description', ''))}</p>"
    key = f"API key for {needs}" if needs else "no API key"
    yield f'<p class="needs">{key}{problems and f"; problems: {problems}"}</p>'
    for parameter in operation.get("parameters", ()):
        yield f"<p><code>{escape(parameter['name'])}</code> {escape(parameter.get('description', ''))}</p>"
    yield from _content("takes", operation.get("requestBody", {}))
    for status, response in operation["responses"].items():
        if status < "400":
            yield from _content("gives", response)


def _content(word: str, said: dict[str, Any]) -> Iterator[str]:
    for kind, content in said.get("content", {}).items():
        named = _type(content.get("schema", {}))
        yield f"<p>{word} <code>{escape(kind)}</code> {named}</p>"
        if "example" in content:
            example = content["example"]
            text = example if isinstance(example, str) else orjson.dumps(example, option=orjson.OPT_INDENT_2).decode()
            yield f"<pre>{escape(text)}</pre>"


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{escape(schema.get("description", ""))}</p>'
    if "enum" in schema:
        yield f"<p>{escape(', '.join(map(str, schema['enum'])))}</p>"
    required = schema.get("required", ())
    rows = [
        f"<tr><td><code>{escape(field)}</code>{'' if field in required else ' ?'}</td><td>{_type(part)}</td>"
        f"<td>{escape(part.get('description', ''))}</td></tr>"
        for field, part in schema.get("properties", {}).items()
    ]
    if rows:
        yield f"<table>{''.join(rows)}</table>"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(_type(part) for part in schema[several])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("type", "anything")))
