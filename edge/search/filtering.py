"""A filter as the index understands it, as far as it does: the rest is a mask over places.

What the index can tell it tells while it looks, which costs little; what it cannot is asked of every item found.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from tantivy import FieldType, Occur, Query

from edge.search.documents import SCHEMA, attribute_path
from edge.search.slots import Clause
from edge.serving.filters import ANYTHING, Filter, Range

_MOST_VALUES: Final = 64
_LOWEST, _HIGHEST = -1e308, 1e308


class Wanted(NamedTuple):
    """A filter in two parts.

    Attributes:
        clauses: for the index.
        whole: whether they say all that the filter says.
    """

    clauses: tuple[Clause, ...]
    whole: bool


def in_the_index(wanted: Filter) -> Wanted:
    """Split a filter."""
    if wanted is ANYTHING or wanted == ANYTHING:
        return Wanted((), whole=True)
    queries, rest = list(_queries(wanted)), _rest(wanted)
    clauses = tuple((Occur.Must, Query.const_score_query(query, 0.0)) for query in queries)
    return Wanted(clauses, whole=not rest)


def _queries(wanted: Filter) -> Iterator[Query]:
    for name, values in (("category", wanted.category), ("brand", wanted.brand)):
        if values is not None and len(values) <= _MOST_VALUES:
            yield _any_of(name, values)
    if wanted.price is not None:
        yield Query.range_query(SCHEMA, "price", FieldType.Float, *_bounds(wanted.price))
    for name, value in wanted.attributes.items():
        if _is_texts(value):
            yield _any_of(f"attributes.{attribute_path(name)}", value if isinstance(value, tuple | list) else (value,))


def _rest(wanted: Filter) -> bool:
    """Whether something is left that the index does not know, or would understand in another way."""
    long = any(values is not None and len(values) > _MOST_VALUES for values in (wanted.category, wanted.brand))
    odd = not all(_is_texts(value) for value in wanted.attributes.values())
    # Stock changes too often to be asked of the index, and only what is on offer is in it.
    return long or odd or wanted.where is not None or wanted.items is not None


def _is_texts(value: Any) -> bool:
    values = value if isinstance(value, tuple | list) else (value,)
    return len(values) <= _MOST_VALUES and all(isinstance(one, str) for one in values)


def _any_of(field: str, values: Any) -> Query:
    return Query.boolean_query([(Occur.Should, Query.term_query(SCHEMA, field, value)) for value in values])


def _bounds(price: Range) -> tuple[float, float]:
    return (_LOWEST if price.min is None else float(price.min), _HIGHEST if price.max is None else float(price.max))
