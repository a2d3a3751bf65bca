"""CSV, JSONL and Parquet as a stream of numbered rows, in bounded memory whatever the file holds.

A row that cannot be read comes with the reason; a file that cannot be read raises BadInputError.
"""

import csv
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from protocol.errors import BadInputError

LONGEST_LINE = 1 << 20
"""Bytes of one line (and of one quoted CSV record), at most; the rest of a longer one is skipped unread."""
_RECORD_LINES = 100  # a quote still open after so many lines is a stray quote, not a long field
_CHUNK = 1 << 16
_BATCH_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its values, or why there are none.

    Attributes:
        line: counted from 1; in a text file the line it begins on, in Parquet the row.
        values: by column name; empty when the row could not be read.
        reason: why it could not be read, or None.
        position: how much of the file was read so far, in the unit of `Source.total`.
    """

    line: int
    values: Mapping[str, Any]
    reason: str | None
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An opened file.

    Attributes:
        columns: what it names; None where every row names its own (JSONL).
        total: bytes of a text file, rows of a Parquet file.
    """

    columns: tuple[str, ...] | None
    total: int
    rows: Iterator[Row]


def open_source(path: Path) -> Source:
    """Choose by suffix: .csv, .jsonl or .ndjson, .parquet.

    Raises:
        BadInputError: another suffix, no such file, no header, not UTF-8, damaged Parquet. A damaged page of Parquet
            shows only when the rows are read.
    """
    suffix = path.suffix.lower()
    readers: dict[str, Callable[[Path], Source]] = {
        ".csv": _open_csv,
        ".jsonl": _open_jsonl,
        ".ndjson": _open_jsonl,
        ".parquet": _open_parquet,
    }
    if suffix not in readers:
        raise BadInputError(f"{path} is of no kind we read", advice="name it .csv, .jsonl or .parquet")
    try:
        return readers[suffix](path)
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}") from error


def bounded_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None, int]]:
    """Line number, the line without its end (None: too long), and bytes read so far; never holds more than a line."""
    number, offset = 1, 0
    while line := file.readline(LONGEST_LINE + 1):
        offset += len(line)
        if len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            offset += _skip_line(file)
            yield number, None, offset
        else:
            yield number, line.rstrip(b"\r\n"), offset
        number += 1


def _skip_line(file: BinaryIO) -> int:
    skipped = 0
    while chunk := file.readline(_CHUNK):
        skipped += len(chunk)
        if chunk.endswith(b"\n"):
            break
    return skipped


def _open_csv(path: Path) -> Source:
    rows = _csv_records(path)
    header = next(rows, None)
    if header is None or header[2]:
        raise BadInputError(f"{path} has no readable header: {header[2] if header else 'it is empty'}")
    columns = tuple(name.strip() for name in header[1])
    if len(set(columns)) != len(columns) or not all(columns):
        raise BadInputError(f"{path}: every column of the header needs a name of its own")
    return Source(columns=columns, total=path.stat().st_size, rows=_csv_rows(rows, columns))


def _csv_rows(records: Iterator[tuple[int, list[str], str | None, int]], columns: tuple[str, ...]) -> Iterator[Row]:
    for line, fields, reason, position in records:
        if reason is not None:
            yield Row(line, {}, reason, position)
        elif len(fields) != len(columns):
            yield Row(line, {}, f"{len(fields)} fields where the header has {len(columns)}", position)
        else:
            yield Row(line, dict(zip(columns, fields, strict=True)), None, position)


def _csv_records(path: Path) -> Iterator[tuple[int, list[str], str | None, int]]:
    """Records, with quoted line ends. A quote that never closes costs its own line, not the rest of the file."""
    with path.open("rb") as file:
        lines = bounded_lines(file)
        waiting: deque[tuple[int, bytes | None, int]] = deque()

        def following() -> tuple[int, bytes | None, int] | None:
            return waiting.popleft() if waiting else next(lines, None)

        while (first := following()) is not None:
            number, raw, position = first
            if raw is None:
                yield number, [], f"longer than {LONGEST_LINE} bytes", position
                continue
            if raw.count(b'"') % 2:
                raw, position = _close_quote(first, following, waiting)
            if raw:
                yield number, *_csv_fields(raw, first=number == 1), position


def _close_quote(
    first: tuple[int, bytes | None, int],
    following: Callable[[], tuple[int, bytes | None, int] | None],
    waiting: deque[tuple[int, bytes | None, int]],
) -> tuple[bytes, int]:
    """The record that begins in this line; if its quote never closes, this line alone, and the others go back."""
    _, raw, position = first
    record, taken = raw or b"", list[tuple[int, bytes | None, int]]()
    while len(taken) < _RECORD_LINES and (line := following()) is not None:
        taken.append(line)
        if line[1] is None or len(record) + len(line[1]) > LONGEST_LINE:
            break
        record += b"\n" + line[1]
        if line[1].count(b'"') % 2:
            return record, line[2]
    waiting.extendleft(reversed(taken))
    return raw or b"", position


def _csv_fields(raw: bytes, *, first: bool) -> tuple[list[str], str | None]:
    try:
        text = raw.decode("utf-8-sig" if first else "utf-8")
        if "\0" in text:
            return [], "contains a NUL byte"
        return next(csv.reader((text,) if "\n" not in text else text.splitlines(keepends=True), strict=True)), None
    except UnicodeDecodeError:
        return [], "not UTF-8"
    except csv.Error as error:
        return [], f"not CSV: {error}"


def _open_jsonl(path: Path) -> Source:
    with path.open("rb") as file:
        start = file.read(4)
    zeros = [byte == 0 for byte in start]
    if start[:2] in {b"\xff\xfe", b"\xfe\xff"} or zeros in ([False, True] * 2, [True, False] * 2):
        raise BadInputError(f"{path} is not UTF-8", advice="write it as UTF-8")
    return Source(columns=None, total=path.stat().st_size, rows=_jsonl_rows(path))


def _jsonl_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, raw, position in bounded_lines(file):
            if raw is None:
                yield Row(number, {}, f"longer than {LONGEST_LINE} bytes", position)
                continue
            if not raw.strip():
                continue
            try:
                value = orjson.loads(raw)
            except orjson.JSONDecodeError as error:
                yield Row(number, {}, f"not JSON: {error}", position)
                continue
            if isinstance(value, dict):
                yield Row(number, value, None, position)
            else:
                yield Row(number, {}, "not a JSON object", position)


def _open_parquet(path: Path) -> Source:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, ValueError) as error:
        raise BadInputError(f"{path} is no Parquet file: {_first_line(error)}") from error
    return Source(
        columns=tuple(file.schema_arrow.names),
        total=file.metadata.num_rows,
        rows=_parquet_rows(path, file),
    )


def _parquet_rows(path: Path, file: Any) -> Iterator[Row]:
    number = 0
    try:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            names = batch.schema.names
            columns = [_plain(column) for column in batch.columns]
            for values in zip(*columns, strict=True):
                number += 1
                yield Row(number, dict(zip(names, values, strict=True)), None, number)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInputError(f"{path} is damaged after row {number}: {_first_line(error)}") from error
    finally:
        file.close()


def _plain(column: Any) -> list[Any]:
    """Python values; a timestamp as int milliseconds, so that no time zone is lost and nothing is rounded twice."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = pc.cast(pc.cast(column, pa.timestamp("ms"), safe=False), pa.int64())
    values: list[Any] = column.to_pylist()
    return values


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(os.linesep)
