"""The items that fit a question, best first: those with every word of it, then those with most.

The common case is one look at the index. Only where it gives fewer items than were asked for is more tried, in this
order: the last word may be unfinished; words may be misspelt; some words may be left out.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from tantivy import Occur, Order, Query

from edge.search.index import Reader
from edge.search.question import completed, corrected, slots_of
from edge.search.slots import Clause, Slot, all_of, as_query, exactly, most_of
from edge.search.synonyms import NO_SYNONYMS, Synonyms

_NOT_MANY = 100
_COMMON = 0.05  # of all items: a word that more of them hold makes nobody fit by itself


class By(NamedTuple):
    """An order other than relevance: a field of the index."""

    field: str
    order: Order


class Matches(NamedTuple):
    """What fits a question.

    Attributes:
        keys: of items, best first; no more than were asked for.
        scores: by key; what they mean depends on the order.
        hits: how many fit, all told; items behind so many lack some of the words.
        query: what all of them, and nothing else, fulfil; None: nothing fits.
        corrected: the question as it was probably meant; None: as it was typed.
    """

    keys: list[int]
    scores: list[float]
    hits: int
    query: Query | None
    corrected: str | None = None
    slots: Sequence[Slot] = ()

    def stems(self) -> frozenset[str]:
        """What in a title was looked for."""
        return frozenset(stem for slot in self.slots for way in slot.ways for stem in way.stems)


NOTHING = Matches(keys=[], scores=[], hits=0, query=None)


class _Asked(NamedTuple):
    """What stays the same from one look to the next."""

    reader: Reader
    most: int
    by: By | None


def match(
    text: str,
    reader: Reader,
    *,
    most: int,
    clauses: Sequence[Clause] = (),
    synonyms: Synonyms = NO_SYNONYMS,
    by: By | None = None,
) -> Matches:
    """Find items.

    Args:
        most: so many keys are wanted.
        clauses: what else must be true of them.
        by: an order other than relevance: then nothing is filled up with items that lack a word.
    """
    slots = slots_of(text, reader, synonyms)
    if not slots:
        return NOTHING
    asked = _Asked(reader, most, by)
    lifted = (*clauses, (Occur.Should, exactly(" ".join([slot.typed for slot in slots]))))
    unfinished, meant = not text[-1].isspace(), None
    if unfinished and not _holders(slots[-1], reader):
        slots, unfinished = completed(slots, reader), False
    queries = [as_query(slot) for slot in slots]
    found = _look(all_of(queries, lifted), asked)
    if not found.hits and unfinished:
        slots = completed(slots, reader)
        queries[-1] = as_query(slots[-1])
        found = _look(all_of(queries, lifted), asked)
    if not found.hits:
        slots, meant = corrected(slots, reader)
        queries = [as_query(slot) for slot in slots]
        found = _look(all_of(queries, lifted), asked)
    if found.hits < most and len(slots) > 1 and (by is None or not found.hits):
        found = _filled_up(found, slots, queries, clauses, asked)
    return Matches(found.keys, found.scores, found.hits, found.query, meant if found.hits else None, slots)


def matching_keys(matches: Matches, reader: Reader, *, most: int) -> list[int]:
    """The keys of all items that fit, in any order."""
    if matches.query is None:
        return []
    found = reader.searcher.search(matches.query, most, count=False, order_by_field="key")
    return [key for key, _ in found.hits]


def _holders(slot: Slot, reader: Reader) -> int:
    """How many items hold the word that was typed, about."""
    stem = slot.ways[0].stems[0]
    return reader.searcher.doc_freq("title", stem) or reader.searcher.doc_freq("about", stem)


def _look(query: Query, asked: _Asked, *, count: bool = True) -> Matches:
    if asked.by is None:
        found: Any = asked.reader.searcher.search(query, asked.most, count=count)
    else:
        found = asked.reader.searcher.search(query, asked.most, order_by_field=asked.by.field, order=asked.by.order)
    hits = found.hits
    keys = asked.reader.keys([address for _, address in hits]) if hits else []
    return Matches(keys, [score for score, _ in hits], found.count if count else 0, query)


def _filled_up(
    found: Matches, slots: Sequence[Slot], queries: Sequence[Query], clauses: Sequence[Clause], asked: _Asked
) -> Matches:
    """Then come items that lack some of the words, or only they, if there are no others."""
    many = max(_COMMON * asked.reader.items, _NOT_MANY)
    holders = [_holders(slot, asked.reader) for slot in slots]
    rare = [query for query, count in zip(queries, holders, strict=True) if count <= many]
    common = [query for query, count in zip(queries, holders, strict=True) if count > many] if rare else []
    query = most_of(rare or queries, common, clauses)
    if not found.hits:
        found = _look(query, asked)
        return found if found.hits or not common else _look(most_of(queries, (), clauses), asked)
    wider = _look(query, asked, count=False)
    first, room = set(found.keys), asked.most - len(found.keys)
    rest = [at for at, key in enumerate(wider.keys) if key not in first][:room]
    keys, scores = wider.keys, wider.scores
    return Matches(
        found.keys + [keys[at] for at in rest], found.scores + [scores[at] for at in rest], found.hits, found.query
    )
