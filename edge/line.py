"""The line to the center: what is heard and said over it, and who installs what came down. Serving needs none of it.

An edge that belongs to no federation has no line, and all the rest.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from edge.diary import Diary
from edge.keys import Keys, load_public
from edge.membership import Membership
from edge.releases.connection import BrokerAccess
from edge.releases.installer import Installer
from edge.releases.rehearsal import Rehearsal
from edge.releases.renewal import PAIR, Renewal
from edge.releases.ring import Rings
from edge.releases.stage import Stage
from edge.releases.sync import Hearing, Sync, Trust
from edge.releases.trying import Trying
from edge.releases.updating import Papers, Updater
from edge.serving.memory import Memory
from edge.serving.service import Service
from edge.settings import CenterSettings, EdgeSettings
from protocol.identity import edge_id, federation_id

_log = structlog.get_logger(__name__)


class Line:
    """MQTT, the updater and the renewal of certificates, each with its own thread."""

    def __init__(
        self,
        directory: Path,
        settings: EdgeSettings,
        center: CenterSettings,
        *,
        service: Service,
        installer: Installer,
        trying: Trying,
        diary: Diary,
        rounds_until: Callable[[int], None],
        changed: Callable[[], None],
        loop: Callable[[], asyncio.AbstractEventLoop],
        memory: Memory | None = None,
    ) -> None:
        """Prepare; nothing is said yet.

        Args:
            rounds_until: called with the time (UTC, ms) up to which rounds are on.
            changed: what this edge says of itself is no longer true.
            memory: refuses releases that do not fit.

        Raises:
            BadInputError: a key is missing or damaged.
        """
        federation, me = federation_id(settings.site.federation), edge_id(settings.site.name)
        keys = Keys.load(directory / "keys")
        self._rounds_until = rounds_until
        self._sync = Sync(
            BrokerAccess(
                host=center.broker_host,
                port=center.broker_port,
                authority=directory / "trust" / "ca.crt",
                certificate=directory / PAIR,
                key=directory / PAIR,
            ),
            federation=federation,
            edge=me,
            trust=Trust(
                center_key=load_public(directory / "trust" / "center.pub"),
                sealing_key=keys.seal,
                root=(directory / "trust" / "root.json").read_bytes(),
            ),
            hearing=Hearing(
                on_wake=self._on_wake,
                on_release_available=self._on_release_available,
                on_trouble=lambda error: _log.warning("not believed", why=error.line()),
            ),
            folder=directory,
        )
        self._renewal = Renewal(directory, settings, renewed=self._sync.reconnect)
        self._rehearsal = Rehearsal(directory, niceness=settings.training.niceness)
        self._updater = Updater(
            sync=self._sync,
            installer=installer,
            stage=Stage(
                directory,
                service=service,
                installer=installer,
                trying=trying,
                rehearsal=self._rehearsal,
                note=diary.note,
                loop=loop,
                memory=memory,
            ),
            papers=Papers(
                me=me,
                membership=Membership(directory, federation=federation),
                rings=Rings(directory, federation=federation, edge=me),
                note=diary.note,
                changed=changed,
            ),
        )

    @property
    def fetching(self) -> int:
        """The version that is being fetched; 0: none."""
        return self._updater.fetching

    def start(self, *, resume: bool) -> None:
        """Connect, and go on where the last process stopped.

        Args:
            resume: a trial that was going on may go on.
        """
        self._updater.start(resume=resume)
        self._sync.start()
        self._renewal.start()

    def report(self, facts: Mapping[str, Any]) -> None:
        """Tell the center what runs here."""
        self._sync.report(facts)

    def stop(self) -> None:
        """End the threads and wait for them."""
        self._renewal.stop()
        self._rehearsal.stop()
        self._updater.stop()
        self._sync.stop()

    def _on_wake(self, content: Mapping[str, Any]) -> None:
        until = content.get("until_ms")
        if isinstance(until, int):
            self._rounds_until(until)

    def _on_release_available(self) -> None:
        self._updater.wake()
