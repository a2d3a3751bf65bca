"""The words that stand in the index, and those among them that somebody may have meant.

A word is corrected by at most one letter from 4 letters on and by at most two from 8 on; a letter that is wrong,
missing, too many, or swapped with its neighbour counts one. All words are compared at once, in columns: first the sets
of their letters, then the few that are left letter by letter (optimal string alignment, Damerau 1964).
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

_LONGEST: Final = 24
_ONE_FROM, _TWO_FROM = 4, 8
_OTHER_INITIAL = 0.5  # of a letter: a first letter is seldom wrong
_SHORTEST_HALF = 3


class Near(NamedTuple):
    """A word of the index that is almost the one typed."""

    word: str
    distance: int


class Vocabulary:
    """Words and in how many items each stands. Never changed."""

    def __init__(self, counted: Iterable[tuple[str, int]]) -> None:
        kept = [(word, count) for word, count in counted if len(word) <= _LONGEST and word.isalpha()]
        self._number = {word: number for number, (word, _) in enumerate(kept)}
        self._words = list(self._number)
        self._count = np.array([count for _, count in kept], np.int64)
        self._length = np.array([len(word) for word in self._words], np.int8)
        self._letters = _codes(self._words)
        self._bags = _bags(self._letters)

    def __len__(self) -> int:
        return len(self._words)

    def __contains__(self, word: str) -> bool:
        return word in self._number

    def count(self, word: str) -> int:
        """In how many items it stands."""
        number = self._number.get(word)
        return 0 if number is None else int(self._count[number])

    def near(self, word: str, *, most: int) -> list[Near]:
        """Words that are almost this one, the likeliest first; not the word itself."""
        allowed = edits_allowed(word)
        if not allowed or not self._words:
            return []
        typed = _codes([word])
        apart = np.bitwise_count(self._bags ^ _bags(typed)[0])
        close = (np.abs(self._length - len(word)) <= allowed) & (apart <= 2 * allowed)
        found = np.flatnonzero(close)
        distance = _distances(typed[0, : len(word)], self._letters[found], self._length[found])
        fits = (distance <= allowed) & (distance > 0)
        found, distance = found[fits], distance[fits]
        strange = distance + _OTHER_INITIAL * (self._letters[found, 0] != typed[0, 0])
        order = np.lexsort((-self._count[found], strange))[:most]
        return [Near(self._words[found[at]], int(distance[at])) for at in order]

    def split(self, word: str) -> tuple[str, str] | None:
        """Two words that were written as one, the pair whose rarer half is most common."""
        pairs = [(word[:at], word[at:]) for at in range(_SHORTEST_HALF, len(word) - _SHORTEST_HALF + 1)]
        known = [(min(self.count(left), self.count(right)), left, right) for left, right in pairs]
        count, left, right = max(known, default=(0, "", ""))
        return (left, right) if count else None


def edits_allowed(word: str) -> int:
    """Letters that may be wrong in a word of this length; none in a number."""
    if len(word) > _LONGEST or not word.isalpha():
        return 0
    return (len(word) >= _ONE_FROM) + (len(word) >= _TWO_FROM)


def _codes(words: list[str]) -> NDArray[np.uint32]:
    """uint32[n, 24], code points, 0 behind the end."""
    return np.array(words, f"<U{_LONGEST}").view(np.uint32).reshape(len(words), _LONGEST)


def _bags(letters: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """uint64[n], a bit for each letter that is there, whatever the script."""
    bits = np.where(letters > 0, np.uint64(1) << (letters % 64).astype(np.uint64), np.uint64(0))
    bags: NDArray[np.uint64] = np.bitwise_or.reduce(bits, axis=1)
    return bags


def _distances(typed: NDArray[np.uint32], letters: NDArray[np.uint32], length: NDArray[np.int8]) -> NDArray[np.int64]:
    """int64[n], edits between one word and each of several, swapped neighbours counting one."""
    width = int(length.max(initial=0))
    rows = np.arange(width + 1)
    before = last = np.broadcast_to(rows, (len(letters), width + 1)).astype(np.int64)
    for at, letter in enumerate(typed):
        row = np.empty_like(last)
        row[:, 0] = at + 1
        for column in range(width):
            wrong = last[:, column] + (letters[:, column] != letter)
            row[:, column + 1] = np.minimum(np.minimum(last[:, column + 1], row[:, column]) + 1, wrong)
            if at and column:
                swapped = (letters[:, column - 1] == letter) & (letters[:, column] == typed[at - 1])
                shorter = np.where(swapped, before[:, column - 1] + 1, row[:, column + 1])
                row[:, column + 1] = np.minimum(row[:, column + 1], shorter)
        before, last = last, row
    return last[np.arange(len(letters)), length]
