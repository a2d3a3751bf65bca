"""What was worked out lately of the same past: one page asks for several lists, and a search box asks at every letter.

The past itself is read from the store for every answer. What is remembered is keyed by all that it depends on, so
nothing here can be out of date; it is forgotten when a user is erased, and when another model comes.
"""

from collections import OrderedDict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.records.store import Past
from edge.serving.personal import Habits, habits
from edge.serving.ranker import Ranked, Ranker

MOST_BYTES: Final = 16 << 20


class Remembered:
    """Habits by the past they come from, and what the model said by the history it read; the newest, up to a bound."""

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        """Begin empty.

        Args:
            most_bytes: 0: nothing is remembered.
        """
        self.nbytes = 0
        """Of what is kept."""
        self._most_bytes = most_bytes
        self._kept: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()

    def habits(self, past: Past) -> Habits:
        """As `edge.serving.personal.habits`; not yours to change."""
        key = b"h%b%b%b" % (past.item.tobytes(), past.time_ms.tobytes(), past.purchased.tobytes())
        found: Habits | None = self._get(key)
        if found is None:
            found = habits(past)
            self._keep(key, found, found.places.nbytes + found.columns.nbytes)
        return found

    def ranked(self, model: Ranker, history: NDArray[np.int64], *, k: int) -> Ranked | None:
        """What this model said of this history, if it was asked lately for so many at least.

        Args:
            history: int64[t], rows of the catalogue only: vectors of private items may change.
        """
        known: tuple[Ranker, int, Ranked] | None = self._get(_key(model, history))
        return known[2] if known is not None and known[0] is model and known[1] >= k else None

    def keep(self, model: Ranker, history: NDArray[np.int64], ranked: Ranked, *, k: int) -> None:
        """Remember what it said, asked for so many."""
        self._keep(_key(model, history), (model, k, ranked), ranked.state.nbytes + ranked.rows.nbytes)

    def forget(self) -> None:
        """Keep nothing of anybody."""
        self._kept.clear()
        self.nbytes = 0

    def _get(self, key: bytes) -> Any:
        kept = self._kept.get(key)
        if kept is None:
            return None
        self._kept.move_to_end(key)
        return kept[0]

    def _keep(self, key: bytes, found: Any, size: int) -> None:
        before = self._kept.pop(key, None)
        self._kept[key] = found, len(key) + size
        self.nbytes += len(key) + size - (before[1] if before else 0)
        while self.nbytes > self._most_bytes:
            _, (_, dropped) = self._kept.popitem(last=False)
            self.nbytes -= dropped


def _key(model: Ranker, history: NDArray[np.int64]) -> bytes:
    return b"r%b" % history[-model.history_length :].tobytes()
