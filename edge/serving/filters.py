"""What an item must be, to be in an answer: a filter -> a mask over places."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from threading import Lock
from typing import Annotated, Any, ClassVar, Final, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, Field

from edge.records.events import LONGEST_NAME, LONGEST_TEXT
from edge.serving.expressions import LONGEST, parse
from edge.serving.facts import BUILT_IN, Fact, Numbers, ShelfFacts
from edge.serving.numbering import Numbering
from edge.serving.shelf import Shelf
from protocol.errors import BadInputError

MOST_NAMES: Final = 1_000
_MOST_ATTRIBUTES = 20
_KEPT_BYTES = 16 << 20
_TOLD = 20  # names that an error lists

STRICT: Final = ConfigDict(extra="forbid", allow_inf_nan=False)
"""A misspelt field is an error, and so is a number that is none."""


def _readable(text: str) -> str:
    try:
        parse(text)
    except BadInputError as error:
        raise ValueError(error.line()) from error
    return text


Condition = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST, examples=['price < 20 and brand in ["acme", "own"] and not vegan == True']),
    AfterValidator(_readable),
]
"""An expression over the names that an item has: see `edge.serving.expressions`."""
_Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
_Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]
_Scalar: TypeAlias = bool | _Whole | float | _Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A number from here to there, both included; None: open."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    min: float | None = None
    max: float | None = None


_Wanted: TypeAlias = _Scalar | tuple[_Scalar, ...] | Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What an item must be, to be in the answer. All of these must hold; an item of which it is not known is not."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    category: Annotated[Sequence[_Text] | None, Field(max_length=MOST_NAMES, description="One of these.")] = None
    brand: Annotated[Sequence[_Text] | None, Field(max_length=MOST_NAMES, description="One of these.")] = None
    price: Annotated[Range | None, Field(description="At least `min`, at most `max`.")] = None
    in_stock: Annotated[bool, Field(description="Some are left, or they are not counted.")] = False
    attributes: Annotated[
        Mapping[Annotated[str, Field(max_length=LONGEST_NAME)], _Wanted],
        Field(max_length=_MOST_ATTRIBUTES, description="By name: a value, one of several values, or a range."),
    ] = field(default_factory=dict)
    where: Annotated[Condition | None, Field(description="An expression over category, brand, price, stock, ...")] = (
        None
    )
    items: Annotated[
        Sequence[Annotated[str, Field(max_length=LONGEST_NAME)]] | None,
        Field(max_length=MOST_NAMES, description="One of these items: ranks a list of your own."),
    ] = None

    def names(self) -> set[str]:
        """Attributes that it asks for, beside what every shop has."""
        asked = parse(self.where).names if self.where is not None else ()
        return {*self.attributes, *asked} - BUILT_IN


ANYTHING: Final = Filter()


def passing(shelf: Shelf, wanted: Filter = ANYTHING, *, strictly: bool = True) -> NDArray[np.bool_]:
    """bool[size], what is offered here and as the filter wants it; leave it as it is.

    Args:
        strictly: refuse names that mean nothing here; else they are not known of any item. What an operator wrote
            down long ago must not make today's answers fail.

    Raises:
        BadInputError: the filter asks for something that no item of this shop has a name for.
    """
    if wanted == ANYTHING:
        return shelf.offered
    return _MASKS.setdefault(shelf.numbering, _Masks()).of(shelf, wanted, strictly=strictly, offered=True)


def allowed(shelf: Shelf, wanted: Filter = ANYTHING, exclude: Iterable[str] = ()) -> NDArray[np.bool_]:
    """bool[size], what may be named: offered here, as the filter wants it, not excluded. The caller may change it.

    Raises:
        BadInputError: as of `passing`.
    """
    mask = passing(shelf, wanted).copy()
    mask[[place for name in exclude if (place := shelf.place(name)) is not None]] = False
    return mask


def matching(shelf: Shelf, wanted: Filter, *, strictly: bool = True) -> NDArray[np.bool_]:
    """bool[size], what is as the filter wants it, offered or not; leave it as it is.

    Raises:
        BadInputError: as of `passing`.
    """
    return _MASKS.setdefault(shelf.numbering, _Masks()).of(shelf, wanted, strictly=strictly, offered=False)


class _Masks:
    """Those of one numbering that were asked for last, none older than its newest item."""

    def __init__(self) -> None:
        self._version = -1
        self._kept: OrderedDict[bytes, NDArray[np.bool_]] = OrderedDict()
        self._turn = Lock()

    def of(self, shelf: Shelf, wanted: Filter, *, strictly: bool, offered: bool) -> NDArray[np.bool_]:
        key = b"%d%d%b" % (strictly, offered, orjson.dumps(wanted))
        with self._turn:
            if self._version != shelf.version:
                self._version = shelf.version
                self._kept.clear()
            mask = self._kept.get(key)
            if mask is None:
                mask = _mask(shelf, wanted, strictly=strictly)
                mask = self._kept[key] = mask & shelf.offered if offered else mask
                while len(self._kept) * mask.nbytes > _KEPT_BYTES:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end(key)
        return mask


_MASKS: Final[WeakKeyDictionary[Numbering, _Masks]] = WeakKeyDictionary()


def forget_masks() -> None:
    """Let go of all masks that are kept; they can be had again."""
    _MASKS.clear()


def _mask(shelf: Shelf, wanted: Filter, *, strictly: bool) -> NDArray[np.bool_]:
    facts = ShelfFacts(shelf)
    condition = parse(wanted.where) if wanted.where is not None else None
    if strictly:
        refuse_unknown(wanted.names(), shelf)
    mask = np.ones(shelf.size, np.bool_)
    if wanted.category is not None:
        mask &= _among(shelf.category, shelf.category_codes(wanted.category), len(shelf.categories))
    if wanted.brand is not None:
        mask &= _among(shelf.brand, shelf.brand_codes(wanted.brand), len(shelf.brands))
    if wanted.price is not None:
        mask &= _within(Numbers(values=shelf.price), wanted.price)
    if wanted.in_stock:
        mask &= shelf.stock > 0
    if wanted.items is not None:
        mask &= _named(shelf, wanted.items)
    for name, value in wanted.attributes.items():
        fact = facts.fact(name)
        mask &= np.zeros(shelf.size, np.bool_) if fact is None else _fits(fact, value)
    return mask & condition.where(facts) if condition else mask


def refuse_unknown(names: set[str], shelf: Shelf) -> None:
    """Say which of these names of attributes mean nothing here, and which do.

    Raises:
        BadInputError: one of them does not.
    """
    unknown = names - shelf.attributes() if names else names
    for name in sorted(unknown):
        known = ShelfFacts(shelf).names()
        near = get_close_matches(name, known, n=1)
        told = ", ".join(sorted(known)[:_TOLD]) + (", ..." if len(known) > _TOLD else "")
        guess = f"; did you mean {near[0]}?" if near else ""
        raise BadInputError(f"no item has a {name[:LONGEST_NAME]}", advice=f"known are {told}{guess}")


def _among(codes: NDArray[np.int32], wanted: Sequence[int], count: int) -> NDArray[np.bool_]:
    found = np.zeros(count, np.bool_)
    found[wanted] = True
    mask: NDArray[np.bool_] = found[codes]
    return mask


def _named(shelf: Shelf, items: Iterable[str]) -> NDArray[np.bool_]:
    mask = np.zeros(shelf.size, np.bool_)
    mask[[place for name in items if (place := shelf.place(name)) is not None]] = True
    return mask


def _within(numbers: Numbers, wanted: Range) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = ~np.isnan(numbers.values)
    with np.errstate(over="ignore"):  # what is too large for 32 bits is infinite
        if wanted.min is not None:
            mask &= numbers.values >= wanted.min
        if wanted.max is not None:
            mask &= numbers.values <= wanted.max
    return mask


def _fits(fact: Fact, wanted: Any) -> NDArray[np.bool_]:
    """An attribute that is the wanted value, or one of them, or a list that holds one."""
    if isinstance(wanted, Range):
        return _within(fact, wanted) if isinstance(fact, Numbers) else fact.where(lambda value: _lies(value, wanted))
    values = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
    if isinstance(fact, Numbers):
        numbers = [value for value in values if isinstance(value, int | float)]
        with np.errstate(over="ignore"):
            mask: NDArray[np.bool_] = np.isin(fact.values, np.array(numbers).astype(fact.values.dtype))
        return mask
    return fact.where(lambda value: any(one in values for one in (value if isinstance(value, list) else [value])))


def _lies(value: Any, wanted: Range) -> bool:
    """Of a column that holds texts beside numbers."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return False
    return (wanted.min is None or number >= wanted.min) and (wanted.max is None or number <= wanted.max)
