"""From a till's message into the service, checked as the HTTP API checks it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from edge.api.event_bodies import EventIn, read_event, to_batch
from edge.api.event_columns import Columns
from edge.api.problems import reason_of
from edge.records.batch import Batch
from edge.serving.service import Service
from edge.tills.messages import Check
from protocol.errors import BadInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """What is done with what tills say.

    Attributes:
        check: see `messages.Check`.
        add: write events; returns when they are on disk. Raises NoSpaceError, UnavailableError, and BadInputError where
            an item has been taken off the list meanwhile.
        heard: told when the connection comes and goes.
        note: counts outcomes: `event`, `rejected`, `retained`.
    """

    check: Check
    add: Callable[[Sequence[EventIn]], Awaitable[object]]
    note: Callable[[str, int], None]
    heard: Callable[[bool], None]
    now_ms: Callable[[], int]


def taking(service: Service) -> Taking:
    """Into this service, as the HTTP API does it."""

    def batch(events: Sequence[EventIn]) -> Batch:
        return to_batch(Columns.of(events), now_ms=service.now_ms(), spare_id=service.new_event_id)

    def check(line: bytes) -> EventIn:
        try:
            event = read_event(line)
        except ValidationError as error:
            raise BadInputError(reason_of(error)) from error
        for item in service.store.unlisted(batch([event]).named_items()):
            raise BadInputError(f"item {item} is not listed", advice="list it first")
        return event

    async def add(events: Sequence[EventIn]) -> None:
        await service.add_events(batch(events))

    return Taking(
        check=check,
        add=add,
        note=service.metrics.note_till_events,
        heard=service.metrics.note_tills_heard,
        now_ms=service.now_ms,
    )
