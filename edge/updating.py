"""Brings this edge up to the newest release: catalogue first, then the bundle; one thread, one release at a time."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from edge.fetching import Offered
from edge.installer import Installer
from edge.serving.release import Loaded
from edge.sync import Sync
from protocol.errors import FederationError, RollbackError, UnavailableError
from protocol.release import Kind
from protocol.sealing import digest

_log = structlog.get_logger(__name__)
_RETRY_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What updating does to the rest of the edge.

    Attributes:
        load: loads and warms up a bundle's directory, offered under this version, its manifest of this digest;
            whatever it raises, the old release stays.
        activate: swaps to it between two requests.
        changed: something was installed; say so in the next status.
    """

    load: Callable[[Path, int, str], Loaded]
    activate: Callable[[Loaded], None]
    changed: Callable[[], None]


class Updater:
    """Woken when there may be something newer; retries by itself when the road is interrupted."""

    def __init__(self, *, sync: Sync, installer: Installer, hands: Hands) -> None:
        self._sync = sync
        self._installer = installer
        self._hands = hands
        self._due = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="updater", daemon=True)
        self.trouble: FederationError | None = None

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There may be something newer."""
        self._due.set()

    def stop(self) -> None:
        self._stopping.set()
        self._due.set()
        self._thread.join(_RETRY_SECONDS)

    def _work(self) -> None:
        while True:
            self._due.wait()
            if self._stopping.is_set():
                return
            self._due.clear()
            try:
                self._update()
                self.trouble = None
            except (FederationError, OSError) as error:  # a full disk, too, is over one day
                self.trouble = error if isinstance(error, FederationError) else UnavailableError(str(error))
                _log.warning("update interrupted", why=self.trouble.line())
                if not self._stopping.wait(_RETRY_SECONDS):
                    self._due.set()

    def _update(self) -> None:
        newest = self._sync.newest()
        for kind in (Kind.CATALOGUE, Kind.BUNDLE):
            offered = newest.get(kind)
            if offered is not None and self._wanted(offered):
                self._install(offered)

    def _wanted(self, offered: Offered) -> bool:
        try:
            self._installer.check(offered.offer, expires=offered.expires, now=datetime.now(UTC))
        except RollbackError as error:
            _log.debug("nothing newer", why=str(error))
            return False
        return True

    def _install(self, offered: Offered) -> None:
        fetched = self._sync.fetch(offered, known=self._installer.known(offered.offer.kind))
        now = datetime.now(UTC)
        if offered.offer.kind is Kind.CATALOGUE:
            self._installer.install_catalogue(fetched, now=now)
        else:
            version, sha256 = offered.offer.version, digest(fetched.manifest.to_bytes())
            loaded = self._installer.install(
                fetched, load=lambda directory: self._hands.load(directory, version, sha256), now=now
            )
            self._hands.activate(loaded)
        _log.info("installed", target=offered.offer.target, bytes=offered.offer.bytes)
        self._hands.changed()
