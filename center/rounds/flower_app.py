"""Flower, as the center uses it: translates, decides nothing.

The center needs of Flower a place to put messages and to find replies. For that it submits an empty app of its own to
the SuperLink beside it and takes the run's ServerApp task itself, as Flower's executors do; no app is ever loaded.
Every import of a Flower module that is not public stands in this file and in its counterpart at the edge.
"""

import contextlib
import hashlib
import io
import ssl
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import httpx
import structlog
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.common.constant import Status, SubStatus
from flwr.common.serde import message_from_proto, run_from_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.constant import TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.grid import HttpGrid

from center.rounds.transport import GridTransport, RunLostError, contents
from protocol import transport as wire
from protocol.errors import NotAdmittedError, UnavailableError
from protocol.identity import EdgeId
from protocol.transport import Request

_log = structlog.get_logger()

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_HEARTBEAT_SECONDS = 10.0  # Flower's lease on a task is 60 s
_ACQUIRE_SECONDS = 30.0
_CALL_SECONDS = 30.0
_OBJECTS_SECONDS = 180.0  # Flower's limit on the upload of one reply
_REJECTED = frozenset({httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN, httpx.codes.PRECONDITION_FAILED})
_TURNED_AWAY = "unregistered"
_PROJECT = """\
[project]
name = "center"
version = "1.0.0"
[tool.flwr.app]
publisher = "hanse"
[tool.flwr.app.components]
serverapp = "nothing:app"
clientapp = "nothing:app"
"""


class FlowerCenter:
    """The SuperLink beside the center: which nodes it admits, and the run that carries our messages.

    Args:
        address: ``host:port`` of SuperLink.
        ca_certificate: PEM file of the authority that signed SuperLink's certificate.
        secret: what entitles to execute runs (`center.rounds.superlink.SuperLink.secret`).
    """

    def __init__(self, *, address: str, ca_certificate: Path, secret: bytes) -> None:
        self._url = f"https://{address}"
        self._trust = ssl.create_default_context(cafile=str(ca_certificate))
        self._secret = secret
        self._control = _Control(self._url, trust=self._trust)
        self._grid: _RunGrid | None = None

    def register(self, key: bytes) -> None:
        """Admit a node by its public key (DER of an EC key); twice is as good as once.

        Raises:
            NotAdmittedError: it was turned away before; SuperLink never takes the same key again.
            UnavailableError: SuperLink does not answer.
        """
        if self._node(key) is not None:
            return
        try:
            with _translated():
                self._control.RegisterNode(RegisterNodeRequest(public_key=_pem(key)))
        except RunLostError as error:
            raise NotAdmittedError(
                "SuperLink refuses this node's key", advice="a site that was turned away joins with new keys"
            ) from error

    def unregister(self, key: bytes) -> None:
        """Turn a node away for good.

        Raises:
            UnavailableError: SuperLink does not answer.
        """
        node = self._node(key)
        if node is not None:
            with _translated():
                self._control.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))

    def _node(self, key: bytes) -> NodeInfo | None:
        with _translated():
            nodes = self._control.ListNodes(ListNodesRequest()).nodes_info
        pem = _pem(key)
        # A node that was turned away stays on the list.
        return next((node for node in nodes if node.public_key == pem and node.status != _TURNED_AWAY), None)

    def transport(self, edges: Mapping[EdgeId, bytes], **options: Any) -> GridTransport:
        """Open a run and carry messages on it; when SuperLink loses it, another one takes its place.

        Args:
            edges: DER of the public key of each edge's node.
            options: as `GridTransport` takes them.

        Raises:
            UnavailableError: SuperLink does not answer.
        """
        return GridTransport(self.open_run(), edges=edges, reopen=self.open_run, **options)

    def open_run(self) -> Grid:
        """Start a run, take its ServerApp task and keep it alive. Whatever else runs on this SuperLink is stopped.

        Raises:
            UnavailableError: SuperLink does not answer.
        """
        self._leave_run()
        with _translated():
            self._stop_runs()
            content = _empty_app()
            fab = Fab(hash_str=hashlib.sha256(content).hexdigest(), content=content)
            run_id = self._control.StartRun(StartRunRequest(fab=fab)).run_id
            self._grid = _RunGrid(self._url, trust=self._trust, token=self._acquire(run_id))
        _log.info("run opened", run=run_id)
        return self._grid

    def close(self) -> None:
        """Finish the run, if there is one, and hang up."""
        self._leave_run()
        self._control.close()

    def _leave_run(self) -> None:
        grid, self._grid = self._grid, None
        if grid is not None:
            grid.close()

    def _stop_runs(self) -> None:
        """Messages of an earlier life of this center would still reach the edges; so would a stranger's."""
        for run in self._control.ListRuns(ListRunsRequest()).run_dict.values():
            if run.status.status != Status.FINISHED:
                with contextlib.suppress(httpx.HTTPStatusError):  # it finished meanwhile
                    self._control.StopRun(StopRunRequest(run_id=run.run_id))

    def _acquire(self, run_id: int) -> str:
        """The token of our run's task. Tasks of other runs come first in the queue; they are failed, never executed."""
        secret = SuperExecAuthHttpInterceptor(master_secret=self._secret, protected_methods={_ACQUIRE})
        deadline = time.monotonic() + _ACQUIRE_SECONDS
        with contextlib.closing(_Runtime(self._url, trust=self._trust, interceptor=secret)) as client:
            while time.monotonic() < deadline:
                claim = client.AcquireTask(AcquireTaskRequest(supported_task_types=list(TaskType)))
                if claim.HasField("task") and claim.task.run_id == run_id:
                    return claim.token
                if claim.HasField("task"):
                    self._refuse(claim.token, claim.task.run_id)
                else:
                    time.sleep(0.05)
        raise UnavailableError("SuperLink does not hand out the run it accepted")

    def _refuse(self, token: str, run_id: int) -> None:
        _log.warning("a run that is not ours was refused", run=run_id)
        output = PushTaskOutputRequest(sub_status=SubStatus.FAILED, details="this SuperLink runs nothing but Hanse")
        with contextlib.closing(
            _Runtime(self._url, trust=self._trust, interceptor=RuntimeTokenHttpInterceptor(token))
        ) as client:
            client.PushTaskOutput(output)


class _Control(ControlHttpClient):
    def __init__(self, url: str, *, trust: ssl.SSLContext) -> None:
        super().__init__(url, verify=trust, timeout=_CALL_SECONDS)
        self._client = _straight_client(trust)


class _Runtime(RuntimeHttpClient):
    def __init__(self, url: str, *, trust: ssl.SSLContext, interceptor: ProtobufClientInterceptor) -> None:
        super().__init__(url, interceptors=[interceptor], verify=trust, timeout=_CALL_SECONDS)
        self._client = _straight_client(trust)


def _straight_client(trust: ssl.SSLContext) -> httpx.Client:
    """Without the proxy that the environment may name: SuperLink is on this machine."""
    return httpx.Client(verify=trust, timeout=_CALL_SECONDS, trust_env=False)


class _RunGrid(HttpGrid):
    """Flower's grid over HTTP for one run, for a process that has more to do than this run.

    Flower's own ends the process by a signal when SuperLink says 401, waits out an outage inside a call, and lets one
    slow upload hold up all other replies. Here a call fails at once, and each reply is fetched by itself.
    """

    def __init__(self, url: str, *, trust: ssl.SSLContext, token: str) -> None:
        super().__init__(url, token=token)
        self._client = _Runtime(url, trust=trust, interceptor=RuntimeTokenHttpInterceptor(token))
        self._arriving: dict[str, Future[Message]] = {}
        self._fetchers = ThreadPoolExecutor(max_workers=8, thread_name_prefix="reply")
        self._closed = threading.Event()
        self.set_run(run_from_proto(self._runtime_client.PullTaskInput(PullTaskInputRequest()).run))
        self._heart = threading.Thread(target=self._beat, name="run heartbeat", daemon=True)
        self._heart.start()

    def get_nodes(self) -> Iterable[NodeInfo]:
        with _translated():
            return super().get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        with _translated():
            return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are here in full. Others that have begun to arrive are fetched meanwhile."""
        asked = [message_id for message_id in message_ids if message_id not in self._arriving]
        if asked:
            with _translated():
                found = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=asked))
            for proto, tree in zip(found.messages_list, found.message_object_trees, strict=True):
                head = message_from_proto(proto)
                parts = [branch.object_id for branch in iterate_object_tree(tree)]
                self._arriving[head.metadata.reply_to_message_id] = self._fetchers.submit(self._fetch, head, parts)
        done = [message_id for message_id, reply in self._arriving.items() if reply.done()]
        return [self._arriving.pop(message_id).result() for message_id in done]

    def close(self) -> None:
        """Say that the run is over, if SuperLink is there to hear it."""
        self._closed.set()
        self._fetchers.shutdown(wait=False, cancel_futures=True)
        with contextlib.suppress(httpx.HTTPError):
            self._runtime_client.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.COMPLETED, details=""))
        self._heart.join(timeout=1.0)
        super().close()

    def _connect(self) -> None:
        # Flower's would quietly take up a line of its own again.
        raise RunLostError("this run is over")

    def _beat(self) -> None:
        while not self._closed.wait(_HEARTBEAT_SECONDS):
            # A lost run is found by the next call; here there is nobody to tell. A client that was closed while it
            # waited for an answer says so with a RuntimeError.
            with contextlib.suppress(httpx.HTTPError, RuntimeError):
                self._runtime_client.SendTaskHeartbeat(SendTaskHeartbeatRequest())

    def _fetch(self, head: Message, parts: list[str]) -> Message:
        """A reply with its content; an error reply when an edge began to upload and did not finish."""
        deadline = time.monotonic() + _OBJECTS_SECONDS
        while True:
            try:
                content = self._content(head, parts) if head.has_content() else None
            except ObjectPullError:
                return _with(head, error=Error(code=0, reason="the edge did not finish its upload"))
            except httpx.HTTPError as error:
                if self._closed.wait(0.5) or time.monotonic() > deadline:
                    return _with(head, error=Error(code=0, reason=f"the reply could not be fetched: {error}"))
            except Exception as error:  # what an edge uploads may break Flower's decoder anyhow  # noqa: BLE001
                _log.warning("a reply could not be read", why=repr(error))
                return _with(head, error=Error(code=0, reason="the reply is no message of Flower's"))
            else:
                return _with(head, content=content) if content else head

    def _content(self, head: Message, parts: list[str]) -> RecordDict:
        client, run_id = self._runtime_client, self.run.run_id
        pull = make_pull_object_fn_protobuf(client.PullObject, self.node, run_id)
        pulled = pull_objects(parts, pull, max_time=_OBJECTS_SECONDS, initial_backoff=0.1, backoff_cap=1.0)
        message_id = head.metadata.message_id
        client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self.node, run_id=run_id, message_object_id=message_id)
        )
        return cast("Message", inflate_object_from_contents(message_id, pulled)).content


def _with(head: Message, *, content: RecordDict | None = None, error: Error | None = None) -> Message:
    metadata: Metadata = head.metadata
    return Message(metadata=metadata, content=content, error=error)  # type: ignore[call-overload, no-any-return]


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Flower's and HTTP's errors as ours."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        if error.response.status_code in _REJECTED:
            raise RunLostError("SuperLink refuses the call: the run is over") from error
        raise UnavailableError(f"SuperLink answers with status {error.response.status_code}") from error
    except (httpx.HTTPError, ObjectPushError) as error:
        raise UnavailableError(f"SuperLink does not answer: {error}") from error


def _empty_app() -> bytes:
    """The smallest app that SuperLink accepts: a description that names no code."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("pyproject.toml"), _PROJECT)
    return buffer.getvalue()


def _pem(key: bytes) -> bytes:
    return load_der_public_key(key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def build_server_app(lead: Callable[[Grid, Context], None]) -> ServerApp:
    """A Flower ServerApp for those who run Hanse on somebody else's Flower: hands over the grid and nothing else."""
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        lead(grid, context)

    return server


def _roll_call(grid: Grid, _context: Context) -> None:
    """Ask every node whether it is one of ours. Campaigns are led by `hanse-center`: it has the keys."""
    request = contents(Request(action="roll-call", document=b""))
    messages = [Message(request, node, wire.MESSAGE_TYPE) for node in grid.get_node_ids()]
    for reply in grid.send_and_receive(messages, timeout=30.0):
        _log.info("roll call", node=reply.metadata.src_node_id, here=not reply.has_error())


app = build_server_app(_roll_call)
