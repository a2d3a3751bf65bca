"""What travels between center and edge in a round, whoever carries it (SPEC 7).

The carrier is Flower today. It sees bytes: what they mean is said in `protocol.messages`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from protocol.identity import EdgeId

MESSAGE_TYPE = "query.hanse"
"""The one Flower message type that an edge answers."""

# The records and keys of a Flower message. A request is {REQUEST: config}, with {WEIGHTS: array} if there are weights;
# a reply is {REPLY: array}, or {REPLY: config} up to SHORT bytes, since Flower carries arrays in requests of their own.
# An array holds its bytes as given, in one entry named BYTES of data type DTYPE and serialization STYPE.
REQUEST = "request"
WEIGHTS = "weights"
REPLY = "reply"
FORMAT = "format"
ACTION = "action"
DOCUMENT = "document"
PAPERS = "papers"
BYTES = "bytes"
DTYPE = "uint8"
STYPE = "hanse/1"
SHORT = 1 << 16
FORMAT_VERSION = 2

REFUSED = 100
"""Flower error code of an edge that read the request and refuses; its reason is one line for a person."""


class Action(StrEnum):
    """What the center can ask: the three steps of an epoch, the three of a round, the two of giving one up."""

    PREKEY = "prekey"
    DEAL_ROOTS = "deal-roots"
    KEEP_ROOTS = "keep-roots"
    MASKED_UPDATE = "masked-update"
    SIGN_SURVIVORS = "sign-survivors"
    UNMASK = "unmask"
    ABANDON = "abandon"
    REOPEN = "reopen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the center asks of one edge.

    Attributes:
        action: an `Action`, as text: an edge may be older than the center.
        document: signed by the center: the call to an epoch, the announcement or the survivor set.
        papers: what other edges have signed or sealed, handed on.
        weights: the weights to start from, in the encoding that the announcement's digest is over; may be empty.
    """

    action: str
    document: bytes
    papers: bytes = b""
    weights: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What one edge answers: a body, or one line that says why there is none."""

    body: bytes | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        if (self.body is None) == (self.error is None):
            raise ValueError("a reply has either a body or an error")


class Transport(Protocol):
    """Carries requests and replies. It may deliver twice, late, or never; the caller owns the deadline."""

    def send(self, requests: Mapping[EdgeId, Request]) -> None:
        """Ask these edges. A new request to an edge replaces an unanswered one; an edge that is away gets it later."""

    def receive(self, *, timeout: float) -> list[tuple[EdgeId, Reply]]:
        """Whatever came in: as soon as there is something, or nothing after ``timeout`` seconds.

        Raises:
            UnavailableError: the carrier has been away for longer than it may.
        """

    def online(self) -> frozenset[EdgeId]:
        """Which edges could take a request now.

        Raises:
            UnavailableError: the carrier does not answer.
        """

    def forget(self) -> None:
        """Wait for nobody any more: the round is over."""
