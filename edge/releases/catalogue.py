"""The shared catalogue as installed on this edge: it numbers the items that all sites have in common."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any, Self

import orjson

from edge.breaths import in_breaths
from protocol.bundle import CARD
from protocol.card import CATALOGUE_FILE, CatalogueCard
from protocol.errors import UntrustedReleaseError

_MOST_BYTES = 4 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Catalogue:
    """Items by row; row 0 is padding, row i is line i of the file.

    Attributes:
        sha256: digest of ``catalogue.jsonl.gz``, which a bundle names to say whose rows its numbers are.
        row_of: item id -> row.
        names, titles, categories, brands: by row, index 0 is an empty text.
        prices: by row; None: not known.
    """

    version: int
    sha256: str
    row_of: Mapping[str, int]
    names: tuple[str, ...]
    titles: tuple[str, ...]
    categories: tuple[str, ...]
    brands: tuple[str, ...]
    prices: tuple[float | None, ...]

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
        lines = data.split(b"\n")
        if lines and not lines[-1]:
            lines.pop()
        if len(lines) != card.items:
            raise UntrustedReleaseError(f"{path} has {len(lines)} items, its card says {card.items}")
        rows = [_row(line, number, path) for number, line in enumerate(in_breaths(lines), start=1)]
        names = ("", *(row["item"] for row in rows))
        row_of = {name: number for number, name in enumerate(names) if number}
        if len(row_of) != len(rows):
            raise UntrustedReleaseError(f"{path} names an item twice")
        listed = card.files.get(CATALOGUE_FILE)
        return cls(
            version=card.version,
            sha256=listed.sha256 if listed else "",
            row_of=row_of,
            names=names,
            titles=("", *(str(row.get("title") or "") for row in rows)),
            categories=("", *(intern(str(row.get("category") or "")) for row in rows)),
            brands=("", *(intern(str(row.get("brand") or "")) for row in rows)),
            prices=(None, *(_price(row.get("price")) for row in rows)),
        )


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


def _row(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise UntrustedReleaseError(f"{path}, line {number}: not JSON") from error
    if not isinstance(row, dict) or not isinstance(row.get("item"), str) or not row["item"]:
        raise UntrustedReleaseError(f"{path}, line {number}: names no item")
    return row


def _price(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
