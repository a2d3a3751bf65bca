"""One site's neighbours: what goes with what, what is rising, what sells here and now; a thread follows the events."""

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import structlog
from numpy.typing import NDArray

from edge.neighbours.books import Books, Entry
from edge.neighbours.companions import EVERY, Companions, Kinds
from edge.neighbours.contexts import Contexts
from edge.neighbours.following import AT_A_TIME, Follower, forget
from edge.neighbours.places import Keys
from edge.neighbours.sums import HOT, USUAL, HalfLives
from edge.neighbours.trending import Trends, trends
from edge.records.changes import Recorded
from edge.records.store import Store
from edge.serving.shelf import Shelf
from protocol.errors import FederationError

_log = structlog.get_logger(__name__)
_LOOK_SECONDS = 0.25
_BREATH_SECONDS = 0.002  # between two batches, so that answers and postings come in between
_TROUBLE_SECONDS = 5.0
_RENEW_SECONDS = 600.0  # weights worked out depend a little on items that have changed since
_TREND_MS = 1_000
_HEARD = 50


class Neighbours:
    """Asked in the event loop's thread; `start` follows in another."""

    def __init__(
        self,
        store: Store,
        half_lives: HalfLives,
        *,
        now_ms: Callable[[], int],
        note: Callable[[int, float], None] = lambda _events, _seconds: None,
    ) -> None:
        """Answer from the books that were made before, if there are any.

        Args:
            note: told after each look how many events are behind, and for how many seconds there have been any.
        """
        self.half_lives = half_lives
        self._note = note
        books = Books(half_lives)
        self._follower = Follower(store, books, changed=self._changed, renewed=self._renewed)
        self._interest = self._follower.interest
        self._now_ms = now_ms
        self._keys = Keys()
        self._companions = Companions(store, books, self._interest, now_ms=now_ms)
        self._contexts = Contexts(store, books, self._interest)
        self._trends: WeakKeyDictionary[Shelf, tuple[int, Trends]] = WeakKeyDictionary()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Follow the events from now on."""
        self._thread = threading.Thread(target=self._follow_on, name="neighbours", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when what was being written is on disk."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def follow(self) -> int:
        """Count all events there are, here and now; how many there were."""
        done = 0
        while read := self._follower.step():
            done += read
        return done

    def refresh(self) -> None:
        """Take in what another process has counted; for whoever only asks, and neither starts nor follows."""
        self._follower.refresh()

    def near(
        self,
        shelf: Shelf,
        places: NDArray[np.int64],
        k: int,
        *,
        kinds: Kinds = EVERY,
        most: int = _HEARD,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """What goes with these items: at most k places and their weights, best first; none of the items themselves.

        Args:
            places: oldest first; the newest 20 different ones are heard.
            kinds: which books are heard, and how much each counts.
            most: so many companions of each item are heard.
        """
        keys = self._keys.at(shelf, places, size=self._interest.size)
        items, weight = self._companions.near(keys, kinds=kinds, most=most)
        return shelf.places(items[:k]), weight[:k].astype(np.float32)

    def prior(self, shelf: Shelf, context: Mapping[str, str], now_ms: int) -> NDArray[np.float32] | None:
        """float32[size], how likely each item is wanted by somebody unknown; None while nothing is known."""
        return self._contexts.prior(shelf, context, now_ms)

    def lifts(self, shelf: Shelf, context: Mapping[str, str], place: int, now_ms: int) -> dict[str, float]:
        """How many times as often as elsewhere one item is wanted in each of these contexts, by their names."""
        return self._contexts.lifts(shelf, context, place, now_ms)

    def trends(self, shelf: Shelf, now_ms: int) -> Trends:
        """What is wanted now more than usual, by place; at most a second old. The arrays are not yours to change."""
        made_ms, found = self._trends.get(shelf, (0, None))
        if found is None or not 0 <= now_ms - made_ms <= _TREND_MS or len(found.score) != len(shelf.offered):
            by_key = trends(*self._interest.all((HOT, USUAL), now_ms=now_ms))
            stand = shelf.places(np.arange(len(by_key.score)))
            score = np.full(len(shelf.offered), -np.inf, np.float32)
            rise = np.zeros(len(shelf.offered), np.float32)
            score[stand], rise[stand] = by_key.score, by_key.rise
            score[0] = -np.inf
            found = Trends(score=score, rise=rise)
            self._trends[shelf] = now_ms, found
        return found

    def forget(self, db: sqlite3.Connection, events: Sequence[Recorded]) -> None:
        """For `Store.erase`: take out what these events have put in, in the same transaction."""
        forget(db, events, half_lives=self.half_lives)

    def forgotten(self, _names: object = None) -> None:
        """Somebody was erased: what is kept in memory is read anew."""
        self._renewed()

    def behind(self) -> int:
        """Events that have not been counted yet, about."""
        return self._follower.behind()

    def _changed(self, entry: Entry) -> None:
        self._companions.drop(entry.touched())
        self._contexts.note(entry)

    def _renewed(self) -> None:
        self._companions.clear()
        self._contexts.renew()

    def _follow_on(self) -> None:
        behind_since = time.monotonic()
        renewed = behind_since
        while not self._end.is_set():
            wait = _LOOK_SECONDS
            try:
                read = self._follower.step()
                behind = self._follower.behind() if read else 0
                if read >= AT_A_TIME:
                    wait = _BREATH_SECONDS
                else:  # it has caught up with what was there; those that have come since can wait until they are more
                    behind_since = time.monotonic()
                self._note(behind, time.monotonic() - behind_since if behind else 0.0)
            except FederationError as error:
                _log.warning("events are not followed", why=error.line())
                wait = _TROUBLE_SECONDS
            if time.monotonic() - renewed > _RENEW_SECONDS:
                renewed = time.monotonic()
                self._companions.clear()
            self._end.wait(wait)
