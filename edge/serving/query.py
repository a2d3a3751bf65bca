"""What a shop asks and what it is answered, without HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge.arranging.arrange import Note
from edge.arranging.scenario import Scenario
from edge.serving.degradation import Reason, Rung
from edge.serving.filters import ANYTHING, Filter


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a shop asks. Exactly one of user, session and history is given.

    Attributes:
        session: an anonymous visit; once merged, whoever it turned out to be.
        history: item ids, oldest first.
        scenario: where the answer will stand; it has filters, boosts, rules and diversity of its own.
        variant: the scenario as the arm of an experiment has it; None: as it is.
        items: what stands there already: the item of a product page, the contents of a basket.
        filter: what items of the answer must be, beside what the scenario wants.
        exclude: items that must not be in the answer.
        context: what is known of a visit without knowing who it is: ``region``, ``page``.
        within_ms: the answer is of use only so long; None, or longer: as the settings say.
    """

    user: str | None = None
    session: str | None = None
    history: Sequence[str] | None = None
    limit: int = 10
    scenario: str = "home"
    variant: Scenario | None = None
    items: Sequence[str] = ()
    filter: Filter = ANYTHING
    exclude: Sequence[str] = ()
    context: Mapping[str, str] = field(default_factory=dict)
    within_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommended:
    """One item of an answer; scores compare within one answer only.

    Attributes:
        note: why it stands where it stands, if not for its score.
    """

    item: str
    score: float
    title: str
    note: Note | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Items, best first, and how good the answer is.

    Attributes:
        rec_id: events that follow from this answer echo it.
        release: version that answered; None before the first.
        arm: ``experiment/arm`` under which it was answered; None: under no experiment.
        reasons: why it is not the best rung; empty: it is.
        skipped: submodels that should have spoken and did not; the reasons say why.
    """

    rec_id: str
    release: int | None
    rung: Rung
    reasons: tuple[Reason, ...]
    items: list[Recommended]
    arm: str | None = None
    skipped: tuple[str, ...] = ()
