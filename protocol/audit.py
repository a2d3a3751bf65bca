"""A log that cannot be rewritten unseen: each entry names the digest of the one before (SPEC 9.13).

Whoever holds a later digest (an edge is told it under signed metadata) holds everything before it to its word.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from protocol import canonical
from protocol.errors import MalformedMessageError, UntrustedError
from protocol.sealing import digest

GENESIS = "0" * 64
"""What the first entry names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that happened.

    Attributes:
        seq: counts up by one from 1.
        time_ms: UTC, by the writer's clock.
        kind: what happened, in a word or two: ``release signed``.
        facts: JSON values by name.
        previous: digest of the entry before, hexadecimal.
    """

    seq: int
    time_ms: int
    kind: str
    facts: Mapping[str, Any]
    previous: str

    @property
    def digest(self) -> str:
        return digest(self.to_bytes())

    @classmethod
    def after(cls, last: Self | None, *, time_ms: int, kind: str, facts: Mapping[str, Any]) -> Self:
        """The entry that follows; the first one follows None."""
        return cls(
            seq=last.seq + 1 if last else 1,
            time_ms=time_ms,
            kind=kind,
            facts=dict(facts),
            previous=last.digest if last else GENESIS,
        )

    def to_bytes(self) -> bytes:
        return canonical.encode(
            {
                "seq": self.seq,
                "time_ms": self.time_ms,
                "kind": self.kind,
                "facts": dict(self.facts),
                "previous": self.previous,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode, refusing anything ``to_bytes`` would not have written.

        Raises:
            MalformedMessageError: not an entry.
        """
        match canonical.decode(data):
            case {
                "seq": int(seq),
                "time_ms": int(time_ms),
                "kind": str(kind),
                "facts": dict(facts),
                "previous": str(previous),
                **rest,
            } if not rest:
                return cls(seq=seq, time_ms=time_ms, kind=kind, facts=facts, previous=previous)
            case _:
                raise MalformedMessageError("not an entry of an audit log")


def check_chain(entries: Iterable[Entry], *, head: str | None = None) -> str:
    """Does each entry follow from the one before, from the first on?

    Args:
        head: a digest that was noted elsewhere and must be among them.

    Returns:
        The digest of the last one; `GENESIS` where there is none.

    Raises:
        UntrustedError: an entry was changed, removed or put in; says which.
    """
    previous, seen = GENESIS, {GENESIS}
    for seq, entry in enumerate(entries, start=1):
        if entry.seq != seq or entry.previous != previous:
            raise UntrustedError(
                f"entry {seq} of the audit log does not follow from the one before",
                advice="compare it with a backup; somebody has changed it",
            )
        previous = entry.digest
        seen.add(previous)
    if head is not None and head not in seen:
        raise UntrustedError(
            f"the audit log does not hold entry {head[:12]}, which was noted elsewhere",
            advice="compare it with a backup; somebody has rewritten it",
        )
    return previous
