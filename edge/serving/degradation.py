"""The ladder from the best answer to some answer. A rung that breaks is named in the answer; it is never an error page.

sequence    the model read the history; fused with the user's own habits and popularity
habits      the model is silent; the user's own habits and popularity
popularity  nothing is known of the user
"""

from dataclasses import dataclass
from enum import StrEnum

from edge.records.store import Past
from edge.serving.fusion import TOP
from edge.serving.ranker import ModelFailedError, Ranked
from edge.serving.release import Release


class Rung(StrEnum):
    """Who gave the answer, best first."""

    SEQUENCE = "sequence"
    HABITS = "habits"
    POPULARITY = "popularity"


class Reason(StrEnum):
    """Why it was not the best rung. A closed set: metrics count by it."""

    NO_RELEASE = "no_release"
    UNKNOWN_USER = "unknown_user"
    UNKNOWN_ITEMS = "unknown_items"
    """Nothing in the given history is known here."""
    NO_SHARED_ITEMS = "no_shared_items"
    """The history holds private items only, which the model does not know."""
    PRIVATE_ITEM = "private_item"
    """The item asked about is private, so the model does not know it."""
    MODEL_ERROR = "model_error"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Footing:
    """The rung an answer stands on.

    Attributes:
        ranked: what the model said, on the highest rung.
        reasons: why it is not the highest, in the order they were found.
    """

    rung: Rung
    ranked: Ranked | None
    reasons: tuple[Reason, ...]


def find_footing(release: Release | None, past: Past, *, unknown: Reason) -> Footing:
    """The highest rung that carries.

    Args:
        past: its items are places.
        unknown: the reason to give when it is empty.
    """
    lower = Rung.HABITS if past.item.size else Rung.POPULARITY
    reasons = () if past.item.size else (unknown,)
    if release is None:
        return Footing(rung=lower, ranked=None, reasons=(Reason.NO_RELEASE, *reasons))
    if reasons:
        return Footing(rung=lower, ranked=None, reasons=reasons)
    rows = past.item[past.item <= len(release.catalogue)]
    if not rows.size:
        return Footing(rung=lower, ranked=None, reasons=(Reason.NO_SHARED_ITEMS,))
    try:
        ranked = release.ranker.rank(rows, k=TOP)
    except ModelFailedError:
        return Footing(rung=lower, ranked=None, reasons=(Reason.MODEL_ERROR,))
    return Footing(rung=Rung.SEQUENCE, ranked=ranked, reasons=())
