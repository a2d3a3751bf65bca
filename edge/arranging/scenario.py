"""Where an answer will stand decides how it is put together: a home page is not a basket, a basket not an e-mail.

A scenario is a document that operators set through the API; four are built in, and one of the same name replaces them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from edge.arranging.moments import Moment, is_on
from edge.records.events import LONGEST_NAME
from edge.serving.filters import ANYTHING, MOST_NAMES, STRICT, Filter
from protocol.errors import BadInputError

_MOST = 50  # boosts and rules of one scenario
_POSITIONS = 100
_Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
_Position = Annotated[int, Field(ge=1, le=_POSITIONS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """How a number of an item lifts it: not at all up to `low`, fully from `high` on, evenly between."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    attribute: Annotated[_Name, Field(examples=["margin"])]
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise BadInputError(f"boost by {self.attribute}: low must be below high")


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How a date of an item lifts it: fully on that day, half as much after the half-life, and so on."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    attribute: Annotated[_Name, Field(examples=["released"])]
    half_life_days: Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Boost:
    """What lifts an item, or with a factor below 1 lowers it. Exactly one of `filter`, `by` and `fresh`.

    Attributes:
        factor: so many times as likely to be picked (docs/decisions/0017).
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    factor: Annotated[float, Field(gt=0, le=1_000, description="So many times as likely to be picked.")]
    filter: Filter | None = None
    by: Ramp | None = None
    fresh: Freshness | None = None

    def __post_init__(self) -> None:
        if [self.filter, self.by, self.fresh].count(None) != 2:  # noqa: PLR2004 - one of three
            raise BadInputError("a boost has exactly one of filter, by and fresh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What people decided, whatever the model says: pin items to a position, bury items, exclude items.

    Attributes:
        items: these, and whatever the filter names.
        position: of the first pinned item, from 1; the others follow it.
        start: holds from here on; None: always did.
        end: holds until before this; None: for ever.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    do: Literal["pin", "bury", "exclude"]
    items: Annotated[Sequence[_Name], Field(max_length=MOST_NAMES)] = ()
    filter: Filter | None = None
    position: Annotated[_Position, Field(description="Of the first pinned item, from 1.")] = 1
    start: Moment | None = None
    end: Moment | None = None

    def __post_init__(self) -> None:
        if self.do == "pin" and (self.filter is not None or not self.items):
            raise BadInputError("a rule that pins names its items, and has no filter")
        if not self.items and self.filter is None:
            raise BadInputError(f"a rule that {self.do}s needs items or a filter")
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise BadInputError("a rule ends after its start")

    def holds(self, now_ms: int) -> bool:
        return is_on(self.start, self.end, now_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """How unlike each other the items of one answer should be.

    Attributes:
        relevance: lambda of maximal marginal relevance; 1: only the score counts, 0: only the difference.
        caps: at most so many with the same value, by name: category, brand or any attribute.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    relevance: Annotated[float, Field(ge=0, le=1, description="1: only the score counts.")] = 1.0
    caps: Annotated[Mapping[_Name, Annotated[int, Field(ge=1)]], Field(max_length=5, examples=[{"category": 3}])] = (
        field(default_factory=dict)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """Positions that now and then go to an item that few have seen, so that its worth becomes known.

    Attributes:
        positions: from 1; empty: nothing is explored.
        epsilon: the share of answers in which such a position does.
        impressions: an item that was shown so often is known.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    positions: Annotated[Sequence[_Position], Field(max_length=10)] = ()
    epsilon: Annotated[float, Field(ge=0, le=1)] = 0.1
    impressions: Annotated[int, Field(ge=1, le=10_000)] = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """How much it counts that an item goes with, or resembles, what stands there already (`items` of the question).

    Attributes:
        related: what others bought or looked at with it.
        similar: what the model and its texts say is like it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    related: Annotated[float, Field(ge=0, le=100)] = 0.0
    similar: Annotated[float, Field(ge=0, le=100)] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How an answer is put together.

    Attributes:
        filter: what its items must be, beside what the question wants.
        bought: whether items that the user has bought may be shown again.
        fusion: how the voices become one score; weights are fitted on the site's own baskets.
        voices: those that are listened to; None: all.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: _Name
    filter: Filter = ANYTHING
    boosts: Annotated[Sequence[Boost], Field(max_length=_MOST)] = ()
    rules: Annotated[Sequence[Rule], Field(max_length=_MOST)] = ()
    diversity: Diversity = Diversity()
    exploration: Exploration = Exploration()
    anchor: Anchor = Anchor()
    bought: Literal["show", "hide"] = "show"
    fusion: Literal["weights", "votes"] = "weights"
    voices: Annotated[Sequence[_Name] | None, Field(max_length=100)] = None

    @property
    def is_plain(self) -> bool:
        """Whether scores alone decide what stands where, and now and then chance."""
        return not (self.boosts or self.rules or self.diversity.relevance < 1 or self.diversity.caps)


BUILT_IN: Final[Mapping[str, Scenario]] = MappingProxyType(
    {
        "home": Scenario(name="home", exploration=Exploration(positions=(6,), epsilon=0.1)),
        "product": Scenario(name="product", anchor=Anchor(related=2.0, similar=1.0)),
        "basket": Scenario(name="basket", anchor=Anchor(related=3.0), diversity=Diversity(caps={"category": 3})),
        "email": Scenario(
            name="email",
            filter=replace(ANYTHING, in_stock=True),
            diversity=Diversity(relevance=0.7, caps={"category": 3}),
        ),
        "plain": Scenario(name="plain"),
    }
)
"""Scenarios of every shop."""
