"""What an item must be, to be in an answer: a filter -> a mask over places."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.serving.shelf import Shelf


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """All of these must hold.

    Attributes:
        categories: one of these; None: any.
    """

    categories: Sequence[str] | None = None


ANYTHING: Final = Filter()


def allowed(shelf: Shelf, wanted: Filter, exclude: Iterable[str] = ()) -> NDArray[np.bool_]:
    """bool[size], what may be named: offered here, as the filter wants it, not excluded. The caller may change it."""
    return shelf.allowed(wanted.categories, exclude)
