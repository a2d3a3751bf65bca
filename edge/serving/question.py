"""One question on its way to an answer: whose past it is about, what may be named, until when, what was not heard."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.arranging.arranging import Prepared
from edge.records.store import Past
from edge.serving.degradation import SILENCE, Reason
from edge.serving.query import Query
from edge.serving.release import Loaded
from edge.serving.shelf import Shelf
from edge.serving.submodel import Trouble


@dataclass(slots=True, kw_only=True, eq=False)
class Question:
    """What is known of a question before anything is scored.

    Attributes:
        own: the user's past in places; `past` is the same with what stands on the page.
        readable: int64[t], what of the past the model can read.
        until: by the clock, when the answer is of no use any more.
        hurried: whoever asks has set that, and not this service.
        version: of the shelf when `prepared` was made.
        silent: what could not be heard so far, and why.
    """

    query: Query
    own: Past
    past: Past
    readable: NDArray[np.int64]
    prepared: Prepared
    version: int
    arm: str | None
    until: float
    hurried: bool
    silent: dict[str, Trouble]

    def reasons(self, loaded: Loaded) -> tuple[Reason, ...]:
        """Why the answer is not of the best rung, in the order of the ladder."""
        reasons = []
        if loaded.release is None:
            reasons.append(Reason.NO_RELEASE)
        if not self.past.item.size:
            reasons.append(_unknown(self.query))
        elif loaded.release is not None and not self.readable.size:
            reasons.append(Reason.NO_SHARED_ITEMS)
        return (*reasons, *(SILENCE[name, trouble] for name, trouble in self.silent.items()))


def looked_at(places: NDArray[np.int64]) -> Past:
    """A past in which these were looked at, in this order."""
    return Past(item=places, time_ms=np.arange(len(places)), purchased=np.zeros(len(places), np.bool_))


def with_items(past: Past, places: NDArray[np.int64]) -> Past:
    """The past of somebody who looks at these now: they stand on the page."""
    last = past.time_ms[-1] if past.time_ms.size else 0
    return Past(
        item=np.concatenate([past.item, places]),
        time_ms=np.concatenate([past.time_ms, np.full(len(places), last)]),
        purchased=np.concatenate([past.purchased, np.zeros(len(places), np.bool_)]),
    )


def places_of(shelf: Shelf, items: Iterable[str]) -> NDArray[np.int64]:
    """int64[n], those that are known here."""
    return np.array([place for item in items if (place := shelf.place(item)) is not None], np.int64)


def _unknown(query: Query) -> Reason:
    if query.user is not None:
        return Reason.UNKNOWN_USER
    return Reason.UNKNOWN_SESSION if query.session is not None else Reason.UNKNOWN_ITEMS
