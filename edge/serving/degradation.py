"""The ladder from the best answer to some answer. A rung that breaks is named in the answer; it is never an error page.

sequence    the model read the history; fused with the user's own habits and popularity
habits      the model is silent; the user's own habits and popularity
companions  nothing is known of the user, but of what stands on the page: what goes with that
context     nothing but where and when is asked: what sells then and there
popularity  nothing at all
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from edge.serving.submodel import COMPANIONS, CONTEXT, RECOMMEND, Trouble


class Rung(StrEnum):
    """Who gave the answer, best first."""

    SEQUENCE = "sequence"
    HABITS = "habits"
    COMPANIONS = "companions"
    CONTEXT = "context"
    TRENDING = "trending"
    POPULARITY = "popularity"


class Reason(StrEnum):
    """Why it was not the best rung. A closed set: metrics count by it."""

    NO_RELEASE = "no_release"
    UNKNOWN_USER = "unknown_user"
    UNKNOWN_SESSION = "unknown_session"
    UNKNOWN_ITEMS = "unknown_items"
    """Nothing in the given history is known here."""
    NO_SHARED_ITEMS = "no_shared_items"
    """The history holds private items only, which the model does not know."""
    PRIVATE_ITEM = "private_item"
    """The item asked about is private, so the model does not know it."""
    MODEL_ERROR = "model_error"
    MODEL_SLOW = "model_slow"
    """There was no time left for the model, or it was stopped."""
    MODEL_PAUSED = "model_paused"
    """The model has failed so often that it is left alone for a while."""
    COMPANIONS_SILENT = "companions_silent"
    """What goes with the user's items could not be told: it failed, was too slow, or is left alone for a while."""
    CONTEXT_SILENT = "context_silent"
    """The same of what sells then and there."""
    NO_COMPANIONS = "no_companions"
    """Too little has been bought or viewed together with it: the rest is what is like it."""
    NO_TRENDS = "no_trends"
    """Too little has happened lately: the rest is what sells."""
    ARM_NOT_HERE = "arm_not_here"
    """The control of an experiment answers, because something that one of its arms names is not here."""


SILENCE: Final[Mapping[tuple[str, Trouble], Reason]] = MappingProxyType(
    {
        (RECOMMEND, Trouble.FAILED): Reason.MODEL_ERROR,
        (RECOMMEND, Trouble.SLOW): Reason.MODEL_SLOW,
        (RECOMMEND, Trouble.PAUSED): Reason.MODEL_PAUSED,
        **{(COMPANIONS, trouble): Reason.COMPANIONS_SILENT for trouble in Trouble},
        **{(CONTEXT, trouble): Reason.CONTEXT_SILENT for trouble in Trouble},
    }
)
"""What an answer says of a submodel that should have spoken."""
