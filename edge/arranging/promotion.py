"""Campaigns: items that a shop wants seen, when, where, and by whom. Within that, the user's own scores decide.

Of all campaigns that fit, an answer shows those items that score highest for this user, so a promotion is recommended
like anything else, but in positions of its own and marked as what it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from pydantic import ConfigDict, Field

from edge.arranging.moments import Moment, is_on
from edge.records.events import DAY_MS, EARLIEST_MS, LONGEST_NAME, LONGEST_TEXT
from edge.records.store import Past
from edge.serving.filters import MOST_NAMES, STRICT, Filter
from edge.serving.shelf import Shelf
from protocol.errors import BadInputError

_Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
_Position = Annotated[int, Field(ge=1, le=100)]
MOST_SLOTS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Interest:
    """Users who lately bought, or looked at, something of a category. A purchase is a look, too."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    category: Annotated[Sequence[_Name], Field(min_length=1, max_length=MOST_NAMES, description="One of these.")]
    did: Literal["bought", "viewed"] = "viewed"
    days: Annotated[float, Field(gt=0, le=3_650)] = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Who is meant. All that is given must hold; nothing given: everybody.

    Attributes:
        new_users: only users and visitors who have bought nothing yet.
        arm: ``experiment/arm``.
        regions: as in the context of a question.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    new_users: Annotated[bool, Field(description="Only users and visitors who have bought nothing yet.")] = False
    interest: Interest | None = None
    arm: Annotated[_Name | None, Field(examples=["blue-buttons/b"])] = None
    regions: Annotated[Sequence[_Name] | None, Field(max_length=MOST_NAMES)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a campaign may stand: in these scenarios, at these positions, one item each, at most `slots` of them."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    scenarios: Annotated[Sequence[_Name], Field(min_length=1, max_length=100)] = ("home",)
    positions: Annotated[Sequence[_Position], Field(min_length=1, max_length=MOST_SLOTS)] = (2,)
    slots: Annotated[int, Field(ge=1, le=MOST_SLOTS)] = MOST_SLOTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A campaign.

    Attributes:
        title: what people see of it.
        items: these, and whatever the filter names.
        start: runs from here on; None: always did.
        end: runs until before this; None: for ever.
        impressions: so many items of it are shown in answers, then it is over; None: no matter how many.
        data: whatever the shop needs to draw it: an image, a link, a text.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: _Name
    title: Annotated[str, Field(max_length=LONGEST_TEXT)] = ""
    items: Annotated[Sequence[_Name], Field(max_length=MOST_NAMES)] = ()
    filter: Filter | None = None
    start: Moment | None = None
    end: Moment | None = None
    audience: Audience = Audience()
    placement: Placement = Placement()
    impressions: Annotated[int | None, Field(ge=1, description="Items of it shown in answers; then it is over.")] = None
    data: Annotated[Mapping[str, str | float | bool], Field(max_length=20)] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.items and self.filter is None:
            raise BadInputError("a promotion needs items or a filter")
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise BadInputError("a promotion ends after its start")


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Who asks, as far as audiences go by it.

    Attributes:
        past: its items are places.
        known: a user or a visitor asks, not just a list of items.
        region: None: not said.
    """

    past: Past
    known: bool
    region: str | None = None
    arm: str | None = None


def is_for(promotion: Promotion, visit: Visit, shelf: Shelf, *, now_ms: int) -> bool:
    """Whether a campaign runs now and means this visit."""
    audience = promotion.audience
    return (
        is_on(promotion.start, promotion.end, now_ms)
        and (audience.arm is None or audience.arm == visit.arm)
        and (audience.regions is None or visit.region in audience.regions)
        and (not audience.new_users or (visit.known and not visit.past.purchased.any()))
        and (audience.interest is None or _shares(audience.interest, visit.past, shelf, now_ms=now_ms))
    )


def _shares(interest: Interest, past: Past, shelf: Shelf, *, now_ms: int) -> bool:
    mine: Any = np.isin(shelf.category[past.item], shelf.category_codes(interest.category))
    if interest.did == "bought":
        mine &= past.purchased
    timeless = past.time_ms < EARLIEST_MS  # a history given with the question
    return bool((mine & (timeless | (past.time_ms >= now_ms - interest.days * DAY_MS))).any())
