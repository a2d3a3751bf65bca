"""Habits worked out lately: one page asks for several lists, and each time the user's past is the same.

The past itself is read from the store for every answer. What is remembered is keyed by all that the habits depend on,
so nothing here can be out of date; it is forgotten when a user is erased.
"""

from collections import OrderedDict
from typing import Final

from edge.records.store import Past
from edge.serving.personal import Habits, habits

MOST_BYTES: Final = 8 << 20


class Remembered:
    """Habits by the past they come from, those asked for last, 8 MiB at most."""

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        """Begin empty."""
        self.nbytes = 0
        """Of what is kept."""
        self._most_bytes = most_bytes
        self._kept: OrderedDict[bytes, Habits] = OrderedDict()

    def habits(self, past: Past) -> Habits:
        """As `edge.serving.personal.habits`; not yours to change."""
        key = b"%b%b%b" % (past.item.tobytes(), past.time_ms.tobytes(), past.purchased.tobytes())
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        found = self._kept[key] = habits(past)
        self.nbytes += _size(key, found)
        while self.nbytes > self._most_bytes:
            self.nbytes -= _size(*self._kept.popitem(last=False))
        return found

    def forget(self) -> None:
        """Keep nothing of anybody."""
        self._kept.clear()
        self.nbytes = 0


def _size(key: bytes, found: Habits) -> int:
    return len(key) + found.places.nbytes + found.columns.nbytes
