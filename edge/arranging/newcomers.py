"""Items that were listed lately and hardly shown yet, as the site's own impressions count them."""

from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Final, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from edge.arranging.exploration import Untried
from edge.records.events import EventType
from edge.records.schema import CODE
from edge.records.store import Store
from edge.serving.numbering import Numbering
from edge.serving.shelf import Shelf

_NEWEST: Final = 1_000
"""Items that are looked through, the newest first."""
_REFRESH_SECONDS: Final = 60.0
_KINDS: Final = (CODE[EventType.IMPRESSION], CODE[EventType.CLICK], CODE[EventType.PURCHASE])
# A site that reports no impressions would see every item as new for ever.
_REPORTED: Final = "SELECT 1 FROM counts WHERE type = ? LIMIT 1"
_NEWCOMERS: Final = """
    SELECT newest.id, coalesce(shown.events, 0), coalesce(clicked.events, 0) + coalesce(bought.events, 0)
    FROM (SELECT id FROM items WHERE listed ORDER BY id DESC LIMIT ?) AS newest
    LEFT JOIN counts AS shown ON shown.type = ? AND shown.item = newest.id
    LEFT JOIN counts AS clicked ON clicked.type = ? AND clicked.item = newest.id
    LEFT JOIN counts AS bought ON bought.type = ? AND bought.item = newest.id"""

_Kept: TypeAlias = WeakKeyDictionary[Numbering, tuple[float, Untried | None]]


class Newcomers:
    """Read once a minute; for one thread."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = monotonic) -> None:
        self._store = store
        self._clock = clock
        self._kept = _Kept()

    def on(self, shelf: Shelf) -> Untried | None:
        """Those on this shelf; None: the site reports no impressions, so there is nothing to learn from."""
        now = self._clock()
        read_at, untried = self._kept.get(shelf.numbering, (-inf, None))
        if now - read_at >= _REFRESH_SECONDS:
            untried = self._read(shelf)
            self._kept[shelf.numbering] = now, untried
        return untried

    def _read(self, shelf: Shelf) -> Untried | None:
        with self._store.reading() as db:
            if not db.execute(_REPORTED, _KINDS[:1]).fetchone():
                return None
            rows = db.execute(_NEWCOMERS, (_NEWEST, *_KINDS)).fetchall()
        table = np.array(rows, np.float64).reshape(-1, 3)
        return Untried(places=shelf.places(table[:, 0].astype(np.int64)), impressions=table[:, 1], clicks=table[:, 2])
