"""A question as slots to be filled: for each word typed, what may stand in an item in its place."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tantivy import Occur, Query

from edge.search.documents import SCHEMA

_ABOUT = 0.3  # what a word counts in brand, category and attributes, where it counts 1 in a title
_EXACT = 8.0  # added to an item whose title or id is what was typed
Clause = tuple[Occur, Query]


class Way(NamedTuple):
    """One way to fill a slot.

    Attributes:
        stems: all of them must be there.
        weight: what it counts.
    """

    stems: tuple[str, ...]
    weight: float = 1.0


class Slot(NamedTuple):
    """One word of a question, or several that mean something together.

    Attributes:
        typed: folded; with a space between several.
        ways: one of them must be met; the first is what was typed.
    """

    typed: str
    ways: tuple[Way, ...]

    def or_else(self, ways: Iterable[Way]) -> "Slot":
        """The same slot, easier to fill."""
        known = {way.stems for way in self.ways}
        return Slot(self.typed, (*self.ways, *(way for way in ways if way.stems not in known)))


def as_query(slot: Slot) -> Query:
    """Fills a slot; the best way counts, in the field where it counts most."""
    if len(slot.ways) == 1 and len(slot.ways[0].stems) == 1:
        return Query.disjunction_max_query(_stem(slot.ways[0].stems[0], slot.ways[0].weight))
    return Query.disjunction_max_query([part for way in slot.ways for part in _way(way)])


def all_of(slots: Iterable[Query], others: Sequence[Clause] = ()) -> Query:
    """Every slot is filled."""
    return Query.boolean_query([*[(Occur.Must, slot) for slot in slots], *others])


def most_of(slots: Sequence[Query], common: Sequence[Query] = (), others: Sequence[Clause] = ()) -> Query:
    """At least half of the slots are filled, rounded down, one at least.

    Args:
        common: slots that very many items fill: they count, but alone they make nobody fit. So an item that holds
            nothing else is not even looked at.
    """
    either = Query.boolean_query([(Occur.Should, slot) for slot in slots], max(1, len(slots) // 2))
    return Query.boolean_query([(Occur.Must, either), *[(Occur.Should, slot) for slot in common], *others])


def exactly(text: str) -> Query:
    """Lifts the items whose whole title or id this is; `text` is folded."""
    return Query.const_score_query(Query.term_query(SCHEMA, "exact", text), _EXACT)


def _way(way: Way) -> list[Query]:
    if len(way.stems) == 1:
        return _stem(way.stems[0], way.weight)
    share = way.weight / len(way.stems)
    together = [(Occur.Must, Query.disjunction_max_query(_stem(stem, share))) for stem in way.stems]
    return [Query.boolean_query(together)]


def _stem(stem: str, weight: float) -> list[Query]:
    title, about = Query.term_query(SCHEMA, "title", stem), Query.term_query(SCHEMA, "about", stem)
    return [title if weight == 1.0 else Query.boost_query(title, weight), Query.boost_query(about, weight * _ABOUT)]
