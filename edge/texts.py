"""Many short texts in little memory: a hundred thousand titles as Python strings take as much as a model.

`Texts` are texts by number, `Labels` texts of which many are alike, by the codes of a `Vocabulary`, and an `Index`
finds the number of a text.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Self, overload

import numpy as np
from numpy.typing import NDArray

_FEWEST_RECENT: Final = 1_024
_ROOM: Final = 0.25  # so much more than is needed is reserved when an array grows
_WASTE: Final = 65_536  # bytes of texts that were replaced, before the block is written anew


class Texts(Sequence[str]):
    """Texts by number in one block of UTF-8: eight bytes each beside their letters. Used by one thread at a time."""

    __slots__ = ("_block", "_count", "_length", "_start", "_wasted")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._block = bytearray()
        self._start = np.zeros(0, np.uint32)
        self._length = np.zeros(0, np.uint32)
        self._count = 0
        self._wasted = 0
        self.extend(texts)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(self._count))]
        if not 0 <= number < self._count:
            raise IndexError(f"there are texts 0 to {self._count - 1}, not {number}")
        start = int(self._start[number])
        return self._block[start : start + int(self._length[number])].decode()

    def __iter__(self) -> Iterator[str]:
        spans = zip(self._start[: self._count].tolist(), self._length[: self._count].tolist(), strict=True)
        for start, length in spans:
            yield self._block[start : start + length].decode()

    def __setitem__(self, number: int, text: str) -> None:
        data = text.encode()
        self._wasted += int(self._length[number])
        if self._wasted > max(_WASTE, len(self._block) // 2):
            self._write_anew(without=number)
        self._start[number], self._length[number] = len(self._block), len(data)
        self._block += data

    def append(self, text: str) -> None:
        self.extend((text,))

    def extend(self, texts: Iterable[str]) -> None:
        data = [text.encode() for text in texts]
        first, self._count = self._count, self._count + len(data)
        self._reserve(self._count)
        lengths = np.fromiter(map(len, data), np.uint32, len(data))
        self._length[first : self._count] = lengths
        self._start[first : self._count] = np.cumsum(lengths, dtype=np.int64) - lengths + len(self._block)
        self._block += b"".join(data)

    def lengthen(self, count: int) -> None:
        """Have so many texts, the new ones empty."""
        self._reserve(count)
        self._count = max(self._count, count)

    @property
    def empty(self) -> NDArray[np.bool_]:
        """bool[n], which of them say nothing."""
        empty: NDArray[np.bool_] = self._length[: self._count] == 0
        return empty

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return len(self._block) + self._start.nbytes + self._length.nbytes

    def _reserve(self, count: int) -> None:
        if count > len(self._start):
            self._start, self._length = longer(self._start, count), longer(self._length, count)

    def _write_anew(self, *, without: int) -> None:
        self._length[without] = 0
        block = bytearray()
        for number in range(self._count):
            start, length = int(self._start[number]), int(self._length[number])
            self._start[number] = len(block)
            block += self._block[start : start + length]
        self._block, self._wasted = block, 0


class Vocabulary:
    """Few different texts, a code each in the order in which they came; 0 is the empty one.

    Attributes:
        names: by code.
    """

    __slots__ = ("_code_of", "names")

    def __init__(self) -> None:
        self.names = [""]
        self._code_of = {"": 0}

    def code(self, text: str) -> int:
        """Its code; a new text gets the next one."""
        code = self._code_of.setdefault(text, len(self.names))
        if code == len(self.names):
            self.names.append(text)
        return code

    def find(self, texts: Iterable[str]) -> list[int]:
        """The codes of those that are known, but for the empty one."""
        return [code for text in texts if (code := self._code_of.get(text))]


class Labels(Sequence[str]):
    """Texts by number of which many are alike: a code each, and every text once.

    Attributes:
        codes: int32[n], places in `names`.
        names: each text once; the first is empty.
    """

    __slots__ = ("codes", "names")

    def __init__(self, texts: Iterable[str]) -> None:
        known = Vocabulary()
        self.codes: NDArray[np.int32] = np.fromiter((known.code(text) for text in texts), np.int32)
        self.names = tuple(known.names)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        """These, as labels."""
        return texts if isinstance(texts, cls) else cls(texts)

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self.names[code] for code in self.codes[number].tolist()]
        return self.names[int(self.codes[number])]


class Index(Mapping[str, int]):
    """Which number a text has: hashes in their order, twelve bytes a text where a dictionary takes a hundred."""

    __slots__ = ("_hashes", "_numbers", "_recent", "_texts")

    def __init__(self, texts: Texts, *, first: int = 1) -> None:
        """Find all texts from number `first` on."""
        self._texts = texts
        self._recent: dict[str, int] = {}
        self._hashes = np.zeros(0, np.int64)
        self._numbers = np.zeros(0, np.int32)
        self._merge(np.arange(first, len(texts), dtype=np.int32))

    def __len__(self) -> int:
        return len(self._hashes) + len(self._recent)

    def __iter__(self) -> Iterator[str]:
        yield from (self._texts[number] for number in self._numbers.tolist())
        yield from self._recent

    def __getitem__(self, text: str) -> int:
        number = self.find(text)
        if number is None:
            raise KeyError(text)
        return number

    def find(self, text: str) -> int | None:
        """The same; None: it is not among them."""
        hashed = hash(text)
        at = int(self._hashes.searchsorted(hashed))
        while at < len(self._hashes) and self._hashes[at] == hashed:
            if self._texts[number := int(self._numbers[at])] == text:
                return number
            at += 1
        return self._recent.get(text)

    def find_all(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """int64[n], the numbers of these; 0: it is not among them."""
        at = self._hashes.searchsorted(np.fromiter(map(hash, texts), np.int64, len(texts)))
        likely = self._numbers.take(at, mode="clip").tolist() if len(self._numbers) else [0] * len(texts)
        known = self._texts
        return np.fromiter(
            (
                number if number and known[number] == text else self.find(text) or 0
                for number, text in zip(likely, texts, strict=True)
            ),
            np.int64,
            len(texts),
        )

    def extend(self, first: int) -> None:
        """Find all texts from this number on, too."""
        fresh = range(first, len(self._texts))
        if len(self._recent) + len(fresh) > max(_FEWEST_RECENT, len(self._hashes) // 8):
            self._merge(np.array([*self._recent.values(), *fresh], np.int32))
            self._recent = {}
        else:
            self._recent.update((self._texts[number], number) for number in fresh)

    def twin(self) -> str | None:
        """A text that stands there twice, if there is one."""
        for at in np.flatnonzero(self._hashes[1:] == self._hashes[:-1]).tolist():
            text = self._texts[int(self._numbers[at])]
            if text == self._texts[int(self._numbers[at + 1])]:
                return text
        return None

    @property
    def nbytes(self) -> int:
        """Bytes in memory, without the texts."""
        return self._hashes.nbytes + self._numbers.nbytes + 100 * len(self._recent)

    def _merge(self, fresh: NDArray[np.int32]) -> None:
        hashes = np.fromiter((hash(self._texts[number]) for number in fresh.tolist()), np.int64, len(fresh))
        hashes = np.concatenate([self._hashes, hashes])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._numbers = np.concatenate([self._numbers, fresh])[order]


def longer(array: NDArray, count: int) -> NDArray:  # type: ignore[type-arg]
    """The same numbers, zeros after them, and room for more than `count`."""
    grown = np.zeros(count + int(count * _ROOM), array.dtype)
    grown[: len(array)] = array
    return grown
