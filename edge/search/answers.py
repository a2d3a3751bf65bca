"""What a shopper asks the search, and what comes back; without HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from edge.search.completing import Suggestion
from edge.serving.filters import ANYTHING, Filter


class Sort(StrEnum):
    """The order of the items."""

    RELEVANCE = "relevance"
    PRICE_UP = "price_asc"
    PRICE_DOWN = "price_desc"
    NEWEST = "newest"
    POPULARITY = "popularity"


class Gap(StrEnum):
    """Why an answer is not as good as it could be. A closed set: metrics count by it."""

    INDEX_MISSING = "index_missing"
    """There is no index yet; it is being built."""
    INDEX_PARTIAL = "index_partial"
    """The index is being built for the first time, and items are missing from it."""
    SEARCH_ERROR = "search_error"
    """The submodel search failed."""
    SEARCH_SLOW = "search_slow"
    """There was no time left for it, or it was stopped."""
    SEARCH_PAUSED = "search_paused"
    """It has failed so often that it is left alone for a while."""
    RECOMMEND_ERROR = "recommend_error"
    """The submodel recommend failed, so the order is nobody's own; likewise:"""
    RECOMMEND_SLOW = "recommend_slow"
    RECOMMEND_PAUSED = "recommend_paused"
    ARM_NOT_HERE = "arm_not_here"
    """The control of an experiment answers, because something that one of its arms names is not here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is asked.

    Attributes:
        text: what was typed; empty: whatever the filter lets through.
        user, session: whose taste counts; at most one of them.
        facets: names whose values are counted: category, brand, price, or an attribute.
        semantic: also look for what means the same in other words, if the release can.
        personal: let the taste of who asks count.
        within_ms: the answer is of use only so long; None: as long as it takes.
    """

    text: str = ""
    user: str | None = None
    session: str | None = None
    filter: Filter = ANYTHING
    facets: Sequence[str] = ()
    sort: Sort = Sort.RELEVANCE
    limit: int = 10
    offset: int = 0
    highlight: bool = False
    semantic: bool = True
    personal: bool = True
    within_ms: float | None = None

    @property
    def is_somebodys(self) -> bool:
        """Whether it is said who asks."""
        return self.user is not None or self.session is not None

    @property
    def is_personal(self) -> bool:
        """Whether somebody's taste counts."""
        return self.personal and self.is_somebodys


class Hit(NamedTuple):
    """One item that was found. Scores compare within one answer only.

    Attributes:
        highlight: the title as HTML with what was found in ``<mark>``; None: not asked for.
    """

    item: str
    score: float
    title: str
    price: float | None
    category: str
    brand: str
    highlight: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggested:
    """What may be about to be typed, and what is found for it already."""

    suggestions: list[Suggestion]
    items: list[Hit]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Items, best first.

    Attributes:
        rec_id: events that follow from this answer echo it.
        release: version that took part; None before the first.
        hits: how many items fit with every word; if fewer than asked for, items with some
            of the words follow.
        corrected: the question as it was probably meant; None: as it was typed.
        facets: by name, values and how many of the hits have them.
        gaps: why it is not as good as it could be; empty: it is.
        skipped: submodels that should have had a say and had none.
    """

    rec_id: str
    release: int | None
    hits: int
    items: list[Hit]
    corrected: str | None = None
    facets: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    skipped: tuple[str, ...] = ()
