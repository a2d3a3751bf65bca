"""Keeps every broker told: who may come in, whose certificate counts no more, which certificate it shows itself."""

import fcntl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog

from center.mqtt import broker_export, road
from center.mqtt.broker import Kind
from center.mqtt.broker_config import RULES, access_rules, write_rules
from center.mqtt.reloading import Loaded, put_out, signal_broker
from center.registry import Registry
from center.settings import CenterSettings
from center.sites import renewing
from center.sites.certificates import Certificates, Revoked
from protocol.errors import FederationError
from protocol.identity import EdgeId, federation_id

_log = structlog.get_logger(__name__)
_LOOK_SECONDS = 5.0
_PUT_OUT_AGAIN_MS = 10 * 60 * 1000


def refresh(directory: Path, settings: CenterSettings, *, now: datetime) -> tuple[FederationError, ...]:
    """Bring all brokers of this center up to date, and put out whoever was removed.

    Returns:
        Why a running broker could not be told; the next call does it.

    Raises:
        BadInputError: a key is missing or damaged.
    """
    now_ms = int(now.timestamp() * 1000)
    books = directory / "registry.db"
    with _turn(directory), closing(Certificates(books)) as certificates, closing(Registry(books)) as registry:
        crowd = _Crowd(
            edges=certificates.holders() | set(registry.invited()),
            revoked=certificates.revoked(now_ms=now_ms),
            now_ms=now_ms,
        )
        renewing.keep_revoked(directory, crowd.revoked, now=now)
        own = road.broker_plan(directory, settings)
        telling = _Telling(directory, settings, crowd)
        telling.tell(own.folder, [own.certificate, own.revoked])
        for folder in broker_export.exported(directory):
            files = broker_export.freshen(directory, settings, folder, now=now)
            telling.tell(folder, files, exported=True)
    for trouble in telling.troubles:
        _log.warning("a broker could not be told", why=trouble.line())
    return tuple(telling.troubles)


def expel(directory: Path, settings: CenterSettings, edge: EdgeId, *, now: datetime) -> tuple[FederationError, ...]:
    """Put an edge out: its certificates count no more, and its connections end. Giving it twice is harmless.

    Returns:
        Why a running broker could not be told; `hanse-center serve` goes on trying.
    """
    with closing(Certificates(directory / "registry.db")) as certificates:
        certificates.revoke(edge, now_ms=int(now.timestamp() * 1000))
    return refresh(directory, settings, now=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crowd:
    """Who is in, and who is out."""

    edges: frozenset[EdgeId]
    revoked: tuple[Revoked, ...]
    now_ms: int

    def leaving(self, known: Loaded, *, again: bool) -> frozenset[EdgeId]:
        """Who has lost a certificate that a broker has not heard of; or `again`, lately."""
        return frozenset(
            entry.edge
            for entry in self.revoked
            if f"{entry.serial:x}" not in known.revoked or (again and self.now_ms - entry.since_ms < _PUT_OUT_AGAIN_MS)
        )


@dataclass(frozen=True, slots=True)
class _Telling:
    directory: Path
    settings: CenterSettings
    crowd: _Crowd
    troubles: list[FederationError] = field(default_factory=list)

    def tell(self, folder: Path, files: list[Path], *, exported: bool = False) -> None:
        """Write one broker's access rules, and tell it if it does not know them or one of these files.

        Args:
            exported: the operator runs it: nobody here knows when it reads them, so it puts out again for a while.
        """
        federation, rules = federation_id(self.settings.federation), folder / RULES
        if not rules.exists() or rules.read_text("utf-8") != access_rules(federation, self.crowd.edges):
            write_rules(folder, federation, self.crowd.edges)
        known = Loaded.read(folder)
        present = Loaded.of([*files, rules], revoked=(entry.serial for entry in self.crowd.revoked))
        leaving = self.crowd.leaving(known, again=exported)
        if known == present and not leaving:
            return
        try:
            kind = self._signal(folder)
            if kind == "mosquitto" or exported:
                put_out(road.broker_access(self.directory, self.settings), leaving)
        except FederationError as error:
            self.troubles.append(error)
            return
        if known == present:
            return
        present.write(folder)
        _log.info("broker told", folder=str(folder), edges=len(self.crowd.edges), revoked=len(self.crowd.revoked))

    def _signal(self, folder: Path) -> Kind | None:
        try:
            return signal_broker(folder)
        except PermissionError:
            _log.warning("the broker is another account's: let it read its files again", folder=str(folder))
            return None


class Upkeep:
    """`refresh` and renewal of the center's own certificates, again and again beside `hanse-center serve`."""

    def __init__(self, directory: Path, settings: CenterSettings, *, renewed: Callable[[], None]) -> None:
        """Prepare; nothing runs yet.

        Args:
            renewed: called on this object's thread when there is a new server certificate, whoever issued it.
        """
        self._directory, self._settings, self._renewed = directory, settings, renewed
        self._certificate = directory / "keys" / "tls.crt"
        self._shown = self._certificate.read_bytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(_LOOK_SECONDS)

    def _run(self) -> None:
        while True:
            try:
                self._look(datetime.now(UTC))
            except (FederationError, OSError) as error:
                _log.warning("a broker is not up to date", why=str(error))
            if self._stop.wait(_LOOK_SECONDS):
                return

    def _look(self, now: datetime) -> None:
        if renewing.renew_if_due(self._directory, self._settings, now=now):
            _log.info("the center's certificates were renewed")
        present = self._certificate.read_bytes()
        if present != self._shown:
            self._renewed()
            self._shown = present
        refresh(self._directory, self._settings, now=now)


@contextmanager
def _turn(directory: Path) -> Iterator[None]:
    """One at a time: an older list must never be written over a newer one."""
    (directory / "broker").mkdir(exist_ok=True)
    with (directory / "broker" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
