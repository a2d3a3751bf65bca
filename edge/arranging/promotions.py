"""All campaigns of a shop, which of them an answer may show, and how often they were shown."""

from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from time import monotonic
from typing import Final, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import structlog
from numpy.typing import NDArray

from edge.arranging.arrange import Promoted
from edge.arranging.book import Book
from edge.arranging.promotion import Promotion, Visit, is_for
from edge.records.store import Store
from edge.serving.filters import matching
from edge.serving.numbering import Numbering
from edge.serving.ranker import best
from edge.serving.shelf import Shelf
from protocol.errors import FederationError

_log = structlog.get_logger(__name__)

KIND: Final = "promotion"
_SHOWN_KIND, _SHOWN = "promotion_shown", "counts"
_SAVE_SECONDS = 10.0
MOST_ITEMS: Final = 200
"""Of a campaign with more items, those that sell best are candidates."""

_Kept: TypeAlias = WeakKeyDictionary[Numbering, dict[str, tuple[Promotion, int, NDArray[np.int64]]]]


class Promotions:
    """Campaigns as documents, and their counts: for one thread, but for `put`, `drop` and `save`."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = monotonic) -> None:
        self.book = Book(store, KIND, Promotion, built_in={}, clock=clock)
        self._store = store
        self._clock = clock
        self._turn = Lock()
        self._shown: dict[str, int] | None = None
        self._unsaved = False
        self._saved = clock()
        self._places = _Kept()

    def running(self, visit: Visit, shelf: Shelf, *, now_ms: int) -> list[Promotion]:
        """Those that run now, mean this visit, and have not been shown as often as they should."""
        known = self.book.known()
        if not known:
            return []
        return [
            promotion
            for promotion in known.values()
            if not self.is_spent(promotion) and is_for(promotion, visit, shelf, now_ms=now_ms)
        ]

    def placed(self, visit: Visit, shelf: Shelf, *, scenario: str, now_ms: int) -> list[Promoted]:
        """Those that may stand in an answer of this scenario, with their items and positions."""
        return [
            Promoted(
                name=each.name,
                places=self.places(each, shelf),
                positions=sorted(each.placement.positions)[: each.placement.slots],
            )
            for each in self.running(visit, shelf, now_ms=now_ms)
            if scenario in each.placement.scenarios
        ]

    def places(self, promotion: Promotion, shelf: Shelf) -> NDArray[np.int64]:
        """int64[n], the items of a campaign that are on offer, those that sell best if they are many."""
        kept = self._places.setdefault(shelf.numbering, {})
        before = kept.get(promotion.name)
        if before and before[0] is promotion and before[1] == shelf.version:
            return before[2]
        if len(kept) > len(self.book.known()):
            kept.clear()  # of campaigns that are gone
        found = _places(promotion, shelf)
        kept[promotion.name] = promotion, shelf.version, found
        return found

    def shown(self, name: str) -> int:
        """How often items of a campaign stood in answers."""
        return self._counts().get(name, 0)

    def is_spent(self, promotion: Promotion) -> bool:
        """Whether it has been shown as often as it should."""
        return promotion.impressions is not None and self.shown(promotion.name) >= promotion.impressions

    def drop(self, name: str) -> bool:
        """Remove one and its count; False: there was none. Waits for the disk."""
        dropped = self.book.drop(name)
        with self._turn:
            self._unsaved = self._counts().pop(name, None) is not None or self._unsaved
        self.save()
        return dropped

    def note_shown(self, names: Iterable[str]) -> bool:
        """Count items that stand in an answer; True: it is time to `save`."""
        counts = self._counts()
        with self._turn:
            for name in names:
                counts[name] = counts.get(name, 0) + 1
                self._unsaved = True
        return self._unsaved and self._clock() - self._saved >= _SAVE_SECONDS

    def save(self) -> None:
        """Write the counts down; what a crash takes is what was shown in the last seconds. Waits for the disk."""
        with self._turn:
            if not self._unsaved:
                return
            self._unsaved, self._saved = False, self._clock()
            known = self.book.known()
            counts = {name: count for name, count in self._counts().items() if name in known}
        try:
            self._store.put_document(_SHOWN_KIND, _SHOWN, counts)
        except FederationError:
            self._unsaved = True
            raise

    def save_if_possible(self) -> None:
        """The same, but a full disk is only told in the log: an answer does not fail for a count."""
        try:
            self.save()
        except FederationError as error:
            _log.warning("how often promotions were shown is not written", why=error.line())

    def _counts(self) -> dict[str, int]:
        if self._shown is None:
            self._shown = dict(self._store.documents(_SHOWN_KIND).get(_SHOWN, {}))
        return self._shown


def _places(promotion: Promotion, shelf: Shelf) -> NDArray[np.int64]:
    named: Sequence[int] = [place for item in promotion.items if (place := shelf.place(item)) is not None]
    mask = np.zeros(shelf.size, np.bool_)
    mask[named] = True
    if promotion.filter is not None:
        mask |= matching(shelf, promotion.filter, strictly=False)
    mask &= shelf.offered
    if np.count_nonzero(mask) > MOST_ITEMS:
        return best(np.where(mask, shelf.popularity(), -np.inf).astype(np.float32), MOST_ITEMS)
    return np.flatnonzero(mask)
