"""Rounds in flight and rounds given up, on disk: what a center must know to go on where it was killed (SPEC 6.11, 8).

Nothing secret stands here: announcements and survivor sets that edges have been told, abandonments they have signed,
and sums under their masks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from center import durable
from protocol import canonical
from protocol.announcement import Announcement
from protocol.binary import Reader, Writer
from protocol.errors import MalformedMessageError
from protocol.identity import EdgeId, Roster
from protocol.messages import DIGEST_BYTES, Survivors
from protocol.secure_sum import Phase, Round
from protocol.unmasking import Dealing

_CHECKPOINT = b"HRC1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A round that edges have heard of.

    Attributes:
        document: the signed announcement.
        survivors: the set that was named, or None.
    """

    document: bytes
    survivors: Survivors | None = None

    def open(self, key: Ed25519PublicKey) -> Announcement:
        """The announcement; the signature is our own."""
        return Announcement.open(self.document, key=key)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp:
    """A round that was lost.

    Attributes:
        abandonments: what its edges have signed, by edge.
        reopened: edges that have seen enough of them, and may be asked the same again.
    """

    document: bytes
    abandonments: dict[EdgeId, bytes]
    reopened: frozenset[EdgeId] = frozenset()

    def with_answers(self, abandonments: dict[EdgeId, bytes], reopened: Iterable[EdgeId]) -> "GivenUp":
        return replace(
            self,
            abandonments={**self.abandonments, **abandonments},
            reopened=self.reopened | frozenset(reopened),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """How far the center has come with one question.

    Attributes:
        name: what is asked: the purpose, and the weights or the window it is about.
        rounds: in flight.
        given_up: rounds that asked the same before.
        opened: some edge may have helped to open a lost one, so the question may have no answer any more (SPEC 8.2).
    """

    name: str
    rounds: tuple[Announced, ...] = ()
    given_up: tuple[GivenUp, ...] = ()
    opened: bool = False

    def save(self, path: Path) -> None:
        durable.write(path, canonical.encode(self._to_json()))

    def _to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "opened": self.opened,
            "rounds": [
                {
                    "document": one.document.decode(),
                    "survivors": list(one.survivors.edges) if one.survivors else None,
                    "digest": one.survivors.announcement.hex() if one.survivors else "",
                }
                for one in self.rounds
            ],
            "given_up": [
                {
                    "document": one.document.decode(),
                    "abandonments": {edge: paper.hex() for edge, paper in one.abandonments.items()},
                    "reopened": sorted(one.reopened),
                }
                for one in self.given_up
            ],
        }

    @classmethod
    def load(cls, path: Path) -> "Question | None":
        """The question that was asked last, if there was one.

        Raises:
            MalformedMessageError: the file is damaged.
        """
        if not path.exists():
            return None
        value = canonical.decode(path.read_bytes())
        try:
            name, opened = str(value["name"]), bool(value.get("opened", False))
            rounds = tuple(_announced(one) for one in value["rounds"])
            given_up = tuple(_given_up(one) for one in value["given_up"])
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedMessageError(f"{path} does not tell which rounds are in flight") from error
        return cls(name=name, rounds=rounds, given_up=given_up, opened=opened)

    def named(self, survivors: Survivors) -> "Question":
        """The same, with one more survivor set."""

        def fill(one: Announced, digest: bytes) -> Announced:
            return replace(one, survivors=survivors) if digest == survivors.announcement else one

        return replace(self, rounds=tuple(fill(one, _digest(one)) for one in self.rounds))

    def lost(self, documents: Sequence[bytes]) -> "Question":
        """The same, with these given up."""
        gone = frozenset(documents)
        more = tuple(GivenUp(document=document, abandonments={}) for document in documents)
        left = tuple(one for one in self.rounds if one.document not in gone)
        return replace(self, rounds=left, given_up=self.given_up + more)


def save_round(round_: Round, path: Path) -> None:
    """Keep the masked sum and what was dealt: from here on a round needs any t survivors, not each one's update again.

    Args:
        round_: whose survivors have just been named.
    """
    writer = Writer(_CHECKPOINT).put(round_.announcement.digest()).number(len(round_.total))
    writer.put(round_.total.astype("<u4", copy=False).tobytes()).number(len(round_.dealings))
    for edge, dealing in sorted(round_.dealings.items()):
        writer.edge(edge).put(b"".join(dealing.commitments)).number(len(dealing.sealed)).put(dealing.sealed)
    durable.write(path, writer.bytes())


def load_round(path: Path, announcement: Announcement, *, roster: Roster, survivors: Survivors) -> Round | None:
    """The round as it was saved, waiting for signatures; None if it was not saved, or is another one."""
    if not path.exists():
        return None
    try:
        reader = Reader(path.read_bytes(), magic=_CHECKPOINT)
        digest = reader.take(DIGEST_BYTES)
        total = np.frombuffer(reader.take(4 * reader.number()), dtype="<u4")
        dealings = {}
        for _ in range(reader.number()):
            edge = reader.edge()
            commitments = tuple(reader.take(DIGEST_BYTES) for _ in range(announcement.edges))
            dealings[edge] = Dealing(commitments=commitments, sealed=reader.take(reader.number()))
        reader.end()
    except MalformedMessageError:
        return None
    if digest != announcement.digest() or tuple(dealings) != survivors.edges:
        return None
    begun = Round.announce(announcement, roster=roster, survivors=survivors)
    return replace(begun, phase=Phase.SIGNING, total=total, dealings=MappingProxyType(dealings))


def _digest(one: Announced) -> bytes:
    return Announcement.from_json(canonical.decode(one.document)["content"]).digest()


def _announced(value: dict[str, Any]) -> Announced:
    edges = value["survivors"]
    survivors = None
    if edges is not None:
        digest = bytes.fromhex(value["digest"])
        survivors = Survivors(announcement=digest, edges=tuple(EdgeId(edge) for edge in edges))
    return Announced(document=value["document"].encode(), survivors=survivors)


def _given_up(value: dict[str, Any]) -> GivenUp:
    return GivenUp(
        document=value["document"].encode(),
        abandonments={EdgeId(edge): bytes.fromhex(paper) for edge, paper in value["abandonments"].items()},
        reopened=frozenset(EdgeId(edge) for edge in value["reopened"]),
    )
