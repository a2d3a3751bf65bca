"""Habits worked out in few steps are those of the formulas written out one by one."""

import numpy as np
import pytest

from edge.records.store import Past
from edge.serving.personal import HABITS, habits

DAY_MS = 86_400_000
FLOOR = 1e-3


def by_the_formulas(past):
    """Every habit of every item by a loop over its events, in float64: slow, and plain to read."""
    bought = sorted(set(past.time_ms[past.purchased].tolist()))
    total = len(bought)
    looked = past.item[~past.purchased]
    ages = {time: (total - 1 - number, (bought[-1] - time) / DAY_MS) for number, time in enumerate(bought)}
    found = {}
    for place in sorted(set(past.item.tolist())):
        line = dict.fromkeys(HABITS, 0.0)
        mine = sorted({time for time, item, paid in zip(past.time_ms, past.item, past.purchased, strict=True)
                       if paid and item == place})  # fmt: skip
        if mine:
            first, last, count = ages[mine[0]], ages[mine[-1]], len(mine)

            def recent(which, half_life, mine=mine):
                weight = {time: 2 ** (-age[which] / half_life) for time, age in ages.items()}
                return np.log(FLOOR + sum(weight[time] for time in mine) / sum(weight.values()))

            def due(which, slack, more, first=first, last=last, count=count):
                usual = (first[which] - last[which]) / max(count - 1, 1)
                return (count > 1) * np.exp(-abs(np.log((last[which] + more) / (usual + slack))))

            line |= {
                "again": 1,
                "baskets": np.log1p(count),
                "share": np.log(count / total),
                "share_since_first": np.log(count / (first[0] + 1)),
                "recent_3_baskets": recent(0, 3),
                "recent_10_baskets": recent(0, 10),
                "recent_14_days": recent(1, 14),
                "recent_60_days": recent(1, 60),
                "idle_baskets": np.log1p(last[0]),
                "idle_days": np.log1p(last[1]),
                "in_last_basket": last[0] == 0,
                "due_by_baskets": due(0, 0.5, 1),
                "due_by_days": due(1, 1, 1),
                "twice": count > 1,
                "thrice": count > 2,
                "share_idle": np.log(count / total) * np.log1p(last[0]),
                "experience": np.log1p(total),
            }
        heard = [2 ** (-(len(looked) - 1 - at) / 10) for at, item in enumerate(looked) if item == place]
        line["attention"] = np.log1p(sum(heard))
        found[place] = [float(line[name]) for name in HABITS]
    return found


@pytest.mark.parametrize("paid", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("step_ms", [1, 3_600_000, 40 * DAY_MS])
def test_every_habit_is_the_formula_s(rng, paid, step_ms):
    for length in (1, 2, 7, 60):
        past = Past(
            item=rng.integers(1, 12, length),
            time_ms=np.sort(rng.integers(0, 20, length)) * step_ms + 1_700_000_000_000,
            purchased=rng.random(length) < paid,
        )
        found, expected = habits(past), by_the_formulas(past)
        assert found.places.tolist() == list(expected)
        assert found.features == pytest.approx(np.array(list(expected.values())), abs=2e-5)


def test_a_past_of_years_is_counted_to_the_day(rng):
    past = Past(
        item=rng.integers(1, 40, 2_000),
        time_ms=1_400_000_000_000 + np.sort(rng.integers(0, 4_000, 2_000)) * DAY_MS,
        purchased=rng.random(2_000) < 0.7,
    )
    expected = np.array(list(by_the_formulas(past).values()))
    assert habits(past).features == pytest.approx(expected, abs=2e-4)
