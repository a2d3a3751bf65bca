"""``python -m simulation.bench.follower``: one site of the road's benchmarks, in a process of its own.

It is told on standard input what to be next, one JSON object a line: an edge that brings the newest release onto its
disk with the edge's own `Sync`, or a bare MQTT client that counts bytes. It answers on standard output when it listens,
and once more when all has arrived, with the time of the clock that all processes of a machine share, and with the
processor time that it took.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt

from edge import settings
from edge.keys import Keys, load_public
from edge.releases.connection import BrokerAccess
from edge.releases.fetching import Offered
from edge.releases.renewal import PAIR
from edge.releases.sync import Hearing, Sync, Trust
from protocol.errors import FederationError, UnavailableError
from protocol.identity import EdgeId, edge_id, federation_id
from protocol.release import Ring, offered_to
from simulation.bench import bare

_SECONDS = 120.0
_CONNECT_SECONDS = 30.0
_QOS = 1


def count(order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Be a bare client: subscribe to these topics and count until so many bytes have come."""
    access, counter = _access(Path(order["site"])), _Counter(order["bytes"])
    client = bare.client(access.tls())
    began, worked = time.monotonic(), time.process_time()
    with counter.listening(client, access, order["topics"]):
        yield {"listens": True}
        finished, worked = counter.wait(), time.process_time() - worked
    yield {"began": began, "finished": finished, "cpu": worked, "bytes": counter.arrived}


def follow(order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Be an edge: fetch the newest release as soon as there is one, into ``folder``, beside what lies in ``known``."""
    site, folder, heard = Path(order["site"]), Path(order["folder"]), threading.Event()
    known = [Path(place) for place in order.get("known", ())]
    sync = _sync(site, folder, heard, port=order.get("port"))
    began, worked = time.monotonic(), time.process_time()
    sync.start()
    try:
        while (offered := _offered(sync, heard, edge=edge_id(site.name))) is None:
            yield {"listens": True}
        fetched = sync.fetch(offered, known=known)
        finished, worked = time.monotonic(), time.process_time() - worked
    finally:
        sync.stop()
    yield {"began": began, "finished": finished, "cpu": worked, "directory": str(fetched.directory)}


@dataclass(slots=True)
class _Counter:
    """Counts what a bare paho client receives.

    Attributes:
        expected: bytes after which it has everything.
    """

    expected: int
    arrived: int = 0
    finished: float = 0.0
    _done: threading.Event = field(default_factory=threading.Event)
    _subscribed: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def listening(self, client: mqtt.Client, access: BrokerAccess, topics: Sequence[str]) -> Iterator[None]:
        """Connected and subscribed."""

        def subscribe(*_: Any) -> None:
            client.subscribe([(topic, _QOS) for topic in topics])

        client.on_connect = subscribe
        client.on_subscribe = lambda *_: self._subscribed.set()
        client.on_message = self._take
        client.connect(access.host, access.port)
        client.loop_start()
        try:
            if not self._subscribed.wait(_CONNECT_SECONDS):
                raise UnavailableError(f"{access} did not answer")
            yield
        finally:
            client.disconnect()
            client.loop_stop()

    def wait(self) -> float:
        """When the last byte came."""
        if not self._done.wait(_SECONDS):
            raise UnavailableError(f"{self.arrived} of {self.expected} bytes arrived")
        return self.finished

    def _take(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        self.arrived += len(message.payload)
        if self.arrived >= self.expected and not self._done.is_set():
            self.finished = time.monotonic()
            self._done.set()


def _sync(site: Path, folder: Path, heard: threading.Event, *, port: int | None) -> Sync:
    told = settings.load(site)
    return Sync(
        _access(site, port=port),
        federation=federation_id(told.site.federation),
        edge=edge_id(told.site.name),
        trust=Trust(
            center_key=load_public(site / "trust" / "center.pub"),
            sealing_key=Keys.load(site / "keys").seal,
            root=(site / "trust" / "root.json").read_bytes(),
        ),
        hearing=Hearing(
            on_wake=lambda _wake: None,
            on_release_available=heard.set,
            on_trouble=lambda error: print(error.line(), file=sys.stderr),  # noqa: T201 - into this process's log
        ),
        folder=folder,
    )


def _offered(sync: Sync, heard: threading.Event, *, edge: EdgeId) -> Offered | None:
    """What this edge is offered once it has heard of new metadata."""
    if not heard.wait(_SECONDS):
        raise UnavailableError("no release was heard of")
    heard.clear()
    newest = sync.newest()
    offers = [bundle.offer for bundle in newest.bundles.values()]
    offer = offered_to(offers, ring=Ring.ALL, edge=edge, reach=newest.pace)
    return newest.bundles[offer.target] if offer else None


def _access(site: Path, *, port: int | None = None) -> BrokerAccess:
    center = settings.load(site).tied()
    return BrokerAccess(
        host=center.broker_host,
        port=port or center.broker_port,
        authority=site / "trust" / "ca.crt",
        certificate=site / PAIR,
        key=site / PAIR,
    )


_DUTIES = {"count": count, "follow": follow}


def main() -> None:
    """Do what each line says until there are no more."""
    for line in sys.stdin:
        order = json.loads(line)
        try:
            for answer in _DUTIES[order["be"]](order):
                print(json.dumps(answer), flush=True)  # noqa: T201 - to the process that started us
        except (FederationError, OSError) as error:
            print(json.dumps({"failed": f"{type(error).__name__}: {error}"}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
