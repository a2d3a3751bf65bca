"""What a shop tells its edge: events and items, and what makes one of them believable."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from protocol.errors import BadInputError

EARLIEST_MS = 946_684_800_000
"""2000-01-01: whatever is older was written by a clock that had lost its battery."""
DAY_MS = 86_400_000
LONGEST_NAME = 256
"""Characters of an id, at most."""
LONGEST_TEXT = 1_000
"""Characters of a title, category, brand or search query, at most."""
CONTEXT = ("region", "page", "device", "campaign")
"""What is kept of where an event happened."""
LONGEST_ATTRIBUTES = 16_384
"""Bytes of an item's attributes as JSON, at most."""
DEEPEST = 4
"""Lists and objects within each other in an attribute, at most."""
_SECONDS_BELOW = 100_000_000_000
"""An integer time below this counts seconds (until the year 5138), from here on milliseconds (since 1973)."""
_FORBIDDEN = re.compile("[\x00-\x1f\x7f\ud800-\udfff]").search


class EventType(StrEnum):
    """What happened. A closed set: a new kind of event is a new release of the edge."""

    VIEW = "view"
    CLICK = "click"
    ADD_TO_CART = "add_to_cart"
    PURCHASE = "purchase"
    SEARCH = "search"
    IMPRESSION = "impression"
    RATING = "rating"
    REMOVE = "remove"


TYPES = {member.value: member for member in EventType}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that a user or an anonymous visitor did.

    Attributes:
        event_id: the shop's own id; a second event with the same id is the same event.
        user: None: the visitor of this session.
        item: None for a search only.
        time_ms: UTC, milliseconds since 1970.
        quantity: pieces, kilograms, or the stars of a rating; at least 0.
        session: the visit it belongs to.
        rec_id: the answer it followed from.
        query: what was searched for.
        context: where it happened, under the keys of `CONTEXT`.
    """

    event_id: str
    type: EventType
    user: str | None
    item: str | None
    time_ms: int
    quantity: float = 1.0
    session: str | None = None
    rec_id: str | None = None
    query: str | None = None
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing a site sells.

    Attributes:
        price: in the shop's currency, at least 0.
        stock: pieces on the shelf; None: not counted, always there.
        attributes: whatever else the shop knows, by name.
        added_ms: when it was listed first; None: not known.
    """

    item: str
    title: str = ""
    category: str = ""
    brand: str = ""
    price: float | None = None
    stock: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    added_ms: int | None = None


def check_event(event: Event, *, now_ms: int) -> Event:
    """The event itself, if it can be believed.

    Raises:
        BadInputError: an id is empty, too long or unprintable, the time lies before 2000 or more than a day ahead,
            the quantity is negative or no number, or the item (of a search: the query) is missing.
    """
    check_name("event_id", event.event_id)
    if event.user is not None:
        check_name("user", event.user)
    elif event.session is None:
        raise BadInputError("user is missing", advice="an anonymous visit has a session instead")
    if event.item is not None:
        check_name("item", event.item)
    elif event.type is not EventType.SEARCH:
        raise BadInputError("item is missing")
    for name, value in (("session", event.session), ("rec_id", event.rec_id)):
        if value is not None:
            check_name(name, value)
    if event.query is not None:
        check_text("query", event.query)
    check_context(event.context)
    check_time(event.time_ms, now_ms=now_ms)
    if not 0 <= event.quantity < math.inf:
        raise BadInputError(f"quantity {event.quantity:g} is not a number of at least 0")
    return event


def check_item(item: Item) -> Item:
    """The item itself, if it can be sold.

    Raises:
        BadInputError: a text is too long or unprintable, a price or stock is negative or no number, or the attributes
            cannot be kept.
    """
    check_name("item", item.item)
    for name, text in (("title", item.title), ("category", item.category), ("brand", item.brand)):
        check_text(name, text)
    if item.price is not None and not 0 <= item.price < math.inf:
        raise BadInputError(f"price {item.price:g} is not a number of at least 0")
    if item.stock is not None and not 0 <= item.stock < 2**53:
        raise BadInputError(f"stock {item.stock} is not a whole number of at least 0")
    check_attributes(item.attributes)
    return item


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Whatever else a shop knows of an item, as JSON of a bearable depth and length.

    Raises:
        BadInputError: a name is no id, a text is unprintable, it is no JSON, nested too deep or too long.
    """
    if not attributes:
        return
    for name, value in attributes.items():
        check_name("the name of an attribute", name)
        if _depth(value, left=DEEPEST) < 0:
            raise BadInputError(f"attribute {name[:40]} is nested deeper than {DEEPEST} levels")
    try:
        text = json.dumps(attributes, ensure_ascii=False, allow_nan=False)
        size = len(text.encode("utf-8"))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInputError(f"attributes are no JSON: {error}") from error
    if size > LONGEST_ATTRIBUTES:
        raise BadInputError(f"attributes have {size} bytes as JSON, at most {LONGEST_ATTRIBUTES} are allowed")


def _depth(value: object, *, left: int) -> int:
    """How many levels are left below the deepest; negative: too deep."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if left < 0:
        return left
    return min((_depth(one, left=left - 1) for one in inside), default=left)


def check_context(context: Mapping[str, str]) -> None:
    """Where it happened: a closed set of keys, short texts.

    Raises:
        BadInputError: another key, or a value that is no short text.
    """
    for name, value in context.items():
        if name not in CONTEXT:
            raise BadInputError(f"context {name[:40]!r} is none of {', '.join(CONTEXT)}")
        check_name(f"context.{name}", value)


def check_time(time_ms: int, *, now_ms: int) -> None:
    """Refuse what a broken clock wrote.

    Raises:
        BadInputError: before 2000, or more than a day after now.
    """
    if time_ms < EARLIEST_MS:
        raise BadInputError(f"time {iso(time_ms)} lies before the year 2000")
    if time_ms > now_ms + DAY_MS:
        raise BadInputError(f"time {iso(time_ms)} lies in the future")


def check_name(name: str, value: str) -> None:
    """An id: 1 to 256 characters, none of them a control character.

    Raises:
        BadInputError: anything else.
    """
    if not value:
        raise BadInputError(f"{name} is missing")
    if len(value) > LONGEST_NAME:
        raise BadInputError(f"{name} has {len(value)} characters, at most {LONGEST_NAME} are allowed")
    if _FORBIDDEN(value):
        raise BadInputError(f"{name} contains a control character")


def check_text(name: str, value: str) -> None:
    """A text for people: at most 1,000 characters, none of them a control character.

    Raises:
        BadInputError: anything else.
    """
    if len(value) > LONGEST_TEXT:
        raise BadInputError(f"{name} has {len(value)} characters, at most {LONGEST_TEXT} are allowed")
    if _FORBIDDEN(value):
        raise BadInputError(f"{name} contains a control character")


def parse_time(value: str | float) -> int:
    """Milliseconds since 1970, from ISO 8601 (without a zone: UTC) or a count of seconds or milliseconds.

    A count below 100,000,000,000 is in seconds, from there on in milliseconds.

    Raises:
        BadInputError: neither of them.
    """
    if isinstance(value, str):
        text = value.strip()
        try:
            if not text.removeprefix("-").isdecimal():
                moment = datetime.fromisoformat(text)
                return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
            value = int(text)
        except (ValueError, OverflowError) as error:
            raise BadInputError(f"time {text[:40]!r} is neither ISO 8601 nor a count of (milli)seconds") from error
    if not -(2**53) < value < 2**53:
        raise BadInputError(f"time {value} is neither ISO 8601 nor a count of (milli)seconds")
    return round(value * 1000) if abs(value) < _SECONDS_BELOW else round(value)


def iso(time_ms: int) -> str:
    """A time for people, or the bare number where no calendar reaches."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"
