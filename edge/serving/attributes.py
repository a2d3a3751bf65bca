"""What items say of themselves under names that only their shop knows: one attribute of all items, by place.

Reading one takes as long as a hundred answers, so it is read beside the event loop before a question about it is
answered (`Reading`); who asks without that waits for it.
"""

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.breaths import in_breaths
from edge.records.store import Store
from edge.texts import Vocabulary

# A name is a value here, never a part of the statement or of a path.
_VALUES = """
    SELECT items.id, each.type, each.value FROM items, json_each(items.attributes) AS each
    WHERE items.listed AND items.attributes IS NOT NULL AND each.key = ?"""

_NAMES = """
    SELECT DISTINCT each.key FROM items, json_each(items.attributes) AS each
    WHERE items.listed AND items.attributes IS NOT NULL"""


class Column:
    """One attribute of all items by place.

    Attributes:
        numbers: float32[size], nan where an item has none; None: not all values are numbers.
        codes: int32[size], places in `names`, 0 where an item has none; empty where `numbers` is there.
        names: every value as a text; the first is empty.
    """

    __slots__ = ("_vocabulary", "codes", "numbers")

    def __init__(self, size: int, *, numeric: bool) -> None:
        self.numbers: NDArray[np.float32] | None = np.full(size, np.nan, np.float32) if numeric else None
        self.codes: NDArray[np.int32] = np.zeros(0 if numeric else size, np.int32)
        self._vocabulary = Vocabulary()

    @property
    def names(self) -> Sequence[str]:
        return self._vocabulary.names

    @property
    def nbytes(self) -> int:
        """Bytes in memory, without the names."""
        return self.codes.nbytes + (0 if self.numbers is None else self.numbers.nbytes)

    def put(self, place: int, value: Any) -> bool:
        """Note what an item says now, None: nothing; False: a column of this kind cannot hold it."""
        if self.numbers is not None:
            if value is not None and not _is_number(value):
                return False
            self.numbers[place] = np.nan if value is None else value
        else:
            self.codes[place] = 0 if value is None else self._vocabulary.code(as_text(value))
        return True

    def lengthen(self, size: int) -> None:
        """Have so many places."""
        if self.numbers is not None:
            self.numbers = np.r_[self.numbers, np.full(size - len(self.numbers), np.nan, np.float32)]
        else:
            self.codes = np.r_[self.codes, np.zeros(size - len(self.codes), np.int32)]


class Reading:
    """Names and columns that are read beside the event loop, while items may go on changing."""

    def __init__(
        self,
        store: Store,
        wanted: Collection[str],
        *,
        place_of_key: NDArray[np.int32],
        size: int,
        known: set[str] | None,
    ) -> None:
        self._store, self._wanted = store, wanted
        self._place_of_key, self._size = place_of_key, size
        self.names = known
        self.columns: dict[str, Column] = {}
        self.unused: set[str] = set()
        self.late: list[tuple[int, Mapping[str, Any]]] = []
        """What items have come to say meanwhile, by place; to say it twice does no harm."""

    def read(self) -> None:
        """Read, in any thread."""
        with self._store.reading() as db:
            if self.names is None:
                self.names = _read_names(db)
            for name in self.names.intersection(self._wanted):
                column = _read(db, name, place_of_key=self._place_of_key, size=self._size)
                if column is None:
                    self.unused.add(name)
                else:
                    self.columns[name] = column


class Attributes:
    """All attributes of a numbering's items: read from the store when they are asked for, then kept up to date."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._names: set[str] | None = None
        self._columns: dict[str, Column] = {}
        self._readings: list[Reading] = []

    def names(self) -> set[str]:
        """The names under which listed items say something; one that is no longer used may be among them."""
        if self._names is None:
            with self._store.reading() as db:
                self._names = _read_names(db)
        return self._names

    def lacks(self, names: Collection[str]) -> bool:
        """Whether a question about these would have to wait for the store."""
        return self._names is None or not self._names.intersection(names) <= self._columns.keys()

    def begin(self, names: Collection[str], *, place_of_key: NDArray[np.int32], size: int) -> Reading:
        """Begin to read what is not known of these; `finish` it in any case."""
        wanted = [name for name in names if name not in self._columns]
        reading = Reading(self._store, wanted, place_of_key=place_of_key, size=size, known=self._names)
        self._readings.append(reading)
        return reading

    def finish(self, reading: Reading, *, size: int) -> None:
        """Take in what was read, and what has changed meanwhile."""
        self._readings.remove(reading)
        if self._names is None:
            self._names = reading.names
        if self._names is not None:
            self._names.difference_update(reading.unused)
            self._names.update(*(attributes for _, attributes in reading.late))
        for name, column in reading.columns.items():
            column.lengthen(size)
            if all(column.put(place, attributes.get(name)) for place, attributes in reading.late):
                self._columns.setdefault(name, column)

    def column(self, name: str, *, place_of_key: NDArray[np.int32], size: int) -> Column | None:
        """One of them; None: no listed item has it."""
        if name not in self.names():  # strangers may ask for any number of names
            return None
        if name not in self._columns:
            with self._store.reading() as db:
                found = _read(db, name, place_of_key=place_of_key, size=size)
            if found is None:
                return None
            self._columns[name] = found
        return self._columns[name]

    def put(self, place: int, attributes: Mapping[str, Any]) -> None:
        """Note what an item says now."""
        for reading in self._readings:
            reading.late.append((place, attributes))
        if self._names is not None:
            self._names.update(attributes)
        for name, column in list(self._columns.items()):
            if not column.put(place, attributes.get(name)):
                del self._columns[name]  # read anew when it is asked for

    def clear(self) -> None:
        """Let go of all columns; they are read anew when they are asked for."""
        self._columns.clear()

    def lengthen(self, size: int) -> None:
        """Have so many places."""
        for column in self._columns.values():
            column.lengthen(size)

    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(column.nbytes for column in self._columns.values())


def _read_names(db: sqlite3.Connection) -> set[str]:
    return {name for (name,) in db.execute(_NAMES)}


def _read(db: sqlite3.Connection, name: str, *, place_of_key: NDArray[np.int32], size: int) -> Column | None:
    """The column of this name; None: no listed item has such an attribute."""
    found = [(int(place_of_key[key]), value) for key, value in _values(db, name) if key < len(place_of_key)]
    found = [(place, value) for place, value in found if place and value is not None]
    if not found:
        return None
    column = Column(size, numeric=all(_is_number(value) for _, value in found))
    for place, value in found:
        column.put(place, value)
    return column


def as_text(value: Any) -> str:
    """A value as it is filtered by: a text itself, anything else as JSON writes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _values(db: sqlite3.Connection, name: str) -> Iterator[tuple[int, Any]]:
    for key, kind, value in in_breaths(db.execute(_VALUES, (name,))):
        if kind in {"true", "false"}:
            yield key, kind == "true"
        elif kind in {"array", "object"}:
            yield key, json.loads(value)
        else:
            yield key, value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
