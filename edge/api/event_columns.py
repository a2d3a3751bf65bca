"""Events as they are sent, read by column: what is plainly in order is seen to be so with little done for each event.

`edge.api.event_bodies` says what an event may be, and pydantic checks it, value by value. Most events are plain: every
id a text, every quantity a number, nothing escaped. Then it is enough to look at each column as a whole, its types and
its longest text. Whatever is not plain goes the long way, and gets its complaint there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from operator import itemgetter
from types import NoneType
from typing import Any, Final

import orjson

from edge.records.events import CONTEXT, LONGEST_NAME, LONGEST_TEXT
from edge.records.schema import CODE

LARGEST_WHOLE = 1 << 53
"""Above it, whole numbers are no longer exact in the JSON of every language."""
_LONGEST_TIME = 64
_PLACES = frozenset(CONTEXT)
_NUMBERS = {int, float}
_TIMES = {int, str, NoneType}
_length: Final = str.__len__
"""Of a text, and of nothing else: it raises TypeError."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """Events that have the right shape, a list for each field, None where an event has none; None: no event has any."""

    type: list[str]
    event_id: list[Any] | None = None
    user: list[Any] | None = None
    session: list[Any] | None = None
    item: list[Any] | None = None
    rec_id: list[Any] | None = None
    time: list[Any] | None = None
    quantity: list[float] | None = None
    query: list[Any] | None = None
    context: list[Any] | None = None

    @classmethod
    def of(cls, given: Sequence[Mapping[str, Any]]) -> "Columns":
        """Events that pydantic has checked; ids that are whole numbers become texts."""
        ids: dict[str, Any] = {name: [_as_text(event.get(name)) for event in given] for name in _IDS}
        rest: dict[str, Any] = {
            name: [event.get(name) for event in given] for name in ("type", "time", "query", "context")
        }
        return cls(**ids, **rest, quantity=[event.get("quantity", 1.0) for event in given])

    @classmethod
    def plain(cls, given: Any) -> "Columns | None":
        """The same of JSON without escapes that nobody has checked; None: something in it has to be looked at."""
        if type(given) is not list or set(map(type, given)) != {dict}:
            return None
        there = set().union(*given)
        if "type" not in there or not there <= _IN_ORDER.keys():
            return None
        columns = {name: _column(given, name) for name in there}
        try:
            in_order = all(_IN_ORDER[name](column) for name, column in columns.items())
        except TypeError:
            return None  # a text that is none
        return cls(**columns) if in_order else None

    def __len__(self) -> int:
        return len(self.type)

    def items(self) -> set[str]:
        """Every item that is named."""
        named = set(self.item or ())
        named.discard(None)
        return named


def plain_json(body: bytes) -> Any:
    """What stands in a body; None where a control character might be in it, or it is no JSON."""
    if b"\\" in body or b"\x7f" in body:  # JSON has no other way to write one
        return None
    try:
        return orjson.loads(body)
    except ValueError:
        return None


def _as_text(value: str | int | None) -> str | None:
    return str(value) if type(value) is int else value  # type: ignore[return-value]


def _column(given: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    try:
        return list(map(itemgetter(name), given))
    except KeyError:
        return [event.get(name) for event in given]


def _ids(column: list[Any]) -> bool:
    if None in column:
        column = [text for text in column if text is not None]
    return all(column) and max(map(_length, column), default=1) <= LONGEST_NAME


def _types(column: list[Any]) -> bool:
    return set(column) <= CODE.keys()


def _queries(column: list[Any]) -> bool:
    return max((_length(text) for text in column if text is not None), default=0) <= LONGEST_TEXT


def _quantities(column: list[Any]) -> bool:
    return set(map(type, column)) <= _NUMBERS and min(column) >= 0 and max(column) < inf


def _times(column: list[Any]) -> bool:
    kinds = set(map(type, column))
    if not kinds <= _TIMES:
        return False
    if kinds == {int}:
        return bool(min(column) >= -LARGEST_WHOLE and max(column) <= LARGEST_WHOLE)
    return all(map(_time, column))


def _time(value: int | str | None) -> bool:
    if isinstance(value, int):
        return abs(value) <= LARGEST_WHOLE
    return value is None or len(value) <= _LONGEST_TIME


def _contexts(column: list[Any]) -> bool:
    there = [context for context in column if context is not None]
    values = [value for context in there for value in dict.values(context)]
    return set().union(*there) <= _PLACES and None not in values and _ids(values)


_IDS: Final = ("event_id", "user", "session", "item", "rec_id")
_IN_ORDER: Final[Mapping[str, Callable[[list[Any]], bool]]] = {
    **dict.fromkeys(_IDS, _ids),
    "type": _types,
    "time": _times,
    "quantity": _quantities,
    "query": _queries,
    "context": _contexts,
}
