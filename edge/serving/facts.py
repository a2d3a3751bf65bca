"""What is known of a shop's items, as filters and boosts ask for it: one column a name.

A column of numbers is an array. Everything else (texts, flags, lists of tags, a mixture) is coded: each distinct value
once, and its number for every place. So a condition costs one look at each distinct value, not one at each item.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from edge.serving.attributes import Column
from edge.serving.shelf import Shelf

BUILT_IN: Final = frozenset({"category", "brand", "price", "stock"})
"""Names that every shop has; an attribute of the same name is not seen."""
_FLAGS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Numbers:
    """A number for each place.

    Attributes:
        values: float[size]; nan: not known.
    """

    values: NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coded:
    """Any value for each place.

    Attributes:
        codes: int32[size], numbers into `values`.
        values: each distinct value once; the first is None: not known.
    """

    codes: NDArray[np.int32]
    values: Sequence[Any]

    def where(self, holds: Callable[[Any], bool]) -> NDArray[np.bool_]:
        """bool[size], where this holds of the value."""
        return np.array([holds(value) for value in self.values], np.bool_)[self.codes]


Fact: TypeAlias = Numbers | Coded


class Facts(Protocol):
    """What a condition may ask about."""

    @property
    def size(self) -> int:
        """How many places there are."""

    def names(self) -> set[str]:
        """All names that mean something here."""

    def fact(self, name: str) -> Fact | None:
        """What is known by this name; None: nothing of any item."""


class ShelfFacts:
    """Of the items on one shelf."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    @classmethod
    def of(cls, shelf: Shelf) -> Self:
        return cls(shelf)

    @property
    def size(self) -> int:
        return self._shelf.size

    def names(self) -> set[str]:
        return self._shelf.attributes() | BUILT_IN

    def fact(self, name: str) -> Fact | None:
        shelf = self._shelf
        match name:
            case "category":
                return Coded(codes=shelf.category, values=[None, *shelf.categories[1:]])
            case "brand":
                return Coded(codes=shelf.brand, values=[None, *shelf.brands[1:]])
            case "price":
                return Numbers(values=shelf.price)
            case "stock":
                return Numbers(values=shelf.stock)
        column = shelf.column(name)
        return None if column is None else _fact(column)


def _fact(column: Column) -> Fact:
    if column.numbers is not None:
        return Numbers(values=column.numbers)
    return Coded(codes=column.codes, values=[None, *map(_value, column.names[1:])])


def _value(text: str) -> Any:
    """What a shelf's column keeps as text: flags, lists and objects are as JSON wrote them."""
    if text in _FLAGS:
        return _FLAGS[text]
    if text.startswith(("[", "{")):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text
