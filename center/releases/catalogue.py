"""The shared catalogue: one numbering of items for all sites, from a table that the federation operator keeps."""

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from center import durable
from protocol.bundle import CARD, FileDigest
from protocol.card import CATALOGUE_FILE, CatalogueCard
from protocol.errors import BadInputError

_COLUMNS = ("title", "category", "brand")
_LONGEST_TEXT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedItem:
    """One line of the shared catalogue."""

    item: str
    title: str
    category: str
    brand: str


def build(source: Path, directory: Path, *, version: int) -> CatalogueCard:
    """Write a catalogue directory (card and packed lines) from a CSV, JSONL or Parquet table.

    Rows keep the order of the table: row i of every model is line i of this file. Never reorder a table that has been
    released; append to it.

    Raises:
        BadInputError: no such table, no column ``item``, an item without a name, or one that stands twice.
    """
    lines = []
    seen: set[str] = set()
    for number, row in enumerate(_rows(source), start=1):
        item = str(row.get("item") or "").strip()
        if not item:
            raise BadInputError(f"{source}, row {number}: an item needs a name in column item")
        if item in seen:
            raise BadInputError(f"{source}, row {number}: item {item!r} stands twice")
        seen.add(item)
        texts = {name: str(row.get(name) or "")[:_LONGEST_TEXT] for name in _COLUMNS}
        price = row.get("price")
        lines.append(json.dumps({"item": item, **texts, "price": price}, ensure_ascii=False, sort_keys=True))
    unpacked = ("\n".join(lines) + "\n").encode()
    packed = gzip.compress(unpacked, mtime=0)
    card = CatalogueCard(
        version=version,
        items=len(lines),
        bytes_unpacked=len(unpacked),
        files={CATALOGUE_FILE: FileDigest.of(packed)},
    )
    durable.write(directory / CATALOGUE_FILE, packed)
    durable.write(directory / CARD, card.to_bytes())
    return card


def read(directory: Path) -> list[SharedItem]:
    """The lines of a catalogue that `build` wrote, in the order of rows 1 to n.

    Raises:
        BadInputError: it is not there, or damaged.
    """
    try:
        text = gzip.decompress((directory / CATALOGUE_FILE).read_bytes()).decode()
        rows = [json.loads(line) for line in text.splitlines()]
    except (OSError, EOFError, ValueError) as error:
        raise BadInputError(f"the catalogue in {directory} cannot be read: {error}") from error
    return [SharedItem(item=r["item"], title=r["title"], category=r["category"], brand=r["brand"]) for r in rows]


def _rows(source: Path) -> Iterator[Mapping[str, Any]]:
    readers = {".csv": _read_csv, ".jsonl": pa.json.read_json, ".parquet": pa.parquet.read_table}
    reader = readers.get(source.suffix.lower())
    if reader is None:
        raise BadInputError(f"{source} is of no kind that can be read", advice="use .csv, .jsonl or .parquet")
    try:
        table = reader(source)
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(f"{source} cannot be read: {str(error).splitlines()[0]}") from error
    if "item" not in table.column_names:
        raise BadInputError(f"{source} has no column item", advice=f"it has {', '.join(table.column_names[:8])}")
    for batch in table.to_batches():
        yield from batch.to_pylist()


def _read_csv(source: Path) -> Any:
    texts = {name: pa.string() for name in ("item", *_COLUMNS)}
    return pa.csv.read_csv(source, convert_options=pa.csv.ConvertOptions(column_types=texts))
