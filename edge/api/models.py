"""What the routes of recommendations take and give, as the OpenAPI describes it."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from edge.records.events import CONTEXT, LONGEST_NAME, check_name
from edge.serving.degradation import Reason, Rung
from edge.serving.filters import ANYTHING, MOST_NAMES, Filter
from edge.serving.query import Query
from protocol.errors import BadInputError

LONGEST_ANSWER: Final = 100
_LONGEST_WAIT_MS = 60_000


def _as_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _checked(value: str) -> str:
    try:
        check_name("id", value)
    except BadInputError as error:
        raise ValueError(str(error)) from error
    return value


_NAME = {"anyOf": [{"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}, {"type": "integer"}]}
Name = Annotated[
    str,
    BeforeValidator(_as_text),
    Field(min_length=1, max_length=LONGEST_NAME),
    AfterValidator(_checked),
    WithJsonSchema(_NAME),
]
"""An id; a whole number is as good as a text."""


class Body(BaseModel):
    """A misspelt field is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Context(Body):
    """What is known of a visit without knowing who it is."""

    region: Name | None = None
    page: Name | None = Field(default=None, description="The page that the visit began with.")
    device: Name | None = None
    campaign: Name | None = None

    def known(self) -> dict[str, str]:
        return {name: value for name in CONTEXT if (value := getattr(self, name)) is not None}


class Wanted(Body):
    """What any answer of items is asked with.

    Attributes:
        fields: what is told of each item beside its title.
    """

    # Defaults are made by factories: pydantic would copy a default, whatever it holds, at every request.
    limit: int = Field(default=10, ge=1, le=LONGEST_ANSWER)
    filter: Filter = Field(default_factory=lambda: ANYTHING)
    exclude: list[Name] = Field(
        default_factory=list, max_length=MOST_NAMES, description="Items that must not be in the answer."
    )
    fields: list[Name] = Field(
        default_factory=list,
        max_length=20,
        description="Told of each item: category, brand, price, stock, or any of its attributes, such as an image.",
    )


class Person(Body):
    """Who asks: a user, a session of a visitor, or a history of items. A user may come with the session."""

    user: Name | None = None
    session: Name | None = None
    history: list[Name] | None = Field(
        default=None, max_length=MOST_NAMES, description="Items, oldest first; empty for somebody unknown."
    )
    scenario: Name = Field(default="home", description="Where the answer will stand; GET /v1/scenarios lists them.")
    items: list[Name] = Field(
        default_factory=list,
        max_length=100,
        description="What stands there already: the item in view, or what the basket holds.",
    )
    context: Context | None = None
    timeout_ms: float | None = Field(
        default=None, gt=0, le=_LONGEST_WAIT_MS, description="The answer is of use only so long; see docs/serving.md."
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> "Person":
        if (self.user is None and self.session is None) == (self.history is None):
            raise ValueError("give either user, session or history")
        return self


class RecommendationsIn(Person, Wanted):
    """A question for items."""

    propensity: bool = Field(default=False, description="Tell how likely it was that an item came to stand there.")

    def query(self) -> Query:
        """Without HTTP."""
        return Query(
            user=self.user,
            session=self.session if self.user is None else None,
            history=self.history,
            limit=self.limit,
            scenario=self.scenario,
            items=self.items,
            filter=self.filter,
            exclude=self.exclude,
            context=self.context.known() if self.context else {},
            within_ms=self.timeout_ms,
        )


class SimilarIn(Wanted):
    """Items like one item."""

    item: Name


class ItemOut(BaseModel):
    """Scores compare within one answer only. What is not so is left out."""

    item: str
    score: float
    title: str
    promotion: str | None = Field(default=None, description="The campaign that the item is shown for.")
    pinned: bool | None = Field(default=None, description="A rule of the scenario put it there.")
    explored: bool | None = Field(default=None, description="It was drawn, so that its worth becomes known.")
    propensity: float | None = Field(default=None, description="Probability of what chance decided, when asked for.")
    fields: dict[str, Any] | None = Field(default=None, description="What was asked for and is known of it.")


class AnsweredOut(BaseModel):
    """`degraded` is true when the answer is not of the best rung, and `reasons` says why."""

    rec_id: str = Field(description="Events that follow from this answer echo it.")
    release: int | None = Field(description="Version of the release that answered; null before the first.")
    arm: str | None = Field(description="The arm of an experiment under which it was answered.")
    rung: Rung
    degraded: bool
    reasons: list[Reason]
    skipped: list[str] = Field(description="Submodels that should have spoken and did not.")


class RecommendationsOut(AnsweredOut):
    """Items, best first."""

    items: list[ItemOut]
