"""What a site says of a release: checked against a slow and plain way of counting the same."""

import math
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest

from edge.records.events import Event, EventType
from edge.records.store import Store
from edge.releases import evaluating
from edge.releases.catalogue import Catalogue
from edge.releases.evaluating import Comparison, compare, evaluate
from edge.serving.ranker import ModelFailedError, Ranked
from edge.serving.release import Release
from protocol.lessons import EVALUATED

DAY_MS = 86_400_000
NOW_MS = 1_795_000_000_000


class NextDoor:
    """Ranks the rows after the newest one of the history; a stand-in for a model, with nothing to learn."""

    def __init__(self, items, *, step=1, fails=False):
        self.items, self.step, self.fails = items, step, fails
        self.asked = []

    def rank(self, rows, *, k):
        if self.fails:
            raise ModelFailedError("the model failed")
        self.asked.append(rows.tolist())
        found = (rows[-1] - 1 + self.step * np.arange(1, k + 1)) % self.items + 1
        return Ranked(state=np.zeros(2, np.float32), rows=found)


def release(names, *, ranker=None, popularity=None):
    blank = ("",) * (len(names) + 1)
    catalogue = Catalogue(
        version=1,
        sha256="",
        row_of={name: row for row, name in enumerate(names, start=1)},
        names=("", *names),
        titles=blank,
        categories=blank,
        brands=blank,
        prices=np.full(len(names) + 1, np.nan, np.float32),
    )
    counts = np.arange(len(names) + 1, 0, -1) if popularity is None else np.array([0, *popularity])
    return Release(
        version=1,
        sha256="",
        ranker=ranker or NextDoor(len(names)),
        catalogue=catalogue,
        popularity=counts.astype(np.float32),
    )


NAMES = [f"i{row}" for row in range(1, 41)]


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store.db") as opened:
        yield opened


@pytest.fixture
def had(store):
    """had("ada", 3, "i1", "i2"): both in one basket, 3 days before now."""

    def had(user, days_ago, *items, kind=EventType.PURCHASE):
        store.add_events(
            Event(
                event_id=f"{user} {days_ago} {item}",
                type=kind,
                user=user,
                item=item,
                time_ms=int(NOW_MS - days_ago * DAY_MS),
            )
            for item in items
        )

    return had


def figures(sums):
    return dict(zip(("events", "ndcg", "recall", "base_ndcg", "base_recall"), sums.tolist(), strict=True))


def test_the_newest_basket_is_foretold_from_what_came_before_it(store, had) -> None:
    had("ada", 3, "i4")
    had("ada", 2, "i7")
    had("ada", 1, "i8", "i30")  # NextDoor answers i8 first, i30 not at all
    candidate = release(NAMES)
    found = figures(evaluate(store, candidate, None, draw=1)["all"])
    assert candidate.ranker.asked == [[4, 7]]
    assert found["events"] == 1
    assert found["ndcg"] == pytest.approx(1 / (1 + 1 / math.log2(3)), abs=1e-5)
    assert found["recall"] == pytest.approx(0.5, abs=1e-5)
    assert found["base_ndcg"] == pytest.approx((1 / math.log2(9)) / (1 + 1 / math.log2(3)), abs=1e-5)  # i8 is 8th
    assert found["base_recall"] == pytest.approx(0.5, abs=1e-5)


def test_what_the_catalogue_does_not_list_is_neither_asked_nor_wanted(store, had) -> None:
    had("ada", 5, "own-pie")
    had("ada", 4, "i4")
    had("ada", 3, "i5", "own-pie")
    had("ada", 1, "own-pie")
    had("bob", 3, "own-pie")
    had("bob", 2, "i3")
    had("cleo", 2, "i3")
    candidate = release(NAMES)
    found = figures(evaluate(store, candidate, None, draw=1)["all"])
    assert candidate.ranker.asked == [[4]]  # bob's past is private, cleo has none
    assert (found["events"], found["ndcg"]) == (1, pytest.approx(1.0))


def test_both_are_measured_on_the_same_events_each_with_its_own_numbering(store, had) -> None:
    had("ada", 3, "i4")
    had("ada", 1, "i5")
    other_way = release(NAMES[::-1], ranker=NextDoor(len(NAMES), step=-1))
    found = figures(evaluate(store, release(NAMES), other_way, draw=1)["all"])
    assert other_way.ranker.asked == [[37]]
    assert found["ndcg"] == found["base_ndcg"] == pytest.approx(1.0)


def test_an_item_that_the_release_in_force_lacks_is_missed_by_it(store, had) -> None:
    had("ada", 3, "i39")
    had("ada", 1, "i40")
    found = figures(evaluate(store, release(NAMES), release(NAMES[:39]), draw=1)["all"])
    assert found["recall"] == pytest.approx(1.0)
    assert found["base_recall"] == 0.0


def test_a_candidate_whose_model_fails_finds_nothing(store, had) -> None:
    had("ada", 3, "i1")
    had("ada", 1, "i2")
    found = figures(evaluate(store, release(NAMES, ranker=NextDoor(40, fails=True)), None, draw=1)["all"])
    assert (found["events"], found["ndcg"]) == (1, 0.0)
    assert found["base_ndcg"] > 0


def test_a_site_without_events_says_nothing(store) -> None:
    sums = evaluate(store, release(NAMES), None, draw=1)
    assert tuple(sums) == EVALUATED
    assert all(not part.any() for part in sums.values())


def test_new_users_have_at_most_five_events_before(store, had) -> None:
    for user, past in (("ada", 5), ("bob", 6)):
        for day in range(past):
            had(user, 100 - day, "i1")
        had(user, 1, "i2")
    sums = evaluate(store, release(NAMES), None, draw=1)
    assert sums["all"][0] == 2
    assert sums["new_users"][0] == 1


def test_a_basket_counts_among_new_items_with_its_new_items_alone(store, had) -> None:
    had("crowd", 200, "i9")
    had("ada", 3, "i1")
    had("ada", 1, "i2", "i9")  # i2 is new at this site, i9 is not
    had("bob", 3, "i8")
    had("bob", 0, "i9")
    found = figures(evaluate(store, release(NAMES), None, draw=1)["new_items"])
    assert found["events"] == 1
    assert found["recall"] == pytest.approx(1.0)


def test_the_tail_is_what_four_fifths_of_the_purchases_leave(store, had) -> None:
    had("ada", 3, "i1")
    had("ada", 1, "i2", "i3")
    popularity = [50, 30, 20, *[0] * 37]  # i1 and i2 make up 80 %
    found = figures(evaluate(store, release(NAMES, popularity=popularity), None, draw=1)["tail"])
    assert found["events"] == 1
    assert found["ndcg"] == pytest.approx(1 / math.log2(3), abs=1e-5)  # i3 alone, second


def test_so_many_users_at_most_and_always_the_same_for_one_candidate(store, had) -> None:
    for number in range(30):
        had(f"u{number}", 3, f"i{number % 20 + 1}")
        had(f"u{number}", 1, "i40")
    asked = []
    for draw in (7, 7, 8):
        candidate = release(NAMES)
        evaluate(store, candidate, None, draw=draw, most=10)
        asked.append(candidate.ranker.asked)
    assert len(asked[0]) == 10
    assert asked[0] == asked[1] != asked[2]


def naive(store, candidate, base):
    """The same, one user after the other, in plain Python."""
    behaviour, names = store.behaviour(), store.item_names()
    rows = {key: candidate.catalogue.row_of.get(name, 0) for key, name in names.items()}
    per_user = defaultdict(list)
    first = {}
    for user, item, time in zip(behaviour.user, behaviour.item, behaviour.time_ms, strict=True):
        per_user[int(user)].append((int(time), int(item)))
        first[int(item)] = min(int(time), first.get(int(item), int(time)))
    newest = int(behaviour.time_ms.max())
    counts = sorted(enumerate(candidate.popularity[1:].tolist(), start=1), key=lambda pair: -pair[1])
    head, bought = set(), 0.0
    for row, count in counts:
        if bought >= 0.8 * sum(count for _, count in counts):
            break
        head.add(row)
        bought += count
    sums = {name: [0.0] * 5 for name in EVALUATED}
    for events in per_user.values():
        listed = [time for time, item in events if rows[item]]
        if not listed:
            continue
        past = [(time, item) for time, item in events if time < listed[-1]]
        basket = {item for time, item in events if time == listed[-1] and rows[item]}
        history = [rows[item] for _, item in past if rows[item]]
        if not history:
            continue
        parts = {
            "all": basket,
            "new_users": basket if len(past) <= 5 else set(),
            "new_items": {item for item in basket if first[item] > newest - 28 * DAY_MS},
            "tail": {item for item in basket if rows[item] not in head},
        }
        for name, targets in parts.items():
            if not targets:
                continue
            sums[name][0] += 1
            for place, ranker in ((1, candidate.ranker), (3, base.ranker)):
                top = ranker.rank(np.array(history), k=10).rows.tolist()
                hits = [1 / math.log2(rank + 1) for rank, row in enumerate(top, 1) if row in {rows[t] for t in targets}]
                ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(targets), 10) + 1))
                sums[name][place] += sum(hits) / ideal
                sums[name][place + 1] += len(hits) / min(len(targets), 10)
    return sums


@pytest.mark.parametrize("seed", range(5))
def test_it_counts_as_a_slow_and_plain_way_does(store, seed) -> None:
    rng = np.random.default_rng(seed)
    events = [
        Event(
            event_id=f"{number}",
            type=EventType.VIEW if rng.random() < 0.3 else EventType.PURCHASE,
            user=f"u{rng.integers(25)}",
            item=f"i{46 - rng.integers(1, 46 - day // 2)}",  # 41 to 45 are private; the first ones are new
            time_ms=int(NOW_MS - day * DAY_MS),
        )
        for number, day in enumerate(rng.integers(60, size=300).tolist())
    ]
    store.add_events(events)
    popularity = rng.integers(1, 1000, len(NAMES)).tolist()
    candidate, base = release(NAMES, popularity=popularity), release(NAMES, ranker=NextDoor(40, step=3))
    found = evaluate(store, candidate, base, draw=1)
    expected = naive(store, candidate, base)
    for name in EVALUATED:
        assert found[name] == pytest.approx(expected[name], abs=1e-3), name
        assert found[name][0] > 0


def test_two_releases_are_compared_on_the_same_baskets_of_those_who_came_last(store, had) -> None:
    had("ada", 9, "i1")
    had("ada", 8, "i2")
    had("bob", 3, "i1")
    had("bob", 1, "i4")
    new, old = release(NAMES), release(NAMES, ranker=NextDoor(40, step=3))
    only_bob = compare(store, new, old, most=1)
    assert only_bob.events == 1
    assert only_bob.ndcg_new == pytest.approx(1 / math.log2(4), abs=1e-5)
    assert only_bob.ndcg_old == pytest.approx(1.0)
    assert only_bob.spread == 0.0
    both = compare(store, new, old)
    assert (both.events, both.ndcg_new) == (2, pytest.approx((1 + 1 / math.log2(4)) / 2, abs=1e-5))
    gained = [1.0, 1 / math.log2(4) - 1]  # NextDoor by three never finds ada's i2
    assert both.spread == pytest.approx(np.std(gained) / math.sqrt(2), abs=1e-5)


def test_with_nothing_to_compare_on_there_are_no_events(store) -> None:
    assert compare(store, release(NAMES), release(NAMES)) == Comparison(
        events=0, ndcg_new=0.0, ndcg_old=0.0, spread=0.0
    )


def test_it_never_pulls_torch_into_the_serving_process() -> None:
    code = f"import sys, {evaluating.__name__}; sys.exit('torch' in sys.modules or 'flwr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
