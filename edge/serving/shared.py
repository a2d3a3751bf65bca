"""What the shared catalogue says of items, by row and in the codes of one numbering; row 0 says nothing."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.releases.catalogue import Catalogue
from edge.texts import Index, Labels, Texts, Vocabulary


class Shared:
    """The catalogue's side of a numbering; without a catalogue it has no rows.

    Attributes:
        rows: how many items it has.
        categories, brands: int32[rows + 1], codes; 0: none is given.
        prices: float32[rows + 1]; nan: none is given.
        titled: bool[rows + 1], whether a title is given.
    """

    def __init__(self, catalogue: Catalogue | None, *, categories: Vocabulary, brands: Vocabulary) -> None:
        """Read it.

        Args:
            categories, brands: what the codes mean; new ones are added.
        """
        self._catalogue = catalogue
        self.rows = len(catalogue) if catalogue else 0
        self.categories = _coded(catalogue.categories if catalogue else ("",), categories)
        self.brands = _coded(catalogue.brands if catalogue else ("",), brands)
        self.prices = catalogue.prices if catalogue else np.full(1, np.nan, np.float32)
        titles = catalogue.titles if catalogue else ("",)
        self.titled = ~titles.empty if isinstance(titles, Texts) else np.array([bool(title) for title in titles])

    def row(self, name: str) -> int | None:
        """Where an item stands."""
        return self._catalogue.row_of.get(name) if self._catalogue else None

    def rows_of(self, names: Sequence[str]) -> NDArray[np.int64]:
        """int64[n], where items stand; 0: it lacks them."""
        known = self._catalogue.row_of if self._catalogue else {}
        if isinstance(known, Index):
            return known.find_all(names)
        return np.array([known.get(name, 0) for name in names], np.int64)

    def name(self, row: int) -> str:
        return self._catalogue.names[row] if self._catalogue else ""

    def title(self, row: int) -> str:
        return self._catalogue.titles[row] if self._catalogue else ""


def _coded(texts: Sequence[str], vocabulary: Vocabulary) -> NDArray[np.int32]:
    labels = Labels.of(texts)
    codes = np.array([vocabulary.code(name) for name in labels.names], np.int32)
    return codes[labels.codes]
