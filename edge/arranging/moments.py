"""Times that operators write down: ISO 8601 or a count since 1970 in, milliseconds inside, ISO 8601 out."""

from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from edge.records.events import iso, parse_time
from protocol.errors import BadInputError


def _read(value: Any) -> int:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError("a time is a text or a whole number")  # noqa: TRY004 - pydantic takes only this for a fault of the input
    try:
        return parse_time(value)
    except BadInputError as error:
        raise ValueError(str(error)) from error


_TEXT = {"type": "string", "format": "date-time", "examples": ["2026-12-01T00:00:00Z"]}
Moment = Annotated[
    int,
    BeforeValidator(_read),
    PlainSerializer(iso, return_type=str),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "integer"}]}, mode="validation"),
    WithJsonSchema(_TEXT, mode="serialization"),
]
"""Milliseconds since 1970, UTC."""


def is_on(start: int | None, end: int | None, now_ms: int) -> bool:
    """Whether something with these dates holds now: from its start, until before its end; None: open."""
    return (start is None or start <= now_ms) and (end is None or now_ms < end)
