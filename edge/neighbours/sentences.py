"""Reasons in plain English, for the person who asks "why this?"."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from edge.neighbours.parts import Kind
from edge.records.events import EventType

_DID: Final[Mapping[EventType, str]] = MappingProxyType(
    {
        EventType.VIEW: "looked at",
        EventType.CLICK: "clicked on",
        EventType.ADD_TO_CART: "put into the cart:",
        EventType.PURCHASE: "bought",
    }
)
_WHERE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "hour": "at this hour",
        "weekday": "on this day of the week",
        "region": "in the region {value}",
        "page": "by those who came in by {value}",
        "device": "on this kind of device",
        "campaign": "by those who came for {value}",
    }
)


def of_event(did: EventType, title: str, *, time_ms: int | None) -> str:
    """One thing that happened."""
    when = f" on {datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}" if time_ms is not None else ""
    return f"You {_DID[did]} “{title}”{when}."


def of_group(kind: Kind, count: int, *, bought: int, value: str) -> str:
    """Several things that happened.

    Args:
        bought: so many of them were purchases.
        value: the category or brand.
    """
    if kind is Kind.ITEM:
        return of_own(bought=bought, looked=count - bought)
    what = {Kind.CATEGORY: f"in the category “{value}”", Kind.BRAND: f"of the brand “{value}”"}
    return f"You chose {count} other things {what.get(kind, 'at about the same price')}."


def of_own(*, bought: int, looked: int) -> str:
    """What the person has done with the item itself."""
    if bought:
        return f"You bought it {_times(bought)}."
    return f"You looked at it {_times(looked)}." if looked else "You have not bought it or looked at it yet."


def of_sequence(*, helps: bool) -> str:
    return "It fits what you did last." if helps else "It fits less well to what you did last."


def of_company(title: str | None) -> str:
    if title is None:
        return "It is seldom bought or viewed together with what you chose."
    return f"It is often bought or viewed together with “{title}”."


def of_popularity(*, helps: bool, here: bool) -> str:
    """Whether it sells better than what else could stand there; here, or in other shops."""
    if not helps:
        return "It sells less than what else could stand here."
    return "It sells well here." if here else "It sells well in other shops."


def of_context(name: str, times: float) -> str:
    """How much more often it is wanted in a context."""
    kind, _, value = name.partition("=")
    where = _WHERE.get(kind, "here").format(value=value)
    if times < 1:
        return f"It is wanted less often {where} than elsewhere."
    return f"It is wanted {times:.1f} times as often {where} as elsewhere."


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
