"""What happened, from the shop to the books."""

from collections.abc import Callable
from http import HTTPStatus

from fastapi import APIRouter, Response

from edge.api.lean import Permission, json_response, lean_router, spec
from edge.api.models import EventBody, EventIn, EventsIn, EventsOut
from edge.api.problems import problem
from edge.records.events import Event, check_event, parse_time
from edge.serving.service import UnknownItemError
from edge.shop import Shop
from protocol.errors import BadInputError


def routes(shop: Shop) -> APIRouter:
    """Routes that write events."""
    router, service = lean_router(), shop.service

    @router.post(
        "/v1/events",
        **spec(
            EventsOut,
            permission=Permission.INGEST,
            problems=(507,),
            example={"event_id": "till-3-1742", "type": "purchase", "user": "ada", "item": "i1"},
        ),
    )
    async def add(body: EventBody) -> Response:
        """One event, or several as `{"events": [...]}`, which are written together or not at all."""
        several = isinstance(body, EventsIn)
        given: list[EventIn] = body.events if isinstance(body, EventsIn) else [body]
        now_ms, events = service.now_ms(), []
        for number, event in enumerate(given):
            try:
                events.append(_event(event, now_ms=now_ms, spare_id=service.new_event_id))
            except BadInputError as error:
                place = f"events[{number}]: " if several else ""
                return problem(HTTPStatus.UNPROCESSABLE_ENTITY, place + error.line())
        try:
            outcome = await service.add_events(events)
        except UnknownItemError as error:
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, error.line())
        return json_response({"added": outcome.added, "duplicates": outcome.duplicates})

    return router


def _event(given: EventIn, *, now_ms: int, spare_id: Callable[[], str]) -> Event:
    return check_event(
        Event(
            event_id=given.event_id or spare_id(),
            type=given.type,
            user=given.user,
            item=given.item,
            time_ms=now_ms if given.time is None else parse_time(given.time),
            quantity=given.quantity,
            session=given.session,
            rec_id=given.rec_id,
            query=given.query,
        ),
        now_ms=now_ms,
    )
