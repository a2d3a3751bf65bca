"""What happened, from the shop to the books and back."""

from typing import Annotated, Any, cast

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from edge.api.event_bodies import EventBody, Id, Sent, to_batch
from edge.api.intake import Intake
from edge.api.lean import Permission, json_response, lean_router, spec
from edge.api.problems import problem_of
from edge.records import cursors, people
from edge.records.items import UnknownItemError
from edge.shop import Shop
from protocol.errors import BadInputError

_LARGEST = 16 << 20
_EXAMPLE = {"event_id": "till-3-1742", "type": "purchase", "user": "ada", "item": "i1"}
_STREAM = {
    "application/x-ndjson": {
        "schema": {"type": "string", "description": "One event a line, as /v1/events takes one; any number of lines."},
        "example": '{"type": "view", "session": "s1", "item": "i1"}\n{"type": "click", "user": "ada", "item": "i2"}\n',
    }
}


class EventsOut(BaseModel):
    """All of them are on disk; duplicates are those whose event_id was known."""

    added: int
    duplicates: int


class RefusedLine(BaseModel):
    """A line of a stream that is no event."""

    line: int = Field(description="Counted from 1.")
    reason: str


class StreamOut(EventsOut):
    """What became of a stream. Everything that was added is on disk."""

    rejected: int
    reasons: list[RefusedLine] = Field(description="Of the first 20 that were refused.")


class EventsReadIn(BaseModel):
    """Whose events: a user's, those of whom a session belongs to, or everybody's."""

    model_config = ConfigDict(extra="forbid")

    user: Id | None = None
    session: Id | None = None
    after: Annotated[str, Field(max_length=64)] | None = Field(default=None, description="`next` of the answer before.")
    limit: int = Field(default=100, ge=1, le=cursors.MOST)


class EventsReadOut(BaseModel):
    """Events in the order in which they arrived, each as it can be sent again."""

    events: list[dict[str, Any]]
    next: str = Field(description="Send it as `after` to go on; it stays good while new events arrive.")
    more: bool


def routes(shop: Shop) -> APIRouter:
    """Routes that write events and read them back."""
    router, service = lean_router(), shop.service

    @router.post(
        "/v1/events",
        **spec(EventsOut, permission=Permission.INGEST, problems=(507,), largest_body=_LARGEST, example=_EXAMPLE),
    )
    async def add(body: EventBody) -> Response:
        """One event, or several as `{"events": [...]}`, which are written together or not at all."""
        sent = cast("Sent", body)  # as `read_body` gives it
        batch = to_batch(sent.columns, now_ms=service.now_ms(), spare_id=service.new_event_id, place=sent.place)
        try:
            outcome = await service.add_events(batch)
        except UnknownItemError as error:  # the path is known: it is the body that is wrong
            raise BadInputError(str(error), advice=error.advice) from error
        return json_response({"added": outcome.added, "duplicates": outcome.duplicates})

    @router.post("/v1/events/stream", **_streamed())
    async def stream(request: Request) -> Response:
        """Events as NDJSON, one a line, any number of them: read as fast as they are written, refused line by line."""
        intake = Intake(service)
        failed = await intake.take_all(request.stream())
        if failed is not None:
            return problem_of(failed) or json_response(intake.outcome())
        return json_response(intake.outcome())

    @router.post(
        "/v1/events/read",
        **spec(EventsReadOut, permission=Permission.ADMIN, example={"user": "ada", "limit": 100}),
    )
    async def read(body: EventsReadIn) -> Response:
        """Events back, page by page, of one person or of everybody."""
        if body.user is not None and body.session is not None:
            raise BadInputError("user and session are both given", advice="give one of them, or neither")
        with service.store.reading() as db:
            person = None
            if body.user is not None or body.session is not None:
                person = people.find(db, user=_text(body.user), session=_text(body.session))
                if person is None:
                    return json_response({"events": [], "next": body.after or cursors.BEGIN, "more": False})
            page = cursors.events(db, person=person, after=body.after, limit=body.limit)
        return json_response({"events": page.entries, "next": page.after, "more": page.more})

    return router


def _streamed() -> dict[str, Any]:
    options = spec(StreamOut, permission=Permission.INGEST, problems=(507,), largest_body=None)
    options["openapi_extra"]["requestBody"] = {"required": True, "content": _STREAM}
    return options


def _text(value: str | int | None) -> str | None:
    return None if value is None else str(value)
