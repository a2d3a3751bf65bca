"""Gets messages onto the broker for certain, and notices when the broker has lost them.

A note of the ledger's state lies on the broker itself, and changes with it: a broker that shows another one was wiped,
restored, or killed before it stored.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from center.mqtt.connection import Connection
from center.mqtt.ledger import Ledger
from protocol.errors import UnavailableError

_WINDOW = 16
_COMMIT = 64
_ATTEMPTS = 3
_ACKNOWLEDGE_SECONDS = 20.0
_INVENTORY_SECONDS = 2.0
_SETTLE_SECONDS = 10.0
_LOOK_SECONDS = 0.05

Messages = Iterable[tuple[str, bytes]]


class Delivery:
    """One connection, and the ledger of what went over it. Not for several threads at once."""

    def __init__(
        self, connection: Connection, ledger: Ledger, *, inventory: str, everything: Callable[[], Messages]
    ) -> None:
        """Take these parts.

        Args:
            inventory: topic of the note.
            everything: all that has been delivered, for a broker that has lost it.
        """
        self._connection, self._ledger = connection, ledger
        self._inventory, self._everything = inventory, everything
        self._checked = 0
        self._settling = False

    def tend(self) -> bool:
        """After each connection: look whether the broker still has everything, and restock it if not.

        Returns:
            Whether it had to be restocked.

        Raises:
            UnavailableError: there is no connection, or it breaks meanwhile.
        """
        self._connection.wait_until_up(seconds=_ACKNOWLEDGE_SECONDS)
        connection = self._connection.times_connected
        if connection == self._checked:
            return False
        note = self._ledger.note()
        lost = note is not None and self._read_inventory() != note
        if lost:
            self._send(self._everything())
            self._send([(self._inventory, self._ledger.note() or b"")])
        self._checked = connection
        return lost

    def deliver(self, messages: Callable[[list[str]], Messages], topics: Iterable[str]) -> None:
        """Send until everything has arrived.

        Args:
            messages: the payloads of these topics, in their order; asked again for the rest after a broken connection.
            topics: each once.

        Raises:
            UnavailableError: the broker did not take them all; what it took is noted.
        """
        left = dict.fromkeys(topics)
        for attempt in range(1, _ATTEMPTS + 1):
            if not left:
                return
            try:
                self.tend()  # first: what an emptied broker has lost is not "already there"
                self._supply(messages, left)
            except UnavailableError:
                if attempt == _ATTEMPTS:
                    raise

    def clear(self, topics: Iterable[str]) -> None:
        """Take messages off the broker.

        Raises:
            UnavailableError: the broker did not take it; the next call goes on.
        """
        names = list(topics)
        if not names:
            return
        self.tend()
        self._ledger.withdraw(names)  # before: what may be gone must not count as delivered
        self._send((topic, b"") for topic in names)
        self._ledger.cleared(names)
        self._send([(self._inventory, self._ledger.note() or b"")])

    def settle(self) -> None:
        """Before hanging up: wait until the broker shows what it has acknowledged.

        The embedded one acknowledges first, and forgets what it has not yet come to when its sender goes.
        """
        deadline = time.monotonic() + _SETTLE_SECONDS
        while self._settling and self._connection.is_up and time.monotonic() < deadline:
            self._settling = self._read_inventory() != self._ledger.note()
            if self._settling:
                time.sleep(_LOOK_SECONDS)

    def _supply(self, messages: Callable[[list[str]], Messages], left: dict[str, None]) -> None:
        connection = self._connection.times_connected
        arrived: list[str] = []

        def commit() -> None:
            if self._connection.times_connected != connection:
                raise UnavailableError("the broker was away while it was being supplied")
            self._ledger.delivered(arrived)
            for topic in arrived:
                del left[topic]
            arrived.clear()

        def acknowledged(topic: str) -> None:
            if topic in left:
                arrived.append(topic)

        def with_notes() -> Iterator[tuple[str, bytes]]:
            for message in messages(list(left)):
                yield message
                if len(arrived) >= _COMMIT:
                    commit()
                    yield self._inventory, self._ledger.note() or b""

        self._send(with_notes(), acknowledged=acknowledged)
        commit()
        self._send([(self._inventory, self._ledger.note() or b"")])

    def _send(self, messages: Messages, *, acknowledged: Callable[[str], None] = lambda _topic: None) -> None:
        connection, self._settling = self._connection.times_connected, True
        self._connection.deliver(messages, window=_WINDOW, seconds=_ACKNOWLEDGE_SECONDS, acknowledged=acknowledged)
        if self._connection.times_connected != connection:
            raise UnavailableError("the broker was away while it was being supplied")

    def _read_inventory(self) -> bytes | None:
        arrived: list[bytes] = []
        there = threading.Event()

        def take(_topic: str, payload: bytes) -> None:
            arrived.append(payload)
            there.set()

        self._connection.listen(self._inventory, take)
        there.wait(_INVENTORY_SECONDS)
        self._connection.forget(self._inventory)
        return arrived[-1] if arrived else None
