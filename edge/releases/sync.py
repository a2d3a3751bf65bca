"""The edge's ear on MQTT: rounds, content key, releases; and its voice: what it runs.

Translates, decides nothing. Signatures of the center are checked here, because what is not signed was not said.
"""

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.releases.assembly import Fetched
from edge.releases.connection import BrokerAccess, Connection
from edge.releases.content_keys import ContentKeys
from edge.releases.fetching import Newest, Offered, Releases
from edge.releases.retained import Pace
from protocol import canonical
from protocol.errors import FederationError, UnavailableError
from protocol.identity import EdgeId, FederationId, Label, open_document
from protocol.sealing import SealingKey, open_content_key
from protocol.topics import Topics

_CLOSE_SECONDS = 2.0
_HEARD = 64
_LISTEN_AGAIN_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What an edge believes the center by.

    Attributes:
        center_key: signs wakes and content keys.
        sealing_key: opens this edge's content key.
        root: the TUF root.
    """

    center_key: Ed25519PublicKey
    sealing_key: SealingKey
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearing:
    """Who is told what. Called one at a time on a thread of `Sync`, which waits meanwhile: return soon.

    Attributes:
        on_wake: content of a wake signed by the center.
        on_release_available: there are newer release metadata than this process has heard of.
        on_trouble: something arrived that cannot be believed.
    """

    on_wake: Callable[[Mapping[str, Any]], None]
    on_release_available: Callable[[], None]
    on_trouble: Callable[[FederationError], None]


class Sync:
    """One edge's road to the center. Runs with and without a broker."""

    def __init__(
        self,
        access: BrokerAccess,
        *,
        federation: FederationId,
        edge: EdgeId,
        trust: Trust,
        hearing: Hearing,
        folder: Path,
        pace: Pace | None = None,
        report_seconds: float = 5.0,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            folder: the edge's own; ``tuf/`` and ``blocks/`` are made in it.
            report_seconds: statuses are sent no more often than this.
        """
        self._federation, self._edge, self._trust, self._hearing = federation, edge, trust, hearing
        self._topics = Topics(federation)
        offline = _status(edge, online=False, facts={})
        self._connection = Connection(
            access,
            client_id=f"{edge}-{secrets.token_hex(8)}",  # unlike any other's: nobody can push this edge out by guessing
            will=(self._topics.status(edge), offline),
        )
        self._offline = offline
        self._pace = pace or Pace()
        self._keys = ContentKeys()
        self._releases = Releases(
            self._connection, topics=self._topics, keys=self._keys, root=trust.root, folder=folder, pace=self._pace
        )
        self._heard: Queue[Callable[[], None]] = Queue(_HEARD)
        self._timestamp = b""
        self._report_seconds = report_seconds
        self._facts: dict[str, Any] | None = None
        self._due = threading.Event()
        self._stopping = threading.Event()
        self._fetching = threading.Lock()
        self._ear = threading.Thread(target=self._tell, name="sync-ear", daemon=True)
        self._voice = threading.Thread(target=self._speak, name="sync-voice", daemon=True)

    def start(self) -> None:
        """Begin to listen; connects in the background for as long as it takes."""
        self._connection.on_up(self._due.set)
        listened = {
            self._topics.key(self._edge): self._take_key,
            self._topics.round: self._take_wake,
            self._topics.tuf("timestamp.json"): self._take_timestamp,
        }
        for topic, act in listened.items():
            self._connection.listen(topic, self._later(act))
        self._connection.start()
        self._ear.start()
        self._voice.start()

    def stop(self) -> None:
        """Say goodbye and leave."""
        self._stopping.set()
        self._due.set()
        self._voice.join(_CLOSE_SECONDS)
        with suppress(Full):
            self._heard.put_nowait(lambda: None)
        self._ear.join(_CLOSE_SECONDS)
        self._connection.publish(self._topics.status(self._edge), self._offline)
        self._connection.stop()

    def reconnect(self) -> None:
        """Connect anew, with the certificate that lies in the files now."""
        self._connection.reconnect()

    @property
    def connected(self) -> bool:
        return self._connection.is_up

    @property
    def trouble(self) -> FederationError | None:
        """Why there is no connection now, if that is known."""
        return self._connection.trouble

    def wait_until_connected(self, *, seconds: float) -> None:
        """Wait for the broker.

        Raises:
            UnavailableError: it does not answer in time.
            NotAdmittedError: it refuses this edge.
            UntrustedError: it is not this federation's broker.
        """
        self._connection.wait_until_up(seconds=seconds)

    def report(self, facts: Mapping[str, Any]) -> None:
        """Say what this edge runs: sent soon, not too often, and again after each reconnection."""
        self._facts = dict(facts)
        self._due.set()

    def newest(self) -> Newest:
        """Refresh the release metadata; see `Releases.newest`. Call it on a thread of your own.

        Roster and policy of rings come with it, downloaded once; whether they are to be believed is the caller's to
        check.
        """
        with self._fetching:
            self._wait_for_key()
            return self._releases.newest()

    def fetch(
        self,
        offered: Offered,
        *,
        known: Sequence[Path] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> Fetched:
        """Bring a release onto this disk; see `Releases.fetch`. Call it on a thread of your own."""
        with self._fetching:
            self._wait_for_key()
            return self._releases.fetch(offered, known=known, progress=progress)

    def _wait_for_key(self) -> None:
        deadline = time.monotonic() + self._pace.patience
        while self._keys.wait_for_any(seconds=self._pace.silence / 4) is None and time.monotonic() < deadline:
            self._connection.listen_again()
        if self._keys.newest is None:
            raise self.trouble or UnavailableError(
                "the center has not sealed a content key to this edge",
                advice="the operator of the center has to publish it again",
            )

    def _take_key(self, data: bytes) -> None:
        key = open_content_key(
            data,
            federation=self._federation,
            edge=self._edge,
            private_key=self._trust.sealing_key,
            center_key=self._trust.center_key,
            known_number=self._keys.number,
        )
        self._keys.add(key)

    def _take_wake(self, data: bytes) -> None:
        self._hearing.on_wake(open_document(Label.WAKE, data, key=self._trust.center_key))

    def _take_timestamp(self, data: bytes) -> None:
        # Reading the metadata subscribes to this topic again, and the broker repeats what it retains.
        if data != self._timestamp:
            self._timestamp = data
            self._hearing.on_release_available()

    def _later(self, act: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def put(data: bytes) -> None:
            with suppress(Full):  # only a broker that floods us says more than this thread can hear
                self._heard.put_nowait(lambda: act(data))

        return put

    def _tell(self) -> None:
        asked = time.monotonic()
        while not self._stopping.is_set():
            if time.monotonic() - asked > _LISTEN_AGAIN_SECONDS:
                asked = time.monotonic()
                self._connection.listen_again()
            try:
                act = self._heard.get(timeout=1.0)
            except Empty:
                continue
            try:
                act()
            except FederationError as error:
                self._hearing.on_trouble(error)

    def _speak(self) -> None:
        while True:
            self._due.wait()
            if self._stopping.is_set():
                return
            self._due.clear()
            if self._facts is not None:
                status = _status(self._edge, online=True, facts=self._facts)
                if self._connection.publish(self._topics.status(self._edge), status):
                    self._stopping.wait(self._report_seconds)


def _status(edge: EdgeId, *, online: bool, facts: Mapping[str, Any]) -> bytes:
    return canonical.encode({**facts, "edge": edge, "online": online})
