"""What counts as one basket and one visit."""

import numpy as np
import pytest

from edge.neighbours.visits import BOUGHT, KINDS, VIEWED, Lines, count
from edge.records.changes import Recorded
from edge.records.events import EventType

NOW_MS = 1_795_000_000_000
MINUTE_MS = 60_000


def lines(*happened, visits=None):
    """(user, item, minute, kind[, session]) each; keys in this order."""
    events = [
        Recorded(
            key=key,
            type=EventType(kind),
            user=user,
            item=item,
            time_ms=NOW_MS + round(minute * MINUTE_MS),
            quantity=1.0,
            session=session[0] if session else None,
            rec_id=None,
            query=None,
            context={},
        )
        for key, (user, item, minute, kind, *session) in enumerate(happened, start=1)
    ]
    return Lines.of(events, {} if visits is None else visits)


def pairs(counted, book):
    """Both ways round, added up."""
    found = {}
    entries = counted.entries
    for number, other, weight in zip(entries.list_id, entries.other, entries.weight, strict=True):
        if number > 0 and number % len(KINDS) == book:
            at = int(number) // len(KINDS), int(other)
            found[at] = found.get(at, 0.0) + float(weight)
    return found


def counted(*happened):
    return count(lines(), lines(*happened))


def test_what_is_bought_in_one_basket_goes_together_both_ways():
    found = pairs(counted((1, 5, 0, "purchase"), (1, 6, 0, "purchase"), (1, 7, 90, "purchase")), BOUGHT)
    assert found == {(5, 6): 1.0, (6, 5): 1.0}


@pytest.mark.parametrize("other", [(2, 6, 0, "purchase"), (1, 6, 0, "purchase", "s2"), (1, 6, 0, "view")])
def test_another_user_another_session_and_another_kind_are_another_visit(other):
    assert pairs(counted((1, 5, 0, "purchase", "s1"), other), BOUGHT) == {}


def test_looking_ten_times_at_one_item_counts_as_one_look():
    found = counted(*((1, 5, minute, "view") for minute in range(10)), (1, 6, 10, "view"))
    assert pairs(found, VIEWED)[6, 5] == 1.0
    assert found.sums[found.item == 5, VIEWED].sum() == 1.0
    assert found.sums[found.item == 5, 2].sum() == pytest.approx(0.2)


def test_what_is_farther_back_was_viewed_less_together():
    found = pairs(counted((1, 5, 0, "view"), (1, 6, 1, "view"), (1, 7, 2, "click")), VIEWED)
    assert found[7, 6] == 1.0
    assert found[7, 5] == 0.5


def test_a_basket_of_a_thousand_things_is_bounded():
    found = counted(*((1, item, 0, "purchase") for item in range(1, 1001)))
    assert len(pairs(found, BOUGHT)) <= 2 * 30 * 1000


def test_an_event_that_comes_late_from_another_day_stands_between_nobody():
    near = pairs(counted((1, 5, 0, "view"), (1, 8, -5000, "view"), (1, 6, 1, "view")), VIEWED)
    assert near[6, 5] == 1.0


def test_counted_in_two_parts_it_is_the_same():
    happened = [(1, 5, 0, "view"), (1, 6, 1, "view"), (1, 5, 2, "view"), (1, 7, 3, "click"), (1, 6, 40, "view")]
    whole = pairs(counted(*happened), VIEWED)
    for cut in range(1, len(happened)):
        everything = lines(*happened)
        columns = [everything.key, everything.visit, everything.item, everything.kind, everything.time_ms]
        first, second = (
            Lines(
                **dict(zip(("key", "visit", "item", "kind", "time_ms"), part, strict=True)),
                contexts=[{}] * len(part[0]),
            )
            for part in zip(*(np.split(column, [cut]) for column in columns), strict=True)
        )
        parts = [pairs(count(lines(), first), VIEWED), pairs(count(first, second), VIEWED)]
        together = {at: sum(part.get(at, 0) for part in parts) for part in parts for at in part}
        assert together == pytest.approx(whole)
