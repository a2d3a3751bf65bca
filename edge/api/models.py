"""What the HTTP API takes and gives, as its OpenAPI describes it."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from edge.records.events import LONGEST_NAME, LONGEST_TEXT, EventType, check_name
from edge.serving.degradation import Reason, Rung
from protocol.errors import BadInputError

MOST_EVENTS = 10_000
_MOST_NAMES = 1_000


def _as_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _checked(value: str) -> str:
    try:
        check_name("id", value)
    except BadInputError as error:
        raise ValueError(str(error)) from error
    return value


Name = Annotated[str, BeforeValidator(_as_text), Field(min_length=1, max_length=LONGEST_NAME), AfterValidator(_checked)]
"""An id; a whole number is as good as a text."""


class _Body(BaseModel):
    """A misspelt field is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class EventIn(_Body):
    """One event. Send `event_id`, and sending it again is harmless; without it every request is a new event."""

    type: EventType
    user: Name
    item: Name | None = Field(default=None, description="Required except for a search.")
    event_id: Name | None = Field(default=None, description="The shop's own id of the event.")
    time: str | int | None = Field(
        default=None, description="ISO 8601, or seconds or milliseconds since 1970; now when it is missing."
    )
    quantity: float = Field(default=1.0, ge=0, description="Pieces, kilograms, or the stars of a rating.")
    session: Name | None = None
    rec_id: Name | None = Field(default=None, description="The answer that this followed from.")
    query: str | None = Field(default=None, max_length=LONGEST_TEXT, description="What was searched for.")


class EventsIn(_Body):
    """Several events, written together or not at all."""

    events: list[EventIn] = Field(max_length=MOST_EVENTS)


def _kind(body: Any) -> str:
    return "several" if isinstance(body, EventsIn) or (isinstance(body, dict) and "events" in body) else "one"


EventBody = Annotated[
    Annotated[EventsIn, Tag("several")] | Annotated[EventIn, Tag("one")],
    Discriminator(_kind),
]


class EventsOut(BaseModel):
    """All of them are on disk; duplicates are those whose event_id was known."""

    added: int
    duplicates: int


class Filter(_Body):
    """What an item must be, to be in the answer."""

    category: list[str] | None = Field(default=None, max_length=_MOST_NAMES, description="One of these categories.")


class _Ask(_Body):
    limit: int = Field(default=10, ge=1, le=100)
    filter: Filter = Filter()
    exclude: list[Name] = Field(default=[], max_length=_MOST_NAMES, description="Items that must not be in the answer.")


class RecommendationsIn(_Ask):
    """Exactly one of `user` and `history`."""

    user: Name | None = None
    history: list[Name] | None = Field(default=None, max_length=_MOST_NAMES, description="Items, oldest first.")

    @model_validator(mode="after")
    def _one_of_them(self) -> "RecommendationsIn":
        if (self.user is None) == (self.history is None):
            raise ValueError("give either user or history")
        return self


class SimilarIn(_Ask):
    """Items like one item."""

    item: Name


class ItemOut(BaseModel):
    """Scores compare within one answer only."""

    item: str
    score: float
    title: str


class RecommendationsOut(BaseModel):
    """Best first. `degraded` is true when the answer is not of the best rung, and `reasons` says why."""

    rec_id: str = Field(description="Events that follow from this answer echo it.")
    release: int | None = Field(description="Version of the release that answered; null before the first.")
    arm: str | None = Field(description="The arm of an experiment under which it was answered.")
    rung: Rung
    degraded: bool
    reasons: list[Reason]
    items: list[ItemOut]
