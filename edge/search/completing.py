"""What somebody who has typed this far may be about to type: common questions, categories, brands, words of titles."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from enum import StrEnum
from typing import Final, NamedTuple

from edge.search.words import folded, pieces, words

_ALIKE = 0.75
_MOST_COMPARED = 500
_END = "\U0010ffff"
_MOST_STARTS = 2_000  # completions of one beginning that are compared; of a single letter there may be more


class Kind(StrEnum):
    """Where a suggestion comes from."""

    QUERY = "query"
    CATEGORY = "category"
    BRAND = "brand"
    WORDS = "words"


class Suggestion(NamedTuple):
    """A text to search for."""

    text: str
    kind: Kind


class _Entry(NamedTuple):
    start: str  # folded, from the beginning of one of its words
    first: bool  # the beginning of the whole
    weight: float
    suggestion: Suggestion


class Completions:
    """Texts by how they, or one of their words, begin. Never changed."""

    def __init__(
        self, queries: Sequence[tuple[str, float]], categories: Iterable[str] = (), brands: Iterable[str] = ()
    ) -> None:
        """Make them of these.

        Args:
            queries: common questions and how common, the most common first.
        """
        named = [(text, weight, Kind.QUERY) for text, weight in queries]
        named += [(text, 0.0, Kind.CATEGORY) for text in categories if text]
        named += [(text, 0.0, Kind.BRAND) for text in brands if text]
        self._entries = sorted(
            (entry for text, weight, kind in named for entry in _entries(text, weight, kind)),
            key=lambda entry: entry.start,
        )
        self._starts = [entry.start for entry in self._entries]
        self._common = [text for text, _ in queries[:_MOST_COMPARED]]

    def of(self, typed: str, *, most: int) -> list[Suggestion]:
        """What begins like this, the most common first; then what has a word that does."""
        start = folded(words(typed))
        if not start:
            return []
        low = bisect_left(self._starts, start)
        high = min(bisect_left(self._starts, start + _END), low + _MOST_STARTS)
        found = sorted(self._entries[low:high], key=lambda entry: (-entry.first, -entry.weight, entry.start))
        return list(dict.fromkeys(entry.suggestion for entry in found))[:most]

    def meant(self, typed: str) -> str | None:
        """The common question that this is most like."""
        near = get_close_matches(typed.casefold(), self._common, n=1, cutoff=_ALIKE)
        return near[0] if near else None


NO_COMPLETIONS: Final = Completions([])


def in_titles(typed: str, titles: Iterable[str], *, most: int) -> list[Suggestion]:
    """What was typed, its last word as titles have it: ``shower he`` is ``shower head``."""
    asked = words(typed)
    if not asked or typed[-1].isspace():
        return []
    last, before = asked[-1].text, typed.casefold().split()[:-1]
    counts: dict[str, int] = {}
    for title in titles:
        for start, end, found in pieces(title):
            if found and found[0].text.startswith(last) and found[0].text != last:
                word = title[start:end].casefold()
                counts[word] = counts.get(word, 0) + 1
    common = sorted(counts, key=lambda word: (-counts[word], word))
    return [Suggestion(" ".join([*before, word]), Kind.WORDS) for word in common[:most]]


def _entries(text: str, weight: float, kind: Kind) -> Iterable[_Entry]:
    parts = [word.text for word in words(text)]
    for at in range(len(parts)):
        yield _Entry(" ".join(parts[at:]), at == 0, weight, Suggestion(text, kind))
