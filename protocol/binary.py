"""Reading binary messages: fixed parts, one after the other, and nothing behind them (SPEC 1.2-1.3)."""

import struct
from typing import Self

from protocol.errors import BadInputError, MalformedMessageError
from protocol.identity import EdgeId, edge_id

_LENGTH = struct.Struct("<I")


class Reader:
    """Takes a message apart from its front. What is missing or left over makes it no message of ours."""

    def __init__(self, data: bytes, *, magic: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0
        self._magic = magic
        if self.take(len(magic)) != magic:
            raise MalformedMessageError(f"not a message {magic.decode()}")

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes.

        Raises:
            MalformedMessageError: there are fewer.
        """
        return bytes(self.view(count))

    def view(self, count: int) -> memoryview:
        """Like `take`, without a copy."""
        end = self._at + count
        if end > len(self._data):
            raise MalformedMessageError(f"a message {self._magic.decode()} is cut short")
        part, self._at = self._data[self._at : end], end
        return part

    def number(self) -> int:
        """Four bytes, little-endian."""
        return int(_LENGTH.unpack(self.view(_LENGTH.size))[0])

    def edge(self) -> EdgeId:
        """One byte of length and a name."""
        name = self.take(self.take(1)[0])
        try:
            return edge_id(name.decode("ascii"))
        except (UnicodeDecodeError, BadInputError) as error:
            raise MalformedMessageError(f"a message {self._magic.decode()} names no edge") from error

    def end(self) -> None:
        """Nothing may follow.

        Raises:
            MalformedMessageError: something does.
        """
        if self._at != len(self._data):
            raise MalformedMessageError(f"{len(self._data) - self._at} bytes behind a message {self._magic.decode()}")


class Writer:
    """Puts a message together; the counterpart of `Reader`."""

    def __init__(self, magic: bytes) -> None:
        self._parts: list[bytes | memoryview] = [magic]

    def put(self, part: bytes | memoryview) -> Self:
        self._parts.append(part)
        return self

    def number(self, value: int) -> Self:
        return self.put(_LENGTH.pack(value))

    def edge(self, edge: EdgeId) -> Self:
        name = edge.encode("ascii")
        return self.put(bytes([len(name)]) + name)

    def bytes(self) -> "bytes":
        return b"".join(self._parts)


_PAPERS = b"HPS1"


def join(papers: list[bytes]) -> bytes:
    """Several messages as one: a count, then each with its length in front (SPEC 1.4)."""
    writer = Writer(_PAPERS).number(len(papers))
    for paper in papers:
        writer.number(len(paper)).put(paper)
    return writer.bytes()


def split(data: bytes) -> list[bytes]:
    """Undo `join`.

    Raises:
        MalformedMessageError: not several messages.
    """
    reader = Reader(data, magic=_PAPERS)
    papers = [reader.take(reader.number()) for _ in range(reader.number())]
    reader.end()
    return papers
