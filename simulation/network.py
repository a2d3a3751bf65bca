"""A Flower grid in this process: the same ServerApp, ClientApp and round loop, without ports, processes or Ray."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from protocol.identity import EdgeId

_RUN = 1
_FIRST_NODE = 2  # 1 is the center's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A virtual edge: DER of its node's public key, and its installed app."""

    key: bytes
    app: ClientApp


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """What Flower tells of a node, as far as the transport reads it."""

    node_id: int
    public_key: bytes
    last_activated_at: str


class InProcessGrid(Grid):
    """Runs each message's app when its reply is asked for.

    Args:
        sites: the edges that are online.
        delivers: whether the message with this number, counted from 0, reaches its edge; a lost one is never answered.
    """

    def __init__(self, sites: Mapping[EdgeId, Site], *, delivers: Callable[[int], bool] = lambda _number: True) -> None:
        self._delivers = delivers
        self._count = itertools.count()
        self._waiting: dict[str, Message] = {}
        self._apps: dict[int, ClientApp] = {}
        self._nodes: list[_Node] = []
        for number, site in enumerate(sites.values(), start=_FIRST_NODE):
            pem = load_der_public_key(site.key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            self._nodes.append(_Node(node_id=number, public_key=pem, last_activated_at="once"))
            self._apps[number] = site.app

    def set_run(self, run: Any) -> None:
        raise NotImplementedError("a grid in this process has one run")

    @property
    def run(self) -> Any:
        return SimpleNamespace(run_id=_RUN)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> list[int]:
        return list(self._apps)

    def get_nodes(self) -> Iterable[Any]:
        return self._nodes

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        numbers = []
        for message in messages:
            number = next(self._count)
            message.metadata.__dict__["_message_id"] = str(number)
            if self._delivers(number):
                self._waiting[str(number)] = message
            numbers.append(str(number))
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        taken = [self._waiting.pop(message_id) for message_id in message_ids if message_id in self._waiting]
        return [self._answer(message) for message in taken]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        del timeout  # nothing here takes time that waiting could shorten
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        context = Context(run_id=_RUN, node_id=node, node_config={}, state=RecordDict(), run_config={})
        return self._apps[node](message, context)
