"""Files of a shop into its store: every row checked, every refused row written down with its line and its reason.

Columns of events: ``item``, ``time`` and ``user`` or ``session`` are required; ``type`` (default purchase),
``quantity`` (default 1), ``event_id``, ``rec_id``, ``query``, and where it happened (``region``, ``page``, ``device``,
``campaign``) may be there. ``time`` is ISO 8601 (without a zone: UTC) or a count of seconds (below 100,000,000,000) or
milliseconds.
Columns of items: ``item`` is required; ``title``, ``category``, ``brand``, ``price``, ``stock``, ``added`` (when it was
listed first, a time) and ``attributes`` (a JSON object) may be there, any other column becomes an attribute.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from edge.records.events import CONTEXT, TYPES, Event, Item, check_event, check_item, parse_time
from edge.records.reading import Row, Source, open_source
from edge.records.store import Store
from protocol.errors import BadInputError

_BATCH = 10_000  # events a transaction: one flush to disk, and at most so much is done again after a kill -9
_REJECT_TEXT = 2_000  # characters of a refused row that are worth keeping
_EVENT_COLUMNS = ("event_id", "type", "user", "item", "time", "quantity", "session", "rec_id", "query", *CONTEXT)
_ITEM_COLUMNS = ("item", "title", "category", "brand", "price", "stock", "added", "attributes")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOutcome:
    """What became of a file; ``rows = added + duplicates + rejected``.

    Attributes:
        added: new events, or items listed or changed.
        rejected: rows refused; they stand in the rejects file.
        ignored_columns: columns of the file that mean nothing to us.
    """

    rows: int
    added: int
    duplicates: int
    rejected: int
    ignored_columns: tuple[str, ...] = ()


class _Rejects:
    """The rejects file, JSON lines: ``{"line": …, "reason": …, "row": …}``. None is left when nothing is refused."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._path = path
        self._file: TextIO | None = None

    def add(self, row: Row, reason: str) -> None:
        if self._file is None:
            self._file = self._path.open("w", encoding="utf-8", errors="backslashreplace")
        self.count += 1
        text = json.dumps(row.values, ensure_ascii=False, default=str)
        kept: Any = row.values if len(text) <= _REJECT_TEXT else text[:_REJECT_TEXT]
        line = {"line": row.line, "reason": reason, "row": kept}
        self._file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")

    def __enter__(self) -> Self:
        self._path.unlink(missing_ok=True)  # of an earlier run: it would accuse this one
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()


def import_events(
    store: Store,
    path: Path,
    *,
    rejects: Path,
    now_ms: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    refuse_unknown_items: bool = True,
) -> ImportOutcome:
    """Add a file of events; a second import of the same file changes nothing.

    A row without ``event_id`` gets one from its contents and its ordinal among equal rows of the file: two equal rows
    are two events, the same row in two files is one. That takes about 150 bytes of memory a row.

    Args:
        rejects: where refused rows are written; replaced, and removed when nothing is refused.
        progress: called with (done, total), bytes of a text file or rows of a Parquet file.
        refuse_unknown_items: refuse events of items that are not listed, if the site lists any.

    Raises:
        BadInputError: the file cannot be read, or a required column is missing. Batches before that are in the store;
            importing the mended file adds the rest.
        NoSpaceError: the disk is full.
        UnavailableError: another process holds the store.
    """
    source = open_source(path)
    _require(path, source, ("item", "time"))
    if source.columns is not None and "session" not in source.columns:
        _require(path, source, ("user",))
    ordinals: Counter[bytes] = Counter()
    rows = added = duplicates = 0
    with _Rejects(rejects) as refused:
        while batch := list(islice(source.rows, _BATCH)):
            read = [(row, event) for row in batch if (event := _event(row, ordinals, refused, now_ms=now_ms))]
            unknown = store.unlisted({e.item for _, e in read if e.item is not None}) if refuse_unknown_items else set()
            for row, event in read:
                if event.item in unknown:
                    refused.add(row, f"item {event.item} is not listed")
            outcome = store.add_events(event for _, event in read if event.item not in unknown)
            rows, added, duplicates = rows + len(batch), added + outcome.added, duplicates + outcome.duplicates
            progress(batch[-1].position, source.total)
    return ImportOutcome(
        rows=rows,
        added=added,
        duplicates=duplicates,
        rejected=refused.count,
        ignored_columns=tuple(name for name in source.columns or () if name not in _EVENT_COLUMNS),
    )


def import_items(
    store: Store,
    path: Path,
    *,
    rejects: Path,
    now_ms: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> ImportOutcome:
    """List a file of items; what was known of an item is replaced. Arguments and errors as of `import_events`.

    What is not yet listed is new now, unless a column says when it was; in the first file of all nothing is new.
    """
    source = open_source(path)
    if not store.has_items():
        now_ms = None
    _require(path, source, ("item",))
    rows = added = 0
    with _Rejects(rejects) as refused:
        while batch := list(islice(source.rows, _BATCH)):
            added += store.put_items([item for row in batch if (item := _item(row, refused))], now_ms=now_ms)
            rows += len(batch)
            progress(batch[-1].position, source.total)
    return ImportOutcome(rows=rows, added=added, duplicates=0, rejected=refused.count)


def _require(path: Path, source: Source, names: tuple[str, ...]) -> None:
    missing = [name for name in names if source.columns is not None and name not in source.columns]
    if missing:
        raise BadInputError(f"{path} has no column {' or '.join(missing)}", advice=f"it has {_some(source.columns)}")


def _some(columns: tuple[str, ...] | None) -> str:
    return ", ".join((columns or ())[:12]) or "none"


def _event(row: Row, ordinals: Counter[bytes], refused: _Rejects, *, now_ms: int) -> Event | None:
    if row.reason is not None:
        refused.add(row, row.reason)
        return None
    try:
        return _read_event(row.values, ordinals, now_ms=now_ms)
    except BadInputError as error:
        refused.add(row, str(error))
        return None


def _read_event(values: Mapping[str, Any], ordinals: Counter[bytes], *, now_ms: int) -> Event:
    kind = TYPES.get(_text(values, "type") or "purchase")
    if kind is None:
        raise BadInputError(f"type {str(values['type'])[:40]!r} is none of {', '.join(TYPES)}")
    time = values.get("time")
    if time is None or isinstance(time, bool) or not isinstance(time, (str, int, float)) or time == "":
        raise BadInputError("time is missing")
    user, item, time_ms = _text(values, "user"), _text(values, "item"), parse_time(time)
    quantity = 1.0 if (given := _number(values, "quantity")) is None else given
    rest = (_text(values, "session"), _text(values, "rec_id"), _text(values, "query"))
    context = {name: text for name in CONTEXT if (text := _text(values, name)) is not None}
    contents = (kind, user, item, time_ms, quantity, *rest, *((context,) if context else ()))
    event = Event(
        event_id=_text(values, "event_id") or _derived_id(contents, ordinals),
        type=kind,
        user=user,
        item=item,
        time_ms=time_ms,
        quantity=quantity,
        session=rest[0],
        rec_id=rest[1],
        query=rest[2],
        context=context,
    )
    return check_event(event, now_ms=now_ms)


def _derived_id(contents: tuple[object, ...], ordinals: Counter[bytes]) -> str:
    """The id that the same row of the same file will get again."""
    digest = blake2b(repr(contents).encode("utf-8", "backslashreplace"), digest_size=12).digest()
    ordinals[digest] += 1
    return f"row:{digest.hex()}:{ordinals[digest]}"


def _item(row: Row, refused: _Rejects) -> Item | None:
    if row.reason is not None:
        refused.add(row, row.reason)
        return None
    try:
        return _read_item(row.values)
    except BadInputError as error:
        refused.add(row, str(error))
        return None


def _read_item(values: Mapping[str, Any]) -> Item:
    stock = _number(values, "stock")
    if stock is not None and (stock < 0 or not stock.is_integer()):
        raise BadInputError(f"stock {stock:g} is not a whole number of at least 0")
    return check_item(
        Item(
            item=_text(values, "item") or "",
            title=_text(values, "title") or "",
            category=_text(values, "category") or "",
            brand=_text(values, "brand") or "",
            price=_number(values, "price"),
            stock=None if stock is None else int(stock),
            attributes=dict(_attributes(values)),
            added_ms=_added(values),
        )
    )


def _added(values: Mapping[str, Any]) -> int | None:
    given = values.get("added")
    if given is None or given == "":
        return None
    if isinstance(given, bool) or not isinstance(given, (str, int, float)):
        raise BadInputError(f"added {str(given)[:40]!r} is no time")
    return parse_time(given)


def _attributes(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    given = values.get("attributes")
    if isinstance(given, str) and given:
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise BadInputError("attributes is not JSON") from error
    if given:
        if not isinstance(given, dict):
            raise BadInputError("attributes is not a JSON object")
        yield from given.items()
    for name, value in values.items():
        if name not in _ITEM_COLUMNS and value not in (None, ""):
            yield name, value if isinstance(value, (str, int, float, bool, list, dict)) else str(value)


def _text(values: Mapping[str, Any], name: str) -> str | None:
    """A text, or a whole number written as one; None if there is nothing. Other values are refused."""
    value = values.get(name)
    if isinstance(value, str):
        return value.strip() or None
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():  # what other tools make of a column of ids with gaps
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadInputError(f"{name} {str(value)[:40]!r} is no text")
    return str(value)


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, (bool, bytes, list, dict)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number) or math.isinf(number):
        raise BadInputError(f"{name} {str(value)[:40]!r} is not a number")
    return number
