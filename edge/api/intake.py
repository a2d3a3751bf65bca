"""A stream of events, one a line, taken in piece by piece: what waits to be written is all that is in memory.

The next piece is read when the one before is on disk, so a stream is as fast as the disk, and its sender is held back.
"""

from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any, Final

from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from edge.api.event_bodies import EventIn, read_event, read_lines, to_batch
from edge.api.event_columns import Columns
from edge.api.problems import reason_of
from edge.records.batch import Batch
from edge.serving.service import Service
from protocol.errors import BadInputError, FederationError

LONGEST_LINE: Final = 64 << 10
"""Bytes of a line, at most."""
_MOST_REASONS = 20
_AT_ONCE = 500  # lines parsed without a pause, and written together: about a millisecond
_BOM = b"\xef\xbb\xbf"


class Lines:
    """Pieces of bytes -> whole lines with their numbers; of a line that is too long only that it was there."""

    def __init__(self) -> None:
        self._number = 0
        self._rest = b""
        self._too_long = False

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes | None]]:
        """The lines that are complete now; None: it was too long."""
        *whole, rest = (self._rest + piece).split(b"\n")
        for line in whole:
            self._number += 1
            yield self._number, None if self._too_long or len(line) > LONGEST_LINE else line
            self._too_long = False
        self._too_long = self._too_long or len(rest) > LONGEST_LINE
        self._rest = b"" if self._too_long else rest

    def end(self) -> Iterator[tuple[int, bytes | None]]:
        """The last line, where it has no end of its own."""
        if self._rest or self._too_long:
            yield from self.feed(b"\n")


class Intake:
    """What becomes of one stream."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._added = self._duplicates = self._rejected = 0
        self._reasons: list[dict[str, Any]] = []
        self._lines = Lines()
        self._done = 0

    async def take_all(self, stream: AsyncIterator[bytes]) -> FederationError | None:
        """Write everything; returns why it ended early, if it did."""
        try:
            async for piece in stream:
                await self._take(self._lines.feed(piece))
            await self._take(self._lines.end())
        except ClientDisconnect:
            return BadInputError("the stream was cut off", advice=self._so_far())
        except FederationError as error:
            return type(error)(str(error), advice=self._so_far())
        return None

    def outcome(self) -> dict[str, Any]:
        """How many were added, known already, and refused, and why."""
        counts = {"added": self._added, "duplicates": self._duplicates, "rejected": self._rejected}
        return {**counts, "reasons": self._reasons}

    def _so_far(self) -> str:
        return f"{self._added} events up to line {self._done} are on disk; send the rest again"

    async def _take(self, lines: Iterator[tuple[int, bytes | None]]) -> None:
        while some := list(islice(lines, _AT_ONCE)):
            there = [(number, text) for number, line in some if (text := self._text(number, line))]
            if not there:
                continue
            batch = self._plain([text for _, text in there])
            if batch is not None:
                await self._write(batch)
            else:  # something is not plainly in order
                await self._look_at(there)
            self._done = some[-1][0]

    async def _look_at(self, there: list[tuple[int, bytes]]) -> None:
        """Each line by itself, and those together that are good."""
        good = [event for number, text in there if (event := self._looked_at(number, text)) is not None]
        if good:
            await self._write(self._batch(Columns.of(good)))

    def _text(self, number: int, line: bytes | None) -> bytes:
        if line is None:
            self._refuse(number, f"the line has more than {LONGEST_LINE} bytes")
            return b""
        return line.strip() if number > 1 else line.removeprefix(_BOM).strip()

    def _plain(self, texts: list[bytes]) -> Batch | None:
        columns = read_lines(texts)
        if columns is None or self._service.store.unlisted(columns.items()):
            return None
        try:
            return self._batch(columns)
        except BadInputError:
            return None

    def _looked_at(self, number: int, text: bytes) -> EventIn | None:
        try:
            event = read_event(text)
            one = Columns.of([event])
            for item in self._service.store.unlisted(one.items()):
                self._refuse(number, f"item {item} is not listed")
                return None
            self._batch(one)
        except (ValidationError, BadInputError) as error:
            self._refuse(number, reason_of(error) if isinstance(error, ValidationError) else error.line())
            return None
        return event

    def _batch(self, columns: Columns) -> Batch:
        return to_batch(columns, now_ms=self._service.now_ms(), spare_id=self._service.new_event_id)

    async def _write(self, batch: Batch) -> None:
        outcome = await self._service.add_events(batch)
        self._added += outcome.added
        self._duplicates += outcome.duplicates

    def _refuse(self, number: int, reason: str) -> None:
        self._rejected += 1
        if len(self._reasons) < _MOST_REASONS:
            self._reasons.append({"line": number, "reason": reason})
