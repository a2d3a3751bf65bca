"""What a scenario or a campaign names, so that a misspelt name is told to whoever sets it.

It is told, not refused: the items may come after the scenario.
"""

from dataclasses import dataclass
from typing import Self

from edge.arranging.promotion import Promotion
from edge.arranging.scenario import Scenario
from edge.serving.facts import BUILT_IN
from edge.serving.filters import Filter
from edge.serving.shelf import Shelf


@dataclass(frozen=True, slots=True)
class Names:
    """Names by what they stand for; what every shop's items have is not among them."""

    items: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()

    def __or__(self, other: Self) -> "Names":
        return Names(self.items | other.items, self.attributes | other.attributes)


def scenario_names(scenario: Scenario) -> Names:
    """All names in a scenario."""
    found = _of(scenario.filter) | Names(attributes=frozenset(scenario.diversity.caps) - BUILT_IN)
    for boost in scenario.boosts:
        by = {each.attribute for each in (boost.by, boost.fresh) if each is not None}
        found |= _of(boost.filter) | Names(attributes=frozenset(by) - BUILT_IN)
    for rule in scenario.rules:
        found |= _of(rule.filter) | Names(items=frozenset(rule.items))
    return found


def promotion_names(promotion: Promotion) -> Names:
    """All names in a campaign."""
    return _of(promotion.filter) | Names(items=frozenset(promotion.items))


def unknown_names(names: Names, shelf: Shelf) -> list[str]:
    """Those that mean nothing here now, items first."""
    items = [item for item in sorted(names.items) if shelf.place(item) is None]
    return [*items, *sorted(names.attributes - shelf.attributes())]


def _of(wanted: Filter | None) -> Names:
    if wanted is None:
        return Names()
    return Names(items=frozenset(wanted.items or ()), attributes=frozenset(wanted.names()))
