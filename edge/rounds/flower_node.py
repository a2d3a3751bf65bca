"""Flower, as an edge uses it: our own node on the Fleet API. Translates, decides nothing.

Flower's node downloads the app of every run it hears of and imports it. This one has no code for that: a message is
handed to the installed ClientApp, whatever run it came from. Every import of a Flower module that is not public stands
in this file and in its counterpart at the center.
"""

import contextlib
import hashlib
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    inflate_object_from_contents,
    pull_objects,
    push_objects,
)
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from protocol import transport as wire
from protocol.errors import FederationError, MalformedMessageError, NotAdmittedError
from protocol.transport import Reply, Request

_log = structlog.get_logger()
_jitter = random.SystemRandom()

HEARTBEAT_INTERVAL = 10.0
"""Seconds, the shortest that SuperLink accepts. It believes in a silent node for two of them."""

_HEARTBEAT_SECONDS = 4.0
_CALL_SECONDS = 20.0
_OBJECTS_SECONDS = 180.0
_SHORTEST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_CENTER_NODE = 1
_CHUNK = 5 << 20  # Flower cuts arrays into pieces of this size
_REJECTED = frozenset({httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN, httpx.codes.PRECONDITION_FAILED})

Answer = Callable[[Request], Reply]


class _RefusedError(Exception):
    """SuperLink does not let this node in now."""


class FlowerNode:
    """A node that outlives its connections.

    Whatever goes wrong on the line ends the session and begins another: joining anew also tells the center that what
    this edge had in hand may be lost, so it is sent again.

    Args:
        gateway_url: ``https://host:port`` of the center's gateway.
        ca_certificate: PEM file of the federation's authority.
        node_key: the EC P-384 key that this node was admitted with.
        app: the installed ClientApp that every message is handed to.
        memory: a file that remembers this node's number, so that a new process can end the session of a crashed one
            instead of waiting until it lapses.
        poll: seconds between two questions for work.
        patience: seconds that the center may turn this node away before it gives up; longer than a lapse.
        largest: bytes of a request that are accepted.
    """

    def __init__(
        self,
        *,
        gateway_url: str,
        ca_certificate: Path,
        node_key: ec.EllipticCurvePrivateKey,
        app: ClientApp,
        memory: Path | None = None,
        poll: float = 0.3,
        patience: float = 60.0,
        largest: int = 256 << 20,
    ) -> None:
        self._url = gateway_url
        self._trust = ssl.create_default_context(cafile=str(ca_certificate))
        self._key = node_key
        self._app = app
        self._memory = memory
        self._poll = poll
        self._patience = patience
        self._largest = largest

    def run(self, stop: threading.Event, *, idle: float | None = None) -> None:
        """Answer messages until told to stop, or until there was none for ``idle`` seconds.

        Raises:
            NotAdmittedError: the center keeps turning this node away.
        """
        worked_at = time.monotonic()
        admitted_at = time.monotonic()
        pause = _SHORTEST_PAUSE_SECONDS
        while not stop.is_set() and not _over(worked_at, idle):
            try:
                with self._session() as session:
                    while not stop.is_set() and not _over(worked_at, idle):
                        if session.work(self._app):
                            worked_at = time.monotonic()
                        else:
                            stop.wait(self._poll)
                        admitted_at, pause = time.monotonic(), _SHORTEST_PAUSE_SECONDS
            except _RefusedError as error:
                if time.monotonic() - admitted_at > self._patience:
                    raise NotAdmittedError(
                        "the center does not let this node in", advice="enroll again, or check this machine's clock"
                    ) from error
            except (httpx.HTTPError, ObjectPullError, ObjectPushError, ValueError) as error:
                _log.warning("connection to the center lost", reason=_line(error))
            else:
                return
            stop.wait(pause * _jitter.uniform(0.5, 1.5))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    @contextlib.contextmanager
    def _session(self) -> Iterator["_Session"]:
        parts = urlsplit(self._url)
        interceptor = NodeAuthHttpInterceptor(self._key, self._key.public_key())
        base = f"https://{parts.netloc}"
        with FleetHttpClient(base, interceptors=[interceptor], verify=self._trust, timeout=_CALL_SECONDS) as client:
            session = _Session(client, node_id=self._activate(client), largest=self._largest)
            try:
                yield session
            except BaseException:
                session.close(leave=False)  # the line that it would be said on is the one that broke
                raise
            session.close(leave=True)

    def _activate(self, client: FleetHttpClient) -> int:
        """Join. A session of ours that SuperLink still believes in is ended first: it would keep us out."""
        known = self._remembered()
        if known is not None:
            with contextlib.suppress(httpx.HTTPStatusError):
                client.DeactivateNode(DeactivateNodeRequest(node_id=known))
        public = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        request = ActivateNodeRequest(public_key=public, heartbeat_interval=HEARTBEAT_INTERVAL)
        try:
            node_id = client.ActivateNode(request).node_id
        except httpx.HTTPStatusError as error:
            if error.response.status_code in _REJECTED:
                raise _RefusedError(_line(error)) from error
            raise
        self._remember(node_id)
        return node_id

    def _remembered(self) -> int | None:
        if self._memory is None or not self._memory.exists():
            return None
        text = self._memory.read_text().strip()
        return int(text) if text.isdecimal() else None

    def _remember(self, node_id: int) -> None:
        if self._memory is not None and self._remembered() != node_id:
            fresh = self._memory.with_suffix(".new")
            fresh.write_text(f"{node_id}\n")
            fresh.replace(self._memory)


def _over(since: float, idle: float | None) -> bool:
    return idle is not None and time.monotonic() - since > idle


class _Session:
    """From joining to leaving: heartbeats in the background, one message at a time."""

    def __init__(self, client: FleetHttpClient, *, node_id: int, largest: int) -> None:
        self._client = client
        self._node = Node(node_id=node_id)
        self._largest = largest
        self._closed = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="node heartbeat", daemon=True)
        self._heart.start()

    def work(self, app: ClientApp) -> bool:
        """Take one message and answer it, if there is one."""
        found = self._client.PullMessages(PullMessagesRequest(node=self._node))
        if not found.messages_list:
            return False
        head = message_from_proto(found.messages_list[0])
        try:
            message = self._fetch(head, found.message_object_trees[0])
        except MalformedMessageError as error:
            self._push(_refusal(head, str(error)))
            return True
        context = Context(
            run_id=head.metadata.run_id,
            node_id=self._node.node_id,
            node_config={},
            state=RecordDict(),
            run_config={},
        )
        self._push(app(message, context))
        _log.info("reply sent")
        return True

    def close(self, *, leave: bool) -> None:
        """Stop the heartbeats, and say so if asked; unsaid, the session ends when the next one begins or it lapses."""
        self._closed.set()
        self._heart.join(timeout=1.0)
        if leave:
            with contextlib.suppress(httpx.HTTPError):
                self._client.DeactivateNode(DeactivateNodeRequest(node_id=self._node.node_id))

    def _beat(self) -> None:
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_INTERVAL)
        while not self._closed.wait(_HEARTBEAT_SECONDS * _jitter.uniform(0.8, 1.2)):
            # A broken line is found by whoever asks for work; training goes on without one. A client that was closed
            # while it waited for an answer says so with a RuntimeError.
            with contextlib.suppress(httpx.HTTPError, RuntimeError):
                self._client.SendNodeHeartbeat(request)

    def _fetch(self, head: Message, tree: ObjectTree) -> Message:
        """The whole message.

        Raises:
            MalformedMessageError: not a request of ours, or too large.
        """
        metadata = head.metadata
        if metadata.message_type != wire.MESSAGE_TYPE or metadata.src_node_id != _CENTER_NODE or head.has_error():
            raise MalformedMessageError("this edge answers requests of its federation only")
        parts = [branch.object_id for branch in iterate_object_tree(tree)]
        if len(parts) > self._largest // _CHUNK + 8:
            raise MalformedMessageError(f"a request of {len(parts)} parts is too large for this edge")
        pull = make_pull_object_fn_protobuf(self._client.PullObject, self._node, metadata.run_id)
        size = 0

        def pull_within_limit(object_id: str) -> bytes:
            nonlocal size
            content = pull(object_id)
            size += len(content)
            if size > self._largest:
                raise MalformedMessageError(f"a request of more than {self._largest} bytes is too large for this edge")
            return content

        pulled = pull_objects(parts, pull_within_limit, max_time=_OBJECTS_SECONDS, initial_backoff=0.1, backoff_cap=1.0)
        self._client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self._node, run_id=metadata.run_id, message_object_id=metadata.message_id
            )
        )
        message = inflate_object_from_contents(metadata.message_id, pulled)
        if not isinstance(message, Message):
            raise MalformedMessageError("this is not a message")
        message.metadata.__dict__["_message_id"] = metadata.message_id
        return message

    def _push(self, reply: Message) -> None:
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            head = message_to_proto(remove_content_from_message(reply))
            answer = self._client.PushMessages(
                PushMessagesRequest(
                    node=self._node,
                    messages_list=[head],
                    message_object_trees=[get_object_tree(reply)],
                    clientapp_runtime_list=[0.0],
                )
            )
            push = make_push_object_fn_protobuf(
                self._client.PushObject, self._node, reply.metadata.run_id, answer.session_id
            )
            push_objects(get_all_nested_objects(reply), push, object_ids_to_push=set(answer.objects_to_push))


def build_client_app(answer: Answer) -> ClientApp:
    """A ClientApp that answers one kind of message: a request of ours, through ``answer``.

    A request that was answered last is answered again with the same bytes, so that asking twice is harmless.
    """
    client = ClientApp()
    answered: dict[bytes, Reply] = {}

    @client.query(wire.MESSAGE_TYPE.removeprefix("query."))
    def query(message: Message, _context: Context) -> Message:
        try:
            request = _request(message.content)
            digest = _digest(request)
            if digest not in answered:
                reply = answer(request)
                answered.clear()
                answered[digest] = reply
            reply = answered[digest]
        except FederationError as error:
            return _refusal(message, str(error))
        except Exception as error:  # one bad round must not end the node  # noqa: BLE001
            # The center learns the kind of the fault; its text may quote a shopper's data, so it stays here.
            _log.exception("a request could not be answered")
            return _refusal(message, f"the edge failed with {type(error).__name__}")
        return _refusal(message, reply.error) if reply.body is None else _told(message, reply.body)

    return client


def _request(content: RecordDict) -> Request:
    """Decode, refusing anything that the center would not have written.

    Raises:
        MalformedMessageError: other records, keys or types.
    """
    config = content.get(wire.REQUEST)
    if (
        not set(content) <= {wire.REQUEST, wire.WEIGHTS}
        or not isinstance(config, ConfigRecord)
        or set(config) != {wire.FORMAT, wire.ACTION, wire.DOCUMENT, wire.PAPERS}
        or config[wire.FORMAT] != wire.FORMAT_VERSION
    ):
        raise MalformedMessageError("the request holds other records than ours")
    action, document, papers = config[wire.ACTION], config[wire.DOCUMENT], config[wire.PAPERS]
    if not isinstance(action, str) or not isinstance(document, bytes) or not isinstance(papers, bytes):
        raise MalformedMessageError("the request's action, document or papers are not of their type")
    weights = _weights(content[wire.WEIGHTS]) if wire.WEIGHTS in content else b""
    return Request(action=action, document=document, papers=papers, weights=weights)


def _weights(record: object) -> bytes:
    if not isinstance(record, ArrayRecord) or set(record) != {wire.BYTES}:
        raise MalformedMessageError("the request holds other records than ours")
    array = record[wire.BYTES]
    if (array.dtype, tuple(array.shape), array.stype) != (wire.DTYPE, (len(array.data),), wire.STYPE):
        raise MalformedMessageError("the request's weights are not in our form")
    return array.data


def _digest(request: Request) -> bytes:
    parts = (request.action.encode(), request.document, request.papers, request.weights)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


def _told(message: Message, body: bytes) -> Message:
    if len(body) <= wire.SHORT:
        return Message(RecordDict({wire.REPLY: ConfigRecord({wire.BYTES: body})}), reply_to=message)
    array = Array(wire.DTYPE, (len(body),), wire.STYPE, body)
    return Message(RecordDict({wire.REPLY: ArrayRecord({wire.BYTES: array})}), reply_to=message)


def _refusal(message: Message, reason: str | None) -> Message:
    return Message(Error(code=wire.REFUSED, reason=(reason or "refused").splitlines()[0]), reply_to=message)


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _roll_call(request: Request) -> Reply:
    """What an edge answers outside `hanse-edge`: that it is there. It has no shoppers to learn from."""
    if request.action != "roll-call":
        return Reply(error=f"nobody is here to answer {request.action!r}: rounds are answered by hanse-edge")
    return Reply(body=b"here")


app = build_client_app(_roll_call)
