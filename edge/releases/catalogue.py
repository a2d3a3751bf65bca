"""The shared catalogue as installed on this edge: it numbers the items that all sites have in common."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import nan
from pathlib import Path
from sys import intern
from typing import Any, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from edge.breaths import in_breaths
from edge.texts import Index, Labels, Texts
from protocol.bundle import CARD
from protocol.card import CATALOGUE_FILE, CatalogueCard
from protocol.errors import UntrustedReleaseError

_MOST_BYTES = 4 * 1024**3
_AT_A_TIME = 4_096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Catalogue:
    """Items by row; row 0 is padding, row i is line i of the file.

    Attributes:
        sha256: digest of ``catalogue.jsonl.gz``, which a bundle names to say whose rows its numbers are.
        row_of: item id -> row.
        names, titles, categories, brands: by row, index 0 is an empty text.
        prices: float32[n + 1], by row; nan: not known.
    """

    version: int
    sha256: str
    row_of: Mapping[str, int]
    names: Sequence[str]
    titles: Sequence[str]
    categories: Sequence[str]
    brands: Sequence[str]
    prices: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.names) - 1

    def item_at(self, row: int) -> str:
        """The item id of a row from 1 on.

        Raises:
            IndexError: no such row.
        """
        if not 0 < row < len(self.names):
            raise IndexError(f"the catalogue has rows 1 to {len(self)}, not {row}")
        return self.names[row]

    def nbytes(self) -> int:
        """Bytes in memory."""
        texts = (self.names, self.titles, self.row_of)
        labels = (self.categories, self.brands)
        return (
            self.prices.nbytes
            + sum(each.nbytes for each in texts if isinstance(each, Texts | Index))
            + sum(each.codes.nbytes for each in labels if isinstance(each, Labels))
        )

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read an installed catalogue; never unpacks more than its signed card promises.

        Raises:
            UntrustedReleaseError: a file is missing or does not hold what the card says.
            MalformedMessageError: ``card.json`` is not the card of a catalogue.
        """
        path = directory / CATALOGUE_FILE
        try:
            card = CatalogueCard.from_bytes((directory / CARD).read_bytes())
            data = _unpack(path, size=card.bytes_unpacked)
        except OSError as error:
            raise UntrustedReleaseError(f"{directory} is no catalogue: {error.strerror or error}") from error
        read = _Columns()
        for row in in_breaths(_rows(data, path)):
            read.add(row)
        read.put_down()
        if len(read.names) - 1 != card.items:
            raise UntrustedReleaseError(f"{path} has {len(read.names) - 1} items, its card says {card.items}")
        row_of = Index(read.names)
        if row_of.twin() is not None:
            raise UntrustedReleaseError(f"{path} names an item twice")
        listed = card.files.get(CATALOGUE_FILE)
        return cls(
            version=card.version,
            sha256=listed.sha256 if listed else "",
            row_of=row_of,
            names=read.names,
            titles=read.titles,
            categories=Labels(read.categories),
            brands=Labels(read.brands),
            prices=np.array(read.prices, np.float32),
        )


class _Columns:
    """What rows say, column by column; 0 is no row."""

    def __init__(self) -> None:
        self.names, self.titles = Texts([""]), Texts([""])
        self.categories, self.brands = [""], [""]
        self.prices = [nan]
        self._names: list[str] = []
        self._titles: list[str] = []

    def add(self, row: Mapping[str, Any]) -> None:
        self._names.append(row["item"])
        self._titles.append(str(row.get("title") or ""))
        self.categories.append(intern(str(row.get("category") or "")))
        self.brands.append(intern(str(row.get("brand") or "")))
        self.prices.append(_price(row.get("price")))
        if len(self._names) == _AT_A_TIME:
            self.put_down()

    def put_down(self) -> None:
        """Texts are put down many at a time."""
        self.names.extend(self._names)
        self.titles.extend(self._titles)
        self._names, self._titles = [], []


def _unpack(path: Path, *, size: int) -> bytes:
    if size > _MOST_BYTES:
        raise UntrustedReleaseError(f"{path} would unpack to {size} bytes")
    unpacking = zlib.decompressobj(wbits=31)  # gzip
    try:
        data = unpacking.decompress(path.read_bytes(), size + 1)
    except zlib.error as error:
        raise UntrustedReleaseError(f"{path} cannot be unpacked: {error}") from error
    if len(data) != size or not unpacking.eof or unpacking.unused_data:
        raise UntrustedReleaseError(f"{path} does not unpack to the {size} bytes its card promises")
    return data


def _rows(data: bytes, path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(BytesIO(data), start=1):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise UntrustedReleaseError(f"{path}, line {number}: not JSON") from error
        if not isinstance(row, dict) or not isinstance(row.get("item"), str) or not row["item"]:
            raise UntrustedReleaseError(f"{path}, line {number}: names no item")
        yield row


def _price(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else nan
