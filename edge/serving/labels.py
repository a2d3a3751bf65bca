"""Names and titles of the items that answers name most, as texts: in the books of all items they lie packed."""

from collections.abc import Iterable
from typing import Final

from edge.serving.shelf import Shelf

_KEPT: Final = 4_096
Label = tuple[int, str, str]
"""Place, name and title."""


class Labels:
    """Those asked for lately, 4,096 at most, none older than its shelf. For one thread."""

    def __init__(self) -> None:
        """Begin empty."""
        self._of: object = None
        self._kept: dict[int, Label] = {}

    def of(self, shelf: Shelf, places: Iterable[int]) -> list[Label]:
        """The labels of these places."""
        of = shelf.numbering, shelf.version
        if self._of != of or len(self._kept) > _KEPT:
            self._of, self._kept = of, {}
        kept = self._kept
        return [kept.get(place) or self._look_up(shelf, place) for place in places]

    def _look_up(self, shelf: Shelf, place: int) -> Label:
        label = self._kept[place] = place, shelf.name(place), shelf.title(place)
        return label
