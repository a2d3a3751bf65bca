"""Conditions that a shop writes down: ``price < 20 and brand in ["acme", "own"] and not vegan == True``.

The grammar is Python's own, read by the standard library's `ast`; what may stand in a condition is a short list of its
nodes, and nothing is ever executed (docs/decisions/0017). What is not known of an item is None. An item of which a
comparison makes no sense (a text with a number, None with anything but ``==``) does not fulfil it.
"""

import ast
import math
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import Any, Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from edge.serving.facts import Coded, Fact, Facts, Numbers
from protocol.errors import BadInputError

LONGEST: Final = 1_000
"""Characters of a condition, at most."""
_DEEPEST = 32
_LARGEST = 2**53  # whole numbers from here on are no longer exact
_NUMBERS, _TEXTS = frozenset({"price", "stock"}), frozenset({"category", "brand"})
_KEPT = 256
_ADVICE: Final = (
    'compare names with values, as in: price < 20 and brand in ["acme", "own"] and not vegan == True; '
    "see the documentation of filters"
)

_Mask: TypeAlias = NDArray[np.bool_]
_SWAPPED: Final = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}
_PLAIN: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.Is: operator.eq,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, within: value in within,
}
_OPPOSITE: Final = {ast.NotEq: ast.Eq, ast.IsNot: ast.Is, ast.NotIn: ast.In}


@dataclass(frozen=True, slots=True)
class Expression:
    """A condition that may be asked of items.

    Attributes:
        names: what it asks about.
    """

    text: str
    names: frozenset[str] = field(compare=False)
    tree: ast.expr = field(compare=False, repr=False)

    def where(self, facts: Facts) -> _Mask:
        """bool[size], the places of which it is true; a name that means nothing is None everywhere."""
        return _truth(self.tree, facts)


@lru_cache(maxsize=_KEPT)
def parse(text: str) -> Expression:
    """Read a condition.

    Raises:
        BadInputError: it is too long or too deep, it is no condition, or it holds what a condition must not.
    """
    if len(text) > LONGEST:
        raise BadInputError(f"the condition has {len(text)} characters, at most {LONGEST} are allowed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an invalid escape would be printed, and taken as it is
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = error.msg if isinstance(error, SyntaxError) else "it cannot be read"
        raise BadInputError(f"the condition is wrong: {why}", advice=_ADVICE) from error
    _check(tree, depth=1)
    names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return Expression(text=text, names=names, tree=tree)


def _check(node: ast.expr, *, depth: int) -> None:
    """Only what is listed here may stand where something is true or false."""
    if depth > _DEEPEST:
        raise BadInputError(f"the condition is nested more than {_DEEPEST} deep")
    match node:
        case ast.BoolOp(values=parts):
            for part in parts:
                _check(part, depth=depth + 1)
        case ast.UnaryOp(op=ast.Not(), operand=part):
            _check(part, depth=depth + 1)
        case ast.Compare():
            _check_comparison(node)
        case ast.Name() | ast.Constant(value=True | False):
            pass
        case ast.Constant():
            raise BadInputError(f"{ast.unparse(node)[:40]} stands alone in the condition", advice=_ADVICE)
        case _:
            raise _refused(node)


def _check_comparison(node: ast.Compare) -> None:
    sides = [node.left, *node.comparators]
    for side in sides:
        _check_operand(side)
    for left, how, right in zip(sides, node.ops, sides[1:], strict=False):
        if isinstance(how, ast.Is | ast.IsNot) and not _is_none(right):
            raise BadInputError("is and is not take None only", advice="use == and !=")
        if isinstance(how, ast.In | ast.NotIn) and isinstance(right, ast.Constant) and not isinstance(right.value, str):
            raise BadInputError(f"in takes a list, not {ast.unparse(right)[:40]}", advice=_ADVICE)
        for name, other in ((left, right), (right, left)):
            if isinstance(name, ast.Name):
                _check_kind(name.id, other)


def _check_operand(node: ast.expr) -> None:
    match node:
        case ast.Name() | ast.Constant(value=str() | None | True | False):
            pass
        case (
            ast.Constant(value=int() | float() as number)
            | ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=int() | float() as number))
        ) if not isinstance(number, bool):
            if not (-_LARGEST <= number <= _LARGEST if isinstance(number, int) else math.isfinite(number)):
                raise BadInputError("a number in the condition is too large")
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            for part in parts:
                if isinstance(part, ast.List | ast.Tuple | ast.Name):
                    raise BadInputError("a list in the condition may hold texts and numbers only")
                _check_operand(part)
        case _:
            raise _refused(node)


def _check_kind(name: str, other: ast.expr) -> None:
    """A price compared with a text would always be false, and nobody would know why."""
    values = [part.value for part in ast.walk(other) if isinstance(part, ast.Constant) and part.value is not None]
    if name in _NUMBERS and any(isinstance(value, str) for value in values):
        raise BadInputError(f"{name} is a number in the condition", advice="write it without quotes")
    if name in _TEXTS and any(not isinstance(value, str) for value in values):
        raise BadInputError(f"{name} is a text in the condition", advice="write it in quotes")


def _refused(node: ast.expr) -> BadInputError:
    return BadInputError(f"{type(node).__name__} may not stand in a condition", advice=_ADVICE)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _truth(node: ast.expr, facts: Facts) -> _Mask:
    match node:
        case ast.BoolOp(op=how, values=parts):
            join = np.logical_and if isinstance(how, ast.And) else np.logical_or
            return reduce(join, (_truth(part, facts) for part in parts))
        case ast.UnaryOp(operand=part):
            return ~_truth(part, facts)
        case ast.Compare(left=left, ops=hows, comparators=rest):
            sides = [_operand(side, facts) for side in (left, *rest)]
            pairs = zip(sides, hows, sides[1:], strict=False)
            return reduce(np.logical_and, (_compared(*pair, facts.size) for pair in pairs))
        case ast.Name(id=name):
            return _filled(facts.fact(name), facts.size)
        case ast.Constant(value=value):
            return np.full(facts.size, bool(value))
    raise _refused(node)  # not reached: `_check` has let only these through


def _filled(column: Fact | None, size: int) -> _Mask:
    """Where a column has something to say: not None, not 0, not empty."""
    match column:
        case Numbers(values=values):
            return cast("_Mask", ~np.isnan(values) & (values != 0))
        case Coded():
            return column.where(bool)
        case None:
            return np.zeros(size, np.bool_)


@dataclass(frozen=True, slots=True)
class _Value:
    """Something that stands in the condition itself."""

    value: Any


def _operand(node: ast.expr, facts: Facts) -> Fact | _Value:
    if isinstance(node, ast.Name):
        return facts.fact(node.id) or _Value(None)
    return _Value(ast.literal_eval(node))


def _compared(left: Fact | _Value, how: ast.cmpop, right: Fact | _Value, size: int) -> _Mask:
    kind = type(how)
    if kind in _OPPOSITE:
        return ~_holds(left, _OPPOSITE[kind], right, size)
    return _holds(left, kind, right, size)


def _holds(left: Fact | _Value, how: type[ast.cmpop], right: Fact | _Value, size: int) -> _Mask:
    match left, right:
        case _Value(a), _Value(b):
            return np.full(size, _plainly(how, a, b))
        case Numbers(values=values), _Value(b):
            return _of_numbers(values, how, b)
        case Coded() as column, _Value(b):
            return column.where(lambda value: _plainly(how, value, b))
        case _Value(a), Numbers(values=values):
            return np.zeros(size, np.bool_) if how is ast.In else _of_numbers(values, _SWAPPED.get(how, how), a)
        case _Value(a), Coded() as column:
            return column.where(lambda value: _plainly(how, a, value))
        case _:
            return _of_pairs(cast("Fact", left), how, cast("Fact", right))


def _plainly(how: type[ast.cmpop], left: Any, right: Any) -> bool:
    try:
        return bool(_PLAIN[how](left, right))
    except TypeError:
        return False


def _of_numbers(values: NDArray[np.floating[Any]], how: type[ast.cmpop], other: Any) -> _Mask:
    """As Python compares numbers; not a number is None."""
    if how is ast.In:
        found = np.zeros(len(values), np.bool_)
        for one in other if isinstance(other, list | tuple) else ():
            found |= _of_numbers(values, ast.Eq, one)
        return found
    if other is None:
        return np.isnan(values) if how in {ast.Eq, ast.Is} else np.zeros(len(values), np.bool_)
    if not isinstance(other, int | float):
        return np.zeros(len(values), np.bool_)
    with np.errstate(over="ignore"):
        return cast("_Mask", _PLAIN[how](values, values.dtype.type(other)))


def _of_pairs(left: Fact, how: type[ast.cmpop], right: Fact) -> _Mask:
    """One column with another: each pair of values that occurs is looked at once."""
    if isinstance(left, Numbers) and isinstance(right, Numbers) and how is not ast.In:
        both_unknown = np.isnan(left.values) & np.isnan(right.values) if how is ast.Eq else False
        return cast("_Mask", _PLAIN[how](left.values, right.values) | both_unknown)
    first, second = _coded(left), _coded(right)
    pairs, which = np.unique(first.codes.astype(np.int64) * len(second.values) + second.codes, return_inverse=True)
    rows, columns = np.divmod(pairs, len(second.values))
    holds = [_plainly(how, first.values[a], second.values[b]) for a, b in zip(rows, columns, strict=True)]
    return np.array(holds, np.bool_)[which]


def _coded(column: Fact) -> Coded:
    if isinstance(column, Coded):
        return column
    numbers, codes = np.unique(column.values, return_inverse=True)  # nan is the last, if there is one
    return Coded(codes=codes.astype(np.int32), values=tuple(None if math.isnan(n) else n for n in numbers.tolist()))
