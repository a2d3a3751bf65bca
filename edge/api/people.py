"""Whose events they are, and the right to see them and to have them deleted. Names stand in bodies, never in URLs."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from edge.api.event_bodies import Id
from edge.api.lean import Permission, json_response, lean_router, spec
from edge.erasing import Erasing
from edge.records import cursors, people
from edge.records.store import Store
from edge.shop import Shop
from protocol.errors import BadInputError

_NDJSON = "application/x-ndjson"
_EXPORTED = '{"user":"ada","sessions":["s1"]}\n{"event_id":"till-3-1742","type":"purchase","user":"ada","item":"i1"}\n'


class MergeIn(BaseModel):
    """An anonymous visitor turns out to be this user."""

    model_config = ConfigDict(extra="forbid")

    session: Id
    user: Id


class MergeOut(BaseModel):
    """How many of the visitor's events are the user's now; 0 when it was done before."""

    moved: int


class PersonIn(BaseModel):
    """Exactly one of `user` and `session`."""

    model_config = ConfigDict(extra="forbid")

    user: Id | None = None
    session: Id | None = Field(default=None, description="Of a visitor who has not been merged into a user.")


class ErasedOut(BaseModel):
    """What became of somebody. Erasing again is harmless."""

    known: bool = Field(description="There was somebody to erase.")
    events: int = Field(description="Events deleted.")
    clean: bool = Field(description="No copy of the name is left in unused space of the file, either.")


def routes(shop: Shop) -> APIRouter:
    """Routes about people."""
    router, service = lean_router(), shop.service
    erasing = shop.erasing or Erasing(service=service)

    @router.post(
        "/v1/sessions/merge",
        **spec(MergeOut, permission=Permission.INGEST, problems=(507,), example={"session": "s1", "user": "ada"}),
    )
    async def merge(body: MergeIn) -> Response:
        """A visitor logs in: what the session did, and does later without naming the user, is the user's."""
        session, user = str(body.session), str(body.user)
        if shop.experiments is not None:  # the visitor's arm becomes the user's
            await shop.experiments.flush()
        moved = await service.change(lambda store: store.merge(session, user))
        return json_response({"moved": moved})

    @router.post(
        "/v1/users/erase",
        **spec(ErasedOut, permission=Permission.ADMIN, problems=(507,), example={"user": "ada"}),
    )
    async def erase(body: PersonIn) -> Response:
        """Delete a user, or an anonymous visitor, and all that is theirs. The next answer knows nothing of them."""
        user, session = _one_of(body)
        erased = await erasing.erase(user=user, session=session)
        return json_response({"known": erased.known, "events": erased.events, "clean": erased.clean})

    @router.post("/v1/users/export", **_exported())
    async def export(body: PersonIn) -> Response:
        """All that is known of somebody, as NDJSON: who it is and their sessions, then one event a line."""
        user, session = _one_of(body)
        store = service.store
        with store.reading() as db:
            person = people.find(db, user=user, session=session)
            known = [] if person is None else people.sessions(db, person)
        return StreamingResponse(_lines(store, person, user=user, sessions=known), media_type=_NDJSON)

    return router


async def _lines(store: Store, person: int | None, *, user: str | None, sessions: list[str]) -> AsyncIterator[bytes]:
    """A page at a time: others are answered in between."""
    yield orjson.dumps({"user": user, "sessions": sessions}) + b"\n"
    after, more = cursors.BEGIN, person is not None
    while more:
        with store.reading() as db:
            page = cursors.events(db, person=person, after=after, limit=cursors.MOST)
        yield b"".join(orjson.dumps(event) + b"\n" for event in page.entries)
        after, more = page.after, page.more


def _one_of(body: PersonIn) -> tuple[str | None, str | None]:
    if (body.user is None) == (body.session is None):
        raise BadInputError("give either user or session")
    return (None if body.user is None else str(body.user)), (None if body.session is None else str(body.session))


def _exported() -> dict[str, Any]:
    options = spec(str, permission=Permission.ADMIN, example={"user": "ada"}, media=_NDJSON)
    options["responses"][200]["content"] = {_NDJSON: {"example": _EXPORTED, "schema": {"type": "string"}}}
    return options
