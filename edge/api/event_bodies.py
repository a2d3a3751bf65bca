"""Events as they are sent: what one may be, and from the bytes of a body to the columns that go to disk.

The bodies are typed dictionaries, and everything that can be said as a constraint is one: pydantic checks it outside of
Python. Events that are plainly in order do not even need that (`edge.api.event_columns`). What the fields of an event
say together (a purchase has an item, somebody did it, its time can be) is looked at by column.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter
from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

from edge.api.event_columns import LARGEST_WHOLE, Columns, plain_json
from edge.api.lean import Straight
from edge.records.batch import VISITOR, Batch, context_text
from edge.records.events import DAY_MS, EARLIEST_MS, LONGEST_NAME, LONGEST_TEXT, check_time, parse_time
from edge.records.schema import CODE
from protocol.errors import BadInputError

MOST_EVENTS: Final = 10_000
_PRINTED = r"^[^\x00-\x1f\x7f]+$"

_Text = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME, pattern=_PRINTED)]
_Whole = Annotated[int, Field(strict=True, ge=-LARGEST_WHOLE, le=LARGEST_WHOLE)]
Id = Annotated[_Text | _Whole, Field(union_mode="left_to_right")]
"""A text without control characters; a whole number is as good as one."""
Query = Annotated[str, StringConstraints(max_length=LONGEST_TEXT, pattern=r"^[^\x00-\x1f\x7f]*$")]
Time = Annotated[Annotated[str, StringConstraints(max_length=64)] | _Whole, Field(union_mode="left_to_right")]


class ContextIn(TypedDict, total=False):
    """Where it happened; short texts."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    region: _Text
    page: _Text
    device: _Text
    campaign: _Text


class _EventRest(TypedDict, total=False):
    user: Annotated[Id | None, Field(description="Who it was. An anonymous visitor has a session only.")]
    session: Annotated[Id | None, Field(description="The visit. Required without a user.")]
    item: Annotated[Id | None, Field(description="Required except for a search.")]
    event_id: Annotated[Id | None, Field(description="The shop's own id: sending it again is harmless.")]
    time: Annotated[Time | None, Field(description="ISO 8601, or seconds or milliseconds since 1970; now if missing.")]
    quantity: Annotated[
        float,
        Field(ge=0, allow_inf_nan=False, description="Pieces, kilograms, or the stars of a rating; 1 if missing."),
    ]
    rec_id: Annotated[Id | None, Field(description="The answer that this followed from.")]
    query: Annotated[Query | None, Field(description="What was searched for.")]
    context: Annotated[ContextIn | None, Field(description="Where it happened.")]


class EventIn(_EventRest):
    """One event. Send `event_id`, and sending it again is harmless; without it every request is a new event."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    type: Literal["view", "click", "add_to_cart", "purchase", "search", "impression", "rating", "remove"]


class EventsIn(TypedDict):
    """Several events, written together or not at all."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    events: Annotated[list[EventIn], Field(max_length=MOST_EVENTS)]


_one: Final = TypeAdapter(EventIn)
_several: Final = TypeAdapter(EventsIn)
_says_several: Final = re.compile(rb'\s*\{\s*"events"').match


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sent:
    """What a body holds.

    Attributes:
        place: stands before a complaint; ``{}`` in it becomes the number of the event.
    """

    columns: Columns
    place: str


def read_body(body: bytes) -> Sent:
    """One event, or several.

    Raises:
        ValidationError: neither of them.
    """
    if not _says_several(body):
        return Sent(columns=Columns.plain([plain_json(body)]) or Columns.of([_one.validate_json(body)]), place="")
    several = plain_json(body)
    found = Columns.plain(several["events"]) if isinstance(several, dict) and len(several) == 1 else None
    if found is None or len(found) > MOST_EVENTS:
        found = Columns.of(_several.validate_json(body)["events"])
    return Sent(columns=found, place="events[{}]: ")


def read_lines(lines: Sequence[bytes]) -> Columns | None:
    """One event a line; None: one of them has to be looked at by itself."""
    return Columns.plain([plain_json(line) for line in lines])


read_event: Final = _one.validate_json
"""One event from its bytes; raises ValidationError."""


def read_line(line: bytes) -> Columns:
    """One event as columns.

    Raises:
        ValidationError: it is none.
    """
    return Columns.of([read_event(line)])


EventBody = Annotated[EventIn | EventsIn, Straight(read_body)]


def to_batch(given: Columns, *, now_ms: int, spare_id: Callable[[], str], place: str = "") -> Batch:
    """Events that can be believed, as they go to disk.

    Args:
        spare_id: for an event to which the shop has given none.
        place: what stands before a complaint; ``{}`` in it becomes the number of the event.

    Raises:
        BadInputError: nobody did it, its item is missing, or its time cannot be.
    """
    size = len(given)
    event_ids = given.event_id or [None] * size
    try:
        return Batch(
            event_ids=event_ids if None not in event_ids else [name or spare_id() for name in event_ids],
            types=list(map(CODE.__getitem__, given.type)),  # type: ignore[arg-type] # an EventType is its text
            people=_people(given.user or [None] * size, given.session or [None] * size),
            items=_items(given.item or [None] * size, given.type),
            times_ms=_times(given.time, now_ms=now_ms) if given.time else [now_ms] * size,
            quantities=given.quantity,
            sessions=given.session,
            rec_ids=given.rec_id,
            queries=given.query,
            contexts=[context_text(context) if context else None for context in given.context]
            if given.context
            else None,
        )
    except _EventError as error:
        raise BadInputError(place.format(error.number) + error.why, advice=error.advice) from error


class _EventError(Exception):
    """One of several events cannot be believed."""

    def __init__(self, number: int, why: str, advice: str = "") -> None:
        super().__init__(why)
        self.number, self.why, self.advice = number, why, advice


def _people(users: list[Any], sessions: list[Any]) -> list[str]:
    if None not in users:
        return users
    people = [
        user if user is not None else session and VISITOR + session
        for user, session in zip(users, sessions, strict=True)
    ]
    if None in people:
        raise _EventError(people.index(None), "user is missing", "an anonymous visit has a session instead")
    return people


def _items(items: list[Any], kinds: Sequence[str]) -> list[Any]:
    if None in items:
        for number, (item, kind) in enumerate(zip(items, kinds, strict=True)):
            if item is None and kind != "search":
                raise _EventError(number, "item is missing")
    return items


def _times(given: list[Any], *, now_ms: int) -> list[int]:
    """Milliseconds; they come so from most shops, and then there is nothing to do but look at the least and largest."""
    if set(map(type, given)) == {int} and min(given) >= EARLIEST_MS and max(given) <= now_ms + DAY_MS:
        return given
    return [_time(number, value, now_ms=now_ms) for number, value in enumerate(given)]


def _time(number: int, value: str | int | None, *, now_ms: int) -> int:
    if value is None:
        return now_ms
    try:
        time_ms = parse_time(value)
        check_time(time_ms, now_ms=now_ms)
    except BadInputError as error:
        raise _EventError(number, str(error), error.advice) from error
    return time_ms
