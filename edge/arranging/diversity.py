"""Answers whose items are not all alike: maximal marginal relevance, and caps on what may come how often.

Source:
    Carbonell and Goldstein, The use of MMR, diversity-based reranking, SIGIR 1998.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge.serving.facts import Coded, ShelfFacts
from edge.serving.shelf import Shelf

Vectors: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Places, int64[n] -> float32[n, d], their vectors; zeros where none is known."""
Likeness: TypeAlias = Callable[[int], NDArray[np.float32]]
"""The number of a candidate -> float32[m], how alike each of the m is to it."""
POOL = 100
"""So many of the best candidates are compared with each other."""
_SAME_CATEGORY, _SAME_BRAND = 0.6, 0.4  # likeness of items of which a vector is not known
_LAST = 4.0  # more than likeness and relevance can ever differ by
_TINY = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cap:
    """At most so many of one kind.

    Attributes:
        kinds: int[n], the kind of each candidate; 0: not known, which is no kind.
    """

    kinds: NDArray[np.integer]
    most: int


def caps_of(caps: Mapping[str, int], places: NDArray[np.int64], shelf: Shelf) -> list[Cap]:
    """The caps of a scenario for these candidates; names that mean nothing here cap nothing."""
    facts = ShelfFacts(shelf)
    found = []
    for name, most in caps.items():
        match facts.fact(name):
            case None:
                continue
            case Coded(codes=codes):
                kinds = codes[places]
            case numbers:
                values = numbers.values[places]
                kinds = np.unique(values, return_inverse=True)[1] + 1
                kinds[np.isnan(values)] = 0
        found.append(Cap(kinds=kinds, most=most))
    return found


def likeness(places: NDArray[np.int64], shelf: Shelf, vectors: Vectors | None) -> Likeness:
    """From 0 to 1: cosines, at least 0; where vectors are missing, whether category and brand are one."""
    category, brand = shelf.category[places], shelf.brand[places]

    def kinship(one: int) -> NDArray[np.float32]:
        alike = _SAME_CATEGORY * _same(category, one) + _SAME_BRAND * _same(brand, one)
        return alike.astype(np.float32)

    if vectors is None:
        return kinship
    rows = vectors(places)
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    rows = rows / np.maximum(length, _TINY)[:, None]
    known = length > _TINY
    if known.all():
        return lambda one: np.maximum(rows @ rows[one], 0)
    return lambda one: np.where(known & known[one], np.maximum(rows @ rows[one], 0), kinship(one))


def _same(codes: NDArray[np.int32], one: int) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (codes == codes[one]) & (codes > 0)
    return same


def capped(order: Sequence[int], count: int, caps: Sequence[Cap], chosen: Sequence[int] = ()) -> list[int]:
    """The first `count` of this order that caps allow.

    Args:
        order: candidates, best first.
        chosen: candidates that are in the answer anyhow; they count.
    """
    shown = [np.bincount(cap.kinds[list(chosen)], minlength=int(cap.kinds.max(initial=0)) + 1).tolist() for cap in caps]
    kinds = [cap.kinds.tolist() for cap in caps]
    taken: list[int] = []
    for candidate in order:
        if len(taken) >= count:
            break
        mine = [kind[candidate] for kind in kinds]
        if all(not one or each[one] < cap.most for one, each, cap in zip(mine, shown, caps, strict=True)):
            taken.append(candidate)
            for one, each in zip(mine, shown, strict=True):
                each[one] += 1
    return taken


def diverse(
    scores: NDArray[np.float32],
    alike: Likeness,
    count: int,
    *,
    relevance: float,
    last: NDArray[np.bool_],
    caps: Sequence[Cap] = (),
    chosen: Sequence[int] = (),
) -> list[int]:
    """Pick one by one what scores high and is unlike what was picked: lambda * score - (1 - lambda) * likeness.

    Args:
        scores: float32[n], brought to 0 to 1 within these candidates.
        alike: of the candidates, and after them of what else is chosen.
        relevance: lambda.
        last: bool[n], what comes after all others.
        chosen: numbers after the candidates', of what is in the answer anyhow; nothing should resemble it either.
    """
    low, high = float(scores.min(initial=np.inf)), float(scores.max(initial=-np.inf))
    width = len(scores) + len(chosen)
    worth = np.full(width, -np.inf, np.float32)  # of what is taken, or may not be
    worth[: len(scores)] = relevance * (scores - low) / max(high - low, _TINY) - _LAST * last
    nearest = np.zeros(width, np.float32)
    shown = [np.zeros(int(cap.kinds.max(initial=0)) + 1, np.int64) for cap in caps]

    def take(one: int) -> None:
        worth[one] = -np.inf
        np.maximum(nearest, (1 - relevance) * alike(one), out=nearest)
        for cap, each in zip(caps, shown, strict=True):
            if kind := int(cap.kinds[one]):
                each[kind] += 1
                if each[kind] >= cap.most:
                    worth[cap.kinds == kind] = -np.inf

    for one in chosen:
        take(one)
    taken: list[int] = []
    while len(taken) < min(count, len(scores)):
        one = int((worth - nearest).argmax())
        if worth[one] == -np.inf:
            break
        taken.append(one)
        take(one)
    return taken
