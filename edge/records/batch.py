"""Several events in columns: the shape in which they go to disk, so that little is done for each one by itself."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from json import dumps
from typing import Final, Self, cast

from edge.records.events import Event
from edge.records.schema import CODE

VISITOR: Final = "\x1f"
"""Before the session stands this for a name of an anonymous visitor; no id can begin with it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Checked events, one list a column, all of one length; None where no event has anything.

    Attributes:
        types: numbers of `CODE`.
        people: names of users, or `visitor(session)`.
        quantities: None: 1 each.
        contexts: JSON texts.
    """

    event_ids: Sequence[str]
    types: Sequence[int]
    people: Sequence[str]
    items: Sequence[str | None]
    times_ms: Sequence[int]
    quantities: Sequence[float] | None = None
    sessions: Sequence[str | None] | None = None
    rec_ids: Sequence[str | None] | None = None
    queries: Sequence[str | None] | None = None
    contexts: Sequence[str | None] | None = None

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        """Events that `check_event` has seen."""
        given = list(events)
        return cls(
            event_ids=[event.event_id for event in given],
            types=[CODE[event.type] for event in given],
            people=[event.user or visitor(event.session or "") for event in given],
            items=[event.item for event in given],
            times_ms=[event.time_ms for event in given],
            quantities=[event.quantity for event in given],
            sessions=[event.session for event in given],
            rec_ids=[event.rec_id for event in given],
            queries=[event.query for event in given],
            contexts=[context_text(event.context) if event.context else None for event in given],
        )

    def __len__(self) -> int:
        return len(self.event_ids)

    def named_items(self) -> set[str]:
        """Every item that is named."""
        named = set(self.items)
        named.discard(None)
        return cast("set[str]", named)


def visitor(session: str) -> str:
    """What an anonymous visitor is called in the books."""
    return VISITOR + session


def context_text(context: object) -> str:
    """A context as it is kept."""
    return dumps(context, ensure_ascii=False, sort_keys=True)
