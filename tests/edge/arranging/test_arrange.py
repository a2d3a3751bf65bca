"""What stands where: pins, caps, promotions and chance around the best scores, whatever the candidates are."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.arranging.arrange import Candidates, Note, Promoted, arrange
from edge.arranging.exploration import Untried
from edge.arranging.scenario import Boost, Diversity, Exploration, Freshness, Ramp, Rule, Scenario
from edge.records.events import DAY_MS, parse_time
from edge.serving.filters import Filter, Range

NOW_MS = parse_time("2026-11-21")
HOME = Scenario(name="home")
BEST_FIRST = [f"g{number}" for number in range(1, 31) if number % 7]


def candidates(shelf, names=BEST_FIRST, scores=None):
    places = np.array([shelf.place(name) for name in names], np.int64)
    scores = np.arange(len(names), 0, -1) if scores is None else np.array(scores)
    return Candidates(places=places, scores=scores.astype(np.float32), allowed=shelf.offered)


def answer(shelf, scenario=HOME, *, given=None, limit=5, seed=7, **parts):
    options = {"vectors": None, "limit": limit, "rng": np.random.default_rng(seed), "now_ms": NOW_MS, **parts}
    return arrange(given or candidates(shelf), scenario=scenario, shelf=shelf, **options)


def places_of(shelf, *items):
    return np.array([shelf.place(item) for item in items], np.int64)


def names(shelf, arranged):
    return [shelf.name(place) for place in arranged.places.tolist()]


def arranged_names(shelf, scenario=HOME, **parts):
    return names(shelf, answer(shelf, scenario, **parts))


def scenario(**parts):
    return Scenario(name="test", **parts)


def test_without_any_wish_the_best_stand_first(shelf):
    arranged = answer(shelf)
    assert names(shelf, arranged) == ["g1", "g2", "g3", "g4", "g5"]
    assert arranged.scores.tolist() == [26, 25, 24, 23, 22]
    assert not arranged.notes


def test_candidates_may_come_in_any_order(shelf):
    mixed = candidates(shelf, ["g3", "g1", "g2"], [1, 3, 2])
    assert arranged_names(shelf, given=mixed) == ["g1", "g2", "g3"]


def test_a_pinned_item_stands_at_its_position_though_nobody_wants_it(shelf):
    arranged = answer(shelf, scenario(rules=[Rule(do="pin", items=["g30", "g29"], position=2)]))
    assert names(shelf, arranged) == ["g1", "g30", "g29", "g2", "g3"]
    assert arranged.notes == {shelf.place("g30"): Note(pinned=True), shelf.place("g29"): Note(pinned=True)}


def test_a_pinned_item_that_was_no_candidate_has_the_lowest_score(shelf):
    few = candidates(shelf, ["g1", "g2"], [5, 2])
    arranged = answer(shelf, scenario(rules=[Rule(do="pin", items=["g30"])]), given=few)
    assert names(shelf, arranged) == ["g30", "g1", "g2"]
    assert arranged.scores.tolist() == [2, 5, 2]


def test_what_is_sold_out_is_not_pinned(shelf):
    assert arranged_names(shelf, scenario(rules=[Rule(do="pin", items=["g7", "g30"])]), limit=2) == ["g30", "g1"]


def test_what_is_excluded_is_not_pinned(shelf):
    rules = [Rule(do="exclude", filter=Filter(brand=["b2"])), Rule(do="pin", items=["g30", "g29"])]
    assert arranged_names(shelf, scenario(rules=rules), limit=3) == ["g29", "g1", "g3"]


def test_of_two_pins_to_one_position_the_later_moves_down(shelf):
    rules = [Rule(do="pin", items=["g20"], position=1), Rule(do="pin", items=["g22"], position=1)]
    assert arranged_names(shelf, scenario(rules=rules), limit=3) == ["g20", "g22", "g1"]


def test_a_pin_beyond_a_short_answer_comes_last(shelf):
    pinned = scenario(rules=[Rule(do="pin", items=["g30"], position=9)])
    assert arranged_names(shelf, pinned, given=candidates(shelf, ["g1"]), limit=10) == ["g1", "g30"]
    assert arranged_names(shelf, pinned, limit=5) == ["g1", "g2", "g3", "g4", "g5"]


def test_buried_items_come_after_all_others(shelf):
    buried = scenario(rules=[Rule(do="bury", items=["g1"], filter=Filter(category=["c2"]))])
    few = candidates(shelf, ["g1", "g2", "g3", "g4"])
    assert arranged_names(shelf, buried, given=few) == ["g3", "g4", "g1", "g2"]


def test_a_rule_holds_from_its_start_until_before_its_end(shelf):
    rule = Rule(do="exclude", items=["g1"], start=NOW_MS, end=NOW_MS + DAY_MS)
    for moment, first in [(NOW_MS - 1, "g1"), (NOW_MS, "g2"), (NOW_MS + DAY_MS - 1, "g2"), (NOW_MS + DAY_MS, "g1")]:
        assert arranged_names(shelf, scenario(rules=[rule]), now_ms=moment)[0] == first


def test_a_boost_multiplies_the_odds_of_being_picked(shelf):
    few = candidates(shelf, ["g1", "g2", "g3"], [0.0, -0.1, -3.0])
    doubled = scenario(boosts=[Boost(factor=2, filter=Filter(category=["c2"]))])
    arranged = answer(shelf, doubled, given=few)
    assert names(shelf, arranged) == ["g2", "g1", "g3"]
    assert arranged.scores[0] == pytest.approx(np.log(2) - 0.1)


def test_a_factor_below_one_lowers_also_where_scores_are_negative(shelf):
    few = candidates(shelf, ["g1", "g2"], [-1.0, -1.2])
    assert arranged_names(shelf, scenario(boosts=[Boost(factor=0.5, filter=Filter(items=["g1"]))]), given=few) == [
        "g2",
        "g1",
    ]


def test_votes_are_multiplied(shelf):
    few = candidates(shelf, ["g1", "g2"], [0.03, 0.02])
    boost = Boost(factor=2, filter=Filter(items=["g2"]))
    arranged = answer(shelf, scenario(boosts=[boost], fusion="votes"), given=few)
    assert names(shelf, arranged) == ["g2", "g1"]
    assert arranged.scores.tolist() == pytest.approx([0.04, 0.03])


def test_an_attribute_lifts_by_its_height(shelf):
    few = candidates(shelf, ["g3", "g15", "g30"], [0, 0, 0])
    arranged = answer(
        shelf, scenario(boosts=[Boost(factor=4, by=Ramp(attribute="margin", low=0.1, high=0.9))]), given=few
    )
    assert names(shelf, arranged) == ["g30", "g15", "g3"]
    assert arranged.scores.tolist() == pytest.approx([np.log(4), np.log(2), 0], abs=1e-6)


def test_fresh_items_are_lifted_by_half_after_each_half_life(shelf):
    few = candidates(shelf, ["g19", "g9", "g20"], [0, 0, 0])  # released on the 20th, the 10th, the 1st
    fresh = Boost(factor=2, fresh=Freshness(attribute="released", half_life_days=10))
    arranged = answer(shelf, scenario(boosts=[fresh]), given=few)
    assert names(shelf, arranged) == ["g19", "g9", "g20"]
    assert arranged.scores.tolist() == pytest.approx([np.log(2) * 2 ** (-days / 10) for days in (1, 11, 20)])


def test_a_boost_by_what_nobody_has_changes_nothing(shelf):
    boosts = [
        Boost(factor=9, by=Ramp(attribute="unheard_of", low=0, high=1)),
        Boost(factor=9, by=Ramp(attribute="released", low=0, high=1)),
        Boost(factor=9, fresh=Freshness(attribute="category", half_life_days=1)),
        Boost(factor=9, filter=Filter(where="unheard_of == 1")),
    ]
    assert answer(shelf, scenario(boosts=boosts)).scores.tolist() == [26, 25, 24, 23, 22]


def test_at_most_so_many_of_a_kind(shelf):
    same = candidates(shelf, ["g1", "g6", "g11", "g2", "g16", "g3"])  # g1, g6, g11, g16: one category
    capped = scenario(diversity=Diversity(caps={"category": 2}))
    assert arranged_names(shelf, capped, given=same) == ["g1", "g6", "g2", "g3"]


def test_what_is_pinned_counts_for_a_cap_and_stays(shelf):
    same = candidates(shelf, ["g1", "g2", "g3"])
    rules = [Rule(do="pin", items=["g6", "g11"], position=2)]
    capped = scenario(diversity=Diversity(caps={"category": 1}), rules=rules)
    assert arranged_names(shelf, capped, given=same) == ["g2", "g6", "g11", "g3"]


def test_diversity_puts_the_unlike_before_the_like(shelf):
    def vectors(places):
        return np.array(
            [[0.0, 1.0] if shelf.name(place) == "g4" else [1.0, 0.0] for place in places.tolist()], np.float32
        )

    few = candidates(shelf, ["g1", "g2", "g3", "g4"], [4.0, 3.9, 3.8, 3.0])
    assert arranged_names(shelf, given=few, vectors=vectors) == ["g1", "g2", "g3", "g4"]
    diverse = scenario(diversity=Diversity(relevance=0.5))
    assert arranged_names(shelf, diverse, given=few, vectors=vectors) == ["g1", "g4", "g2", "g3"]


def test_without_vectors_category_and_brand_say_what_is_alike(shelf):
    few = candidates(shelf, ["g2", "g22", "g12", "g1"], [4.0, 3.9, 3.8, 3.0])  # g22: the same in both, g12: in one
    diverse = scenario(diversity=Diversity(relevance=0.3))
    assert arranged_names(shelf, diverse, given=few) == ["g2", "g1", "g12", "g22"]
    nothing = lambda places: np.zeros((len(places), 3), np.float32)  # noqa: E731
    assert arranged_names(shelf, diverse, given=few, vectors=nothing) == ["g2", "g1", "g12", "g22"]


def test_what_is_buried_stays_last_however_diverse_it_is(shelf):
    few = candidates(shelf, ["g2", "g22", "g1"])
    diverse = Diversity(relevance=0.0)
    assert arranged_names(shelf, scenario(diversity=diverse), given=few) == ["g2", "g1", "g22"]
    buried = scenario(diversity=diverse, rules=[Rule(do="bury", items=["g1"])])
    assert arranged_names(shelf, buried, given=few) == ["g2", "g22", "g1"]


def test_a_campaign_shows_its_items_that_score_highest(shelf):
    campaign = Promoted(name="tea week", places=places_of(shelf, "g9", "g3", "g30", "g7"), positions=[2, 4])
    arranged = answer(shelf, promoted=[campaign])
    assert names(shelf, arranged) == ["g1", "g3", "g2", "g9", "g4"]
    assert {note.promotion for note in arranged.notes.values()} == {"tea week"}
    assert arranged.notes.keys() == set(places_of(shelf, "g3", "g9").tolist())


def test_a_pin_stands_before_a_campaign(shelf):
    campaign = Promoted(name="tea week", places=places_of(shelf, "g9"), positions=[1])
    arranged = answer(shelf, scenario(rules=[Rule(do="pin", items=["g20"])]), promoted=[campaign])
    assert names(shelf, arranged)[0] == "g20"
    assert "tea week" not in {note.promotion for note in arranged.notes.values()}


def untried(shelf, *items, impressions=0.0):
    many = np.full(len(items), impressions)
    return Untried(places=places_of(shelf, *items), impressions=many, clicks=np.zeros(len(items)))


def test_an_item_that_nobody_saw_gets_its_position(shelf):
    explores = scenario(exploration=Exploration(positions=(2,), epsilon=1.0))
    arranged = answer(shelf, explores, untried=untried(shelf, "g30"))
    assert names(shelf, arranged) == ["g1", "g30", "g2", "g3", "g4"]
    assert arranged.notes == {shelf.place("g30"): Note(explored=True, propensity=1.0)}


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_explored_twice_in_one_answer(shelf, seed):
    explores = scenario(exploration=Exploration(positions=(1, 2, 3), epsilon=1.0))
    arranged = answer(shelf, explores, untried=untried(shelf, "g29", "g30"), seed=seed)
    assert set(names(shelf, arranged)[:2]) == {"g29", "g30"}
    assert names(shelf, arranged)[2:] == ["g1", "g2", "g3"]


@pytest.mark.parametrize("shown", [100.0, 5000.0])
def test_what_is_known_is_not_explored(shelf, shown):
    explores = scenario(exploration=Exploration(positions=(2,), epsilon=1.0))
    arranged = answer(shelf, explores, untried=untried(shelf, "g30", impressions=shown))
    assert names(shelf, arranged) == ["g1", "g2", "g3", "g4", "g5"]


def test_what_must_not_be_shown_is_not_explored(shelf):
    explores = scenario(
        exploration=Exploration(positions=(1, 2), epsilon=1.0), rules=[Rule(do="exclude", items=["g30"])]
    )
    assert arranged_names(shelf, explores, untried=untried(shelf, "g30", "g14"), limit=2) == ["g1", "g2"]


def test_the_probability_that_is_told_is_how_often_it_happens(shelf):
    explores = scenario(exploration=Exploration(positions=(2, 3), epsilon=0.5))
    unknown = Untried(
        places=places_of(shelf, "g28", "g29", "g30"), impressions=np.array([0.0, 50, 90]), clicks=np.array([0.0, 40, 0])
    )
    told, happened, runs = {}, Counter(), 4000
    rng = np.random.default_rng(3)
    for _ in range(runs):
        arranged = answer(shelf, explores, untried=unknown, rng=rng)
        second = int(arranged.places[1])
        happened[second] += 1
        told[second] = arranged.notes[second].propensity
    assert len(told) == 3  # g28 is sold out: two untried, and the second best
    assert sum(told.values()) == pytest.approx(1)
    for place, propensity in told.items():
        assert happened[place] / runs == pytest.approx(propensity, abs=4 * np.sqrt(0.25 / runs))


RULES = st.lists(
    st.builds(
        Rule,
        do=st.just("pin"),
        items=st.lists(st.integers(1, 31).map("g{}".format), min_size=1, max_size=4),
        position=st.integers(1, 12),
    )
    | st.builds(
        Rule,
        do=st.sampled_from(["bury", "exclude"]),
        items=st.lists(st.integers(1, 31).map("g{}".format), min_size=1, max_size=6),
        filter=st.none() | st.builds(Filter, category=st.lists(st.sampled_from(["c1", "c2"]), max_size=1)),
    ),
    max_size=4,
)
SCENARIOS = st.builds(
    scenario,
    rules=RULES,
    boosts=st.lists(
        st.builds(Boost, factor=st.sampled_from([0.1, 3.0]), filter=st.builds(Filter, price=st.just(Range(max=9)))),
        max_size=2,
    ),
    diversity=st.builds(
        Diversity,
        relevance=st.sampled_from([0.0, 0.5, 1.0]),
        caps=st.dictionaries(st.sampled_from(["category", "brand", "margin"]), st.integers(1, 3), max_size=2),
    ),
    exploration=st.builds(
        Exploration, positions=st.lists(st.integers(1, 12), max_size=3), epsilon=st.sampled_from([0.0, 0.5, 1.0])
    ),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wish=SCENARIOS,
    chosen=st.lists(st.sampled_from(BEST_FIRST), unique=True, max_size=30),
    limit=st.integers(1, 12),
    seed=st.integers(0, 99),
    promoted=st.lists(st.sampled_from(BEST_FIRST), unique=True, max_size=4),
    fresh=st.booleans(),
)
def test_whatever_is_wished_an_answer_keeps_its_promises(shelf, wish, chosen, limit, seed, promoted, fresh):
    campaigns = [Promoted(name="week", places=places_of(shelf, *promoted), positions=[2, 5])] if promoted else []
    given_ = candidates(shelf, chosen, np.random.default_rng(seed).normal(size=len(chosen)))
    unknown = untried(shelf, "g25", "g26", "g28") if fresh else None
    arranged = answer(shelf, wish, given=given_, limit=limit, seed=seed, promoted=campaigns, untried=unknown)
    shown = names(shelf, arranged)
    excluded = set()
    for rule in wish.rules:
        if rule.do == "exclude":
            wanted = set(rule.filter.category) if rule.filter else set()
            excluded |= {*rule.items, *(name for name in BEST_FIRST if f"c{int(name[1:]) % 5}" in wanted)}
    assert len(shown) == len(set(shown)) == len(arranged.scores) <= limit
    assert not excluded & set(shown)
    assert set(shown) <= set(BEST_FIRST)  # nothing that is sold out, nothing unheard of
    assert np.isfinite(arranged.scores).all()
    assert arranged.notes.keys() <= set(arranged.places.tolist())
    _pins_stand(wish, shown, excluded, limit)
    _caps_hold(wish, shelf, shown, arranged)


def _pins_stand(wish, shown, excluded, limit):
    wanted = {}
    for rule in wish.rules:
        position = rule.position - 1
        for name in rule.items if rule.do == "pin" else ():
            if name in BEST_FIRST and name not in excluded and name not in wanted.values():
                while position in wanted:
                    position += 1
                if position < limit:
                    wanted[position] = name
    assert set(wanted.values()) <= set(shown)
    for position, name in wanted.items():
        assert shown.index(name) == position or (shown.index(name) < position and len(shown) < limit)


def _caps_hold(wish, shelf, shown, arranged):
    free = [
        name
        for name in shown
        if (note := arranged.notes.get(shelf.place(name))) is None or note == Note(propensity=note.propensity)
    ]
    for cap, most in wish.diversity.caps.items():
        kind = {"category": lambda n: n % 5, "brand": lambda n: n % 4, "margin": lambda n: n}[cap]
        count = Counter(kind(int(name[1:])) for name in shown)
        for name in free:
            assert count[kind(int(name[1:]))] <= most
