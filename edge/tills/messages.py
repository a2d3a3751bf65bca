"""What a till's message says: one event, a list of them, `{"events": [...]}`, or one a line (NDJSON).

Each event stands for itself: a till reads no answer, so one bad line must not hold back what its neighbours report.

A message may come twice (QoS 1), and the same sale must count once. An event with an ``event_id`` is known by it. One
without, but with a time, gets an id from its own content, so the same content is the same event. One with neither is
whatever happened when its message came: it gets an id from its message, which the broker's copy after a broken
connection shares; only a crash between commit and acknowledgement can count it twice.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import orjson

from edge.api.event_bodies import EventIn
from protocol.errors import BadInputError

MOST_EVENTS: Final = 10_000
"""In one message."""
_ID_CHARACTERS: Final = 32

Check = Callable[[bytes], EventIn]
"""One event from its JSON, checked as the HTTP API does it; raises BadInputError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """An event that can be believed.

    Attributes:
        said: what was sent, as text.
        event: the same, with an id in any case.
    """

    said: str
    event: EventIn


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Something in a message that is no event.

    Attributes:
        said: what was sent, as text.
        why: one line.
    """

    said: str
    why: str


def read(payload: bytes, *, message_id: str, check: Check) -> Iterator[Taken | Refused]:
    """The events of a message, and what of it was refused.

    Args:
        message_id: the same for the same message, however often it comes.
    """
    parts = list(_parts(payload))
    if len(parts) > MOST_EVENTS:
        why = f"{len(parts)} events in one message, at most {MOST_EVENTS} are allowed"
        yield Refused(said=as_text(payload), why=why)
        return
    for number, part in enumerate(parts):
        try:
            yield part if isinstance(part, Refused) else _event(part, f"{message_id}:{number}", check)
        except TypeError:  # orjson reads deeper than it writes
            yield Refused(said=as_text(payload), why=f"event {number} is nested too deeply")
            return


def as_text(payload: bytes) -> str:
    """For people to read, and whole."""
    return payload.decode("utf-8", "backslashreplace")


def _parts(payload: bytes) -> Iterator[Any]:
    try:
        whole = orjson.loads(payload)
    except orjson.JSONDecodeError:
        lines = [line for line in payload.splitlines() if line.strip()]
        for line in lines:
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield Refused(said=as_text(line), why=f"not JSON: {error}")
        if not lines:
            yield Refused(said="", why="an empty message")
        return
    if isinstance(whole, dict) and isinstance(whole.get("events"), list) and len(whole) == 1:
        whole = whole["events"]
    yield from whole if isinstance(whole, list) else [whole]


def _event(part: Any, spare_id: str, check: Check) -> Taken | Refused:
    said = orjson.dumps(part, option=orjson.OPT_SORT_KEYS)
    if not isinstance(part, dict):
        return Refused(said=as_text(said), why="not a JSON object")
    line = said
    if part.get("event_id") is None:
        content = said if part.get("time") is not None else spare_id.encode()
        line = orjson.dumps({**part, "event_id": f"till-{sha256(content).hexdigest()[:_ID_CHARACTERS]}"})
    try:
        return Taken(said=as_text(said), event=check(line))
    except BadInputError as error:
        return Refused(said=as_text(said), why=error.line())
