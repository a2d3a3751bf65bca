"""What tills said and nobody could take: a file beside the store, for a person to mend and send again.

It holds at most twice so many bytes, the older half in a file of its own. It holds people's events, so it is readable
by its owner alone, and whoever is erased is erased from it, too.
"""

import json
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from edge import durable
from edge.records.events import iso
from edge.tills.messages import Refused
from protocol.errors import NoSpaceError

FILE_NAME: Final = "tills-rejects.jsonl"
MOST_BYTES: Final = 16 << 20
LONGEST: Final = 1 << 20
"""Characters that are kept of what was said."""


class Rejects:
    """The file of one site."""

    def __init__(self, path: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self._older = path.with_name(f"{path.stem}-older{path.suffix}")
        self._most_bytes = most_bytes
        self._turn = threading.Lock()

    def keep(self, refused: Sequence[Refused], *, topic: str, now_ms: int) -> None:
        """Add to the file; on disk when this returns.

        Raises:
            NoSpaceError: the disk does not take it.
        """
        lines = b"".join(_line(one, topic=topic, now_ms=now_ms) for one in refused)
        with self._turn:
            try:
                if self.path.exists() and self.path.stat().st_size + len(lines) > self._most_bytes:
                    self.path.replace(self._older)
                with open(self.path, "ab+", opener=_private) as file:
                    file.write(_newline_before(file) + lines)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise NoSpaceError(
                    f"{self.path} cannot be written: {error.strerror}", advice="free some space"
                ) from error

    def forget(self, people: Iterable[str]) -> None:
        """Take out every line that names one of these users or sessions.

        Raises:
            NoSpaceError: the disk does not take the shorter file; the old one is as it was.
        """
        gone = frozenset(people)
        with self._turn:
            for path in (self.path, self._older):
                lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
                kept = [line for line in lines if not _names(line, gone)]
                if len(kept) < len(lines):
                    try:
                        durable.write(path, b"".join(kept), private=True)
                    except OSError as error:
                        raise NoSpaceError(f"{path} cannot be written: {error.strerror}") from error


def _line(one: Refused, *, topic: str, now_ms: int) -> bytes:
    entry: dict[str, Any] = {"time": iso(now_ms), "topic": topic, "why": one.why, "said": one.said[:LONGEST]}
    if len(one.said) > LONGEST:
        entry["cut"] = len(one.said)
    return json.dumps(entry).encode("ascii", "backslashreplace") + b"\n"


def _names(line: bytes, people: frozenset[str]) -> bool:
    """Does a line name somebody? What is damaged may name anybody: better one line too few."""
    try:
        said = str(json.loads(line)["said"])
    except (ValueError, KeyError, TypeError):
        return True
    try:
        return not people.isdisjoint(_values(json.loads(said)))
    except (ValueError, RecursionError):
        return any(name in said for name in people)


def _values(said: Any) -> Iterator[str]:
    """Every text and number in what was said."""
    if isinstance(said, dict):
        said = list(said.values())
    if isinstance(said, list):
        for one in said:
            yield from _values(one)
    else:
        yield str(said)


def _newline_before(file: IO[bytes]) -> bytes:
    """What a crash has cut in the middle of a line stays a line of its own."""
    if file.seek(0, os.SEEK_END) == 0:
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
