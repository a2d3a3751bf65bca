"""What the edge answers, as types: plain dicts at run time, so that a newer edge's fields are there, too."""

from typing import Any, Literal, NotRequired, TypedDict

Rung = Literal["sequence", "habits", "companions", "context", "trending", "popularity"]


class Item(TypedDict):
    """One item of an answer. Scores compare within one answer only."""

    item: str
    score: float
    title: str
    promotion: NotRequired[str | None]
    pinned: NotRequired[bool | None]
    explored: NotRequired[bool | None]
    propensity: NotRequired[float | None]
    fields: NotRequired[dict[str, Any] | None]


class _Answered(TypedDict):
    """Echo `rec_id` in the events that follow. `reasons` says why it is not of the best rung."""

    rec_id: str
    release: int | None
    arm: str | None
    rung: Rung
    degraded: bool
    reasons: list[str]
    skipped: list[str]


class Recommendations(_Answered):
    """Items, best first."""

    items: list[Item]


class Campaign(TypedDict):
    """One campaign, and the items of it that fit best."""

    name: str
    title: str
    score: float
    data: dict[str, str | float | bool]
    items: list[Item]


class Campaigns(_Answered):
    """Campaigns, best first."""

    promotions: list[Campaign]


class TrendingItem(Item):
    """`rise` is how many times as much as usual it is wanted."""

    rise: float | None


class Trending(_Answered):
    """Items that are wanted now more than usual."""

    items: list[TrendingItem]


class Why(TypedDict):
    """One reason: what it adds to the score."""

    kind: str
    effect: float
    text: str
    item: NotRequired[str | None]
    type: NotRequired[str | None]
    time: NotRequired[str | None]
    count: NotRequired[int | None]


class Explained(TypedDict):
    """One item, and why it stands where it does."""

    item: str
    title: str
    score: float
    above: float
    because: list[Why]
    voices: list[Why]


class Explanations(_Answered):
    """The items that were asked about."""

    items: list[Explained]


class Hit(TypedDict):
    """One item that was found."""

    item: str
    score: float
    title: str
    price: float | None
    category: str
    brand: str
    highlight: NotRequired[str | None]
    fields: NotRequired[dict[str, Any] | None]


class Count(TypedDict):
    """So many hits have this value, or lie from `min` on and below `max`."""

    value: NotRequired[str | float | bool | None]
    min: NotRequired[float | None]
    max: NotRequired[float | None]
    count: int


class Found(TypedDict):
    """What a search found. `hits` is how many items fit with every word."""

    rec_id: str
    release: int | None
    arm: str | None
    degraded: bool
    reasons: list[str]
    skipped: list[str]
    hits: int
    corrected: str | None
    items: list[Hit]
    facets: dict[str, list[Count]]


class Suggestion(TypedDict):
    """A text to search for."""

    text: str
    kind: str


class Suggestions(TypedDict):
    """What may be about to be typed, and what is found for it already."""

    suggestions: list[Suggestion]
    items: list[Hit]


class Synonyms(TypedDict):
    """All of them by name."""

    synonyms: dict[str, dict[str, Any]]


class Index(TypedDict):
    """The index that is searched; `whole` is false while the first is being built."""

    items: int
    whole: bool
    language: str
    building: bool


class Added(TypedDict):
    """All of them are on disk; duplicates are those whose event_id was known."""

    added: int
    duplicates: int


class RefusedLine(TypedDict):
    """A line of a stream that was no event."""

    line: int
    reason: str


class Streamed(Added):
    """What became of a stream's lines."""

    rejected: int
    reasons: list[RefusedLine]


class EventsPage(TypedDict):
    """Events in order of arrival; give `next` as `after` for those that follow."""

    events: list[dict[str, Any]]
    next: str
    more: bool


class Changed(TypedDict):
    """How many items are other than before."""

    changed: int


class ItemsPage(TypedDict):
    """Items as the site lists them."""

    items: list[dict[str, Any]]
    missing: list[str]
    next: str | None
    more: bool


class Merged(TypedDict):
    """Events of the session that are the user's now."""

    moved: int


class Erased(TypedDict):
    """What was there to erase; `clean`: nothing of it is left in the files either."""

    known: bool
    events: int
    clean: bool


class Scenarios(TypedDict):
    """All scenarios."""

    scenarios: list[dict[str, Any]]


class Promotions(TypedDict):
    """All promotions."""

    promotions: list[dict[str, Any]]


class DocumentSet(TypedDict):
    """It is in force; `unknown` are names in it that the site does not know."""

    name: str
    unknown: list[str]


class ScenarioRemoved(TypedDict):
    """It is gone; `built_in`: the one that came with the program applies again."""

    name: str
    built_in: bool


class Named(TypedDict):
    """It is done, for what has this name."""

    name: str


class Experiments(TypedDict):
    """All experiments and what came of them."""

    experiments: list[dict[str, Any]]


class ExperimentSet(TypedDict):
    """It is on disk."""

    name: str
    state: Literal["draft", "running", "stopped"]
