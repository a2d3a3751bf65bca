"""The protocol's transport on a Flower grid: short polls, requests held until their edge is there, late replies too.

Only Flower's public classes are used here, so that the same transport runs on SuperLink and in one process.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, Metadata, RecordDict
from flwr.serverapp import Grid

from protocol import transport as wire
from protocol.errors import MalformedMessageError, UnavailableError
from protocol.identity import EdgeId
from protocol.transport import Reply, Request

_CENTER_NODE = 1  # Flower's number for whoever speaks for the SuperLink
_NODE_UNAVAILABLE = 5  # Flower's error code for a node whose heartbeats stopped
_ROLL_CALL_SECONDS = 0.5
T = TypeVar("T")


class RunLostError(UnavailableError):
    """SuperLink answers, but no longer knows our run: it has to be opened again."""


@dataclass(slots=True)
class _Errand:
    """One request on its way.

    Attributes:
        message: Flower's id of it, or None while its edge is away.
        activation: when its edge last joined, as SuperLink knew it when the message was handed over.
        lost_at: on our clock, when the edge went away with the message in hand.
    """

    request: Request
    message: str | None = None
    activation: str = ""
    lost_at: float | None = None


class GridTransport:
    """Sends requests to edges and collects replies.

    Flower delivers a message at most once: what an edge had in hand when it crashed, or what a cut line swallowed, is
    gone. So a request is sent again whenever its edge joined anew since, and the edge knows a request it has answered.

    Args:
        grid: where messages are pushed and pulled.
        edges: DER of the public key each edge's Flower node authenticates with.
        reopen: opens a new run when SuperLink lost ours.
        patience: seconds that an edge may be away with a request in hand before it counts as vanished.
        outage: seconds that SuperLink may be away before a caller has to know.
        poll: seconds between two looks.
        time_to_live: seconds after which Flower drops an undelivered request.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        edges: Mapping[EdgeId, bytes],
        reopen: Callable[[], Grid] | None = None,
        patience: float = 5.0,
        outage: float = 30.0,
        poll: float = 0.2,
        time_to_live: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grid = grid
        self._reopen = reopen
        self._patience = patience
        self._outage = outage
        self._heard_at = clock()
        self._poll = poll
        self._time_to_live = time_to_live
        self._clock = clock
        self._errands: dict[EdgeId, _Errand] = {}
        self._nodes: dict[EdgeId, Any] = {}
        self._called_at = float("-inf")
        self._edges: dict[bytes, EdgeId] = {}
        self.enlist(edges)

    def enlist(self, edges: Mapping[EdgeId, bytes]) -> None:
        """From now on these are the edges."""
        self._edges = {_pem(key): edge for edge, key in edges.items()}
        self._called_at = float("-inf")

    def send(self, requests: Mapping[EdgeId, Request]) -> None:
        """Ask these edges; `receive` does the carrying. An unanswered earlier request to an edge is replaced."""
        self._errands |= {edge: _Errand(request=request) for edge, request in requests.items()}

    def receive(self, *, timeout: float) -> list[tuple[EdgeId, Reply]]:
        """Carry on until a reply is there or ``timeout`` seconds are over.

        Raises:
            UnavailableError: SuperLink has not answered for longer than an outage may last.
        """
        deadline = self._clock() + timeout
        while True:
            try:
                replies = self._with_run(self._turn)
                self._heard_at = self._clock()
            except UnavailableError:
                replies = []
                if self._clock() - self._heard_at > self._outage:
                    raise
            if replies or self._clock() >= deadline:
                return replies
            time.sleep(min(self._poll, max(0.0, deadline - self._clock())))

    def online(self) -> frozenset[EdgeId]:
        """The edges whose nodes send heartbeats.

        Raises:
            UnavailableError: SuperLink does not answer.
        """
        self._called_at = float("-inf")
        self._with_run(self._call_roll)
        return frozenset(self._nodes)

    def forget(self) -> None:
        """Wait for nobody any more."""
        self._errands = {}

    def _turn(self) -> list[tuple[EdgeId, Reply]]:
        self._call_roll()
        self._hand_over()
        return self._collect() + self._give_up()

    def _with_run(self, step: Callable[[], T]) -> T:
        try:
            return step()
        except RunLostError:
            if self._reopen is None:
                raise
            self._grid = self._reopen()
            for errand in self._errands.values():
                errand.message = None  # it went down with its run
            return step()

    def _call_roll(self) -> None:
        if self._clock() - self._called_at < _ROLL_CALL_SECONDS:
            return
        nodes: Iterable[Any] = self._grid.get_nodes()
        self._nodes = {self._edges[node.public_key]: node for node in nodes if node.public_key in self._edges}
        self._called_at = self._clock()

    def _hand_over(self) -> None:
        """Push what waits for an edge that is online, and what an edge may have lost when it joined anew."""
        ready = {
            edge: errand
            for edge, errand in self._errands.items()
            if edge in self._nodes
            and (errand.message is None or errand.activation != self._nodes[edge].last_activated_at)
        }
        if not ready:
            return
        # Equal weights are one record, which is hashed and travels to SuperLink once.
        weights = {errand.request.weights: _array(errand.request.weights) for errand in ready.values()}
        messages = [
            self._message(self._nodes[edge].node_id, contents(errand.request, weights[errand.request.weights]))
            for edge, errand in ready.items()
        ]
        for (edge, errand), message_id in zip(ready.items(), self._grid.push_messages(messages), strict=True):
            errand.message = message_id or None
            errand.activation = self._nodes[edge].last_activated_at
            errand.lost_at = None

    def _message(self, node: int, content: RecordDict) -> Message:
        # The keyword is there for Flower's own use: the usual way reads the run from a variable of the whole process,
        # and two federations in one process would take each other's.
        metadata = Metadata(
            run_id=self._grid.run.run_id,
            message_id="",
            src_node_id=_CENTER_NODE,
            dst_node_id=node,
            reply_to_message_id="",
            group_id="",
            created_at=time.time(),
            ttl=self._time_to_live,
            message_type=wire.MESSAGE_TYPE,
        )
        return Message(content=content, metadata=metadata)  # type: ignore[call-overload, no-any-return]

    def _collect(self) -> list[tuple[EdgeId, Reply]]:
        waiting = {errand.message: edge for edge, errand in self._errands.items() if errand.message}
        if not waiting:
            return []
        replies = []
        for message in self._grid.pull_messages(list(waiting)):
            edge = waiting.get(message.metadata.reply_to_message_id)
            if edge is None:
                continue
            if message.has_error() and message.error.code == _NODE_UNAVAILABLE:
                self._errands[edge].message = None
                self._errands[edge].lost_at = self._clock()
                self._nodes.pop(edge, None)
                continue
            # Polling an answered id yields an error, so each is dropped as soon as it is answered.
            del self._errands[edge]
            replies.append((edge, _reply(message)))
        return replies

    def _give_up(self) -> list[tuple[EdgeId, Reply]]:
        vanished = [
            edge
            for edge, errand in self._errands.items()
            if errand.lost_at is not None and self._clock() - errand.lost_at > self._patience
        ]
        for edge in vanished:
            del self._errands[edge]
        return [(edge, Reply(error="the edge went away while it had the request")) for edge in vanished]


def contents(request: Request, weights: ArrayRecord | None = None) -> RecordDict:
    """A request as Flower's records; ``weights`` saves making the same record once for each edge."""
    config = ConfigRecord(
        {
            wire.FORMAT: wire.FORMAT_VERSION,
            wire.ACTION: request.action,
            wire.DOCUMENT: request.document,
            wire.PAPERS: request.papers,
        }
    )
    records: dict[str, ArrayRecord | ConfigRecord] = {wire.REQUEST: config}
    if request.weights:
        records[wire.WEIGHTS] = _array(request.weights) if weights is None else weights
    return RecordDict(records)  # type: ignore[arg-type]


def _array(data: bytes) -> ArrayRecord:
    array = Array(wire.DTYPE, (len(data),), wire.STYPE, data)
    return ArrayRecord({wire.BYTES: array})


def _reply(message: Message) -> Reply:
    """What a message from an edge says; one that says nothing of ours is an error of that edge."""
    if message.has_error():
        return Reply(error=(message.error.reason or f"error {message.error.code}").splitlines()[0])
    try:
        return Reply(body=_body(message.content))
    except MalformedMessageError as error:
        return Reply(error=str(error))


def _body(content: RecordDict) -> bytes:
    record = content.get(wire.REPLY)
    if set(content) == {wire.REPLY} and isinstance(record, ConfigRecord) and set(record) == {wire.BYTES}:
        body = record[wire.BYTES]
        if isinstance(body, bytes) and len(body) <= wire.SHORT:
            return body
    if set(content) != {wire.REPLY} or not isinstance(record, ArrayRecord) or set(record) != {wire.BYTES}:
        raise MalformedMessageError("the reply holds other records than ours")
    array = record[wire.BYTES]
    if (array.dtype, tuple(array.shape), array.stype) != (wire.DTYPE, (len(array.data),), wire.STYPE):
        raise MalformedMessageError("the reply's bytes are not in our form")
    return array.data


def _pem(key: bytes) -> bytes:
    return load_der_public_key(key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
