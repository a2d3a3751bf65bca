"""Shops with a history of visits, and what stands in the books that were made of it."""

from dataclasses import dataclass

import numpy as np
import pytest

from edge.neighbours.books import Books
from edge.neighbours.entries import unpacked
from edge.neighbours.following import Follower
from edge.neighbours.sums import HalfLives
from edge.neighbours.visits import KINDS
from edge.records.events import Event, EventType

NOW_MS = 1_795_000_000_000
MINUTE_MS = 60_000
DAY_MS = 86_400_000
HALF_LIVES = HalfLives(memory_ms=60 * DAY_MS, trend_ms=DAY_MS)


class Diary:
    """Makes events; each gets an id of its own."""

    def __init__(self):
        self.count = 0

    def event(self, user, item, *, minute=0, kind="purchase", session=None, context=None):
        self.count += 1
        return Event(
            event_id=f"e{self.count}",
            type=EventType(kind),
            user=user,
            item=item,
            time_ms=NOW_MS + round(minute * MINUTE_MS),
            session=session,
            context=context or {},
        )

    def basket(self, user, items, *, minute=0, **how):
        return [self.event(user, item, minute=minute, **how) for item in items]

    def visits(self, rng, *, number, users=20, items=30):
        """Baskets and browsing over three months, as they might have been."""
        kinds = ["view", "view", "click", "add_to_cart", "purchase"]
        found = []
        for minute in np.sort(rng.integers(-90 * 24 * 60, 0, number)).tolist():
            user, region = f"u{rng.integers(users)}", f"r{rng.integers(4)}"
            session = f"s{rng.integers(1000)}" if rng.random() < 0.5 else None
            found += [
                self.event(
                    user,
                    f"i{int(rng.zipf(1.5)) % items}",
                    minute=minute + step * float(rng.random()) * 12,
                    kind=kinds[rng.integers(len(kinds))],
                    session=session,
                    context={"region": region} if rng.random() < 0.7 else None,
                )
                for step in range(rng.integers(1, 8))
            ]
        return found


@dataclass(frozen=True)
class Standing:
    """All that the books say, as of one moment."""

    lists: dict
    sums: dict

    @classmethod
    def of(cls, store, suffix=""):
        books, item_of = Books(HALF_LIVES, suffix=suffix), store.item_names()
        lists, sums = {}, {}
        with store.reading() as db:
            names = {number: name for name, number in books.names(db).items()}
            for number, time_ms, entries in db.execute(f"SELECT * FROM neighbour_lists{suffix}"):
                fading = 2.0 ** ((time_ms - NOW_MS) / HALF_LIVES.memory_ms)
                title = names[number] if number < 0 else (KINDS[number % 2], item_of[number // 2])
                for item, weight in zip(*unpacked(entries), strict=True):
                    lists[title, item_of.get(int(item))] = float(weight) * fading
            for some in books.all_sums(db):
                value = some.value * np.exp2((some.time_ms[:, None] - NOW_MS) / HALF_LIVES.by_column())
                sums.update(zip((item_of[item] for item in some.item.tolist()), value.tolist(), strict=True))
        return cls(lists=lists, sums=sums)

    def differs(self, other):
        """The largest difference of any weight."""
        gaps = [abs(self.lists.get(at, 0) - other.lists.get(at, 0)) for at in self.lists.keys() | other.lists.keys()]
        nothing = [0.0] * 4
        gaps += [
            float(np.abs(np.subtract(self.sums.get(item, nothing), other.sums.get(item, nothing))).max())
            for item in self.sums.keys() | other.sums.keys()
        ]
        return max(gaps, default=0.0)


@pytest.fixture
def diary():
    return Diary()


@pytest.fixture
def half_lives():
    return HALF_LIVES


@pytest.fixture
def standing():
    return Standing.of


@pytest.fixture
def follow(store):
    """Count all events there are, so many at a time."""

    def follow(*, most=2_000, into=store):
        follower = Follower(into, Books(HALF_LIVES))
        while follower.step(most=most):
            pass
        return follower

    return follow
