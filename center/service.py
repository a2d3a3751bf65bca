"""`hanse-center serve`: SuperLink, gateway, broker, campaigns and rollouts, in one process with one child."""

import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import structlog

from center import service_lock
from center.founding import open_repository, signing
from center.keys import CenterKeys
from center.mqtt import collecting, road
from center.mqtt.publishing import Publisher
from center.registry import CampaignRow, Registry
from center.releases.orders import Orders
from center.releases.rolling import Around, Rolling
from center.releases.rollouts import Rollouts
from center.rounds import learning
from center.rounds.campaign import Folder, Surroundings, run_campaign
from center.rounds.federation import Federation, StoppedError
from center.rounds.figures import Figures
from center.rounds.flower_app import FlowerCenter
from center.rounds.superlink import SuperLink
from center.settings import CenterSettings
from center.sites import admission, membership, rings
from center.sites.certificates import Certificates
from center.sites.enrolment import Reception
from center.sites.gateway import Gateway
from center.sites.issuing import Issuer, Renewals
from center.sites.upkeep import Upkeep
from center.stopping import stop_event
from protocol.errors import BadInputError, FederationError, UnavailableError
from protocol.identity import EdgeId, Roster, federation_id
from protocol.release import Ring

_log = structlog.get_logger(__name__)
_LOOK_SECONDS = 0.5
_TEND_SECONDS = 5.0
_REFRESH_SECONDS = 6 * 60 * 60.0
_COLLECT_SECONDS = 60 * 60.0


def now_ms() -> int:
    """UTC."""
    return time.time_ns() // 1_000_000


def serve(directory: Path, settings: CenterSettings) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        BadInputError: another `serve` runs in this folder, a port is in use, or a key is missing.
        UnavailableError: SuperLink or gateway does not start.
    """
    with stop_event() as stop, service_lock.alone(directory), ExitStack() as parts:
        _Center(directory, settings, parts=parts, stop=stop).run()


class _Center:
    def __init__(self, directory: Path, settings: CenterSettings, *, parts: ExitStack, stop: threading.Event) -> None:
        self._directory = directory
        self._settings = settings
        self._stop = stop
        self._keys = CenterKeys.load(directory)
        self._federation = federation_id(settings.federation)
        self._registry = Registry(directory / "registry.db")
        parts.callback(self._registry.close)
        self._superlink = SuperLink(
            folder=directory / "superlink",
            certificate=directory / "keys" / "tls.crt",
            key=directory / "keys" / "tls.key",
            ca_certificate=directory / "trust" / "ca.crt",
            port=settings.superlink.port,
        )
        parts.callback(self._superlink.stop)
        self._superlink.start()
        self._flower = FlowerCenter(
            address=self._superlink.address,
            ca_certificate=directory / "trust" / "ca.crt",
            secret=self._superlink.secret(),
        )
        parts.callback(self._flower.close)
        for member in self._registry.sites():
            self._flower.register(member.node)
        self._gateway = self._open_gateway()
        parts.callback(self._gateway.stop)
        upkeep = Upkeep(directory, settings, renewed=self._take_certificate)
        parts.callback(upkeep.stop)
        upkeep.start()
        self._voice = road.publisher(directory, settings, self._keys)
        parts.callback(self._voice.stop)
        self._wake = _Wake(self._voice)
        self._refresh_at = self._collect_at = 0.0
        self._collected: bytes | None = None
        self._said: dict[EdgeId, Mapping[str, Any]] = {}

    def _open_gateway(self) -> Gateway:
        directory, settings = self._directory, self._settings
        issuer = Issuer(
            certificates=Certificates(self._registry.path),
            authority=self._keys.authority,
            authority_key=self._keys.authority_key,
            now_ms=now_ms,
        )
        reception = Reception(
            registry=self._registry,
            issuer=issuer,
            broker=settings.broker,
            root=lambda number: open_repository(directory).root(number),
            register_node=self._register_node,
            now_ms=now_ms,
        )
        gateway = Gateway(
            host=settings.gateway.host,
            port=settings.gateway.port,
            certificate=directory / "keys" / "tls.crt",
            key=directory / "keys" / "tls.key",
            superlink_url=self._superlink.url,
            ca_certificate=directory / "trust" / "ca.crt",
            enroll=reception.enroll,
            renew=Renewals(issuer=issuer, roster=self._roster).renew,
        )
        gateway.start()
        return gateway

    def _take_certificate(self) -> None:
        self._gateway.take_certificate()
        self._superlink.retire()  # the watcher starts it again

    def _register_node(self, key: bytes) -> None:
        self._flower.register(key)

    def run(self) -> None:
        """Campaigns one after the other, the rollout between them; the parts are watched beside them."""
        watchers = [threading.Thread(target=watch, daemon=True) for watch in (self._watch, self._tend)]
        for watcher in watchers:
            watcher.start()
        _log.info("center serves", gateway=self._gateway.url, federation=self._federation)
        while not self._stop.wait(_LOOK_SECONDS):
            row = self._registry.next_campaign()
            if row is not None:
                self._run_campaign(row)  # first: rounds may be in flight, and questions must not cross
            else:
                self._roll()
                if Rollouts(self._registry).active() is None:
                    self._wake.end(now_ms())
        for watcher in watchers:
            watcher.join(_TEND_SECONDS)

    def _between(self) -> None:
        self._roll()
        self._asking.raise_if_stopped()

    def _roll(self) -> None:
        try:
            self._rolling.step()
        except StoppedError:
            pass
        except UnavailableError as error:
            _log.warning("SuperLink is away", why=error.line())
        except Exception:  # a fault of ours holds the rollout up, not the service  # noqa: BLE001
            _log.exception("the rollout does not go on")
            self._stop.wait(_TEND_SECONDS)

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            try:
                if self._superlink.watch():
                    _log.warning("SuperLink was started again")
            except (FederationError, OSError) as error:
                _log.error("SuperLink is away", why=str(error))

    def _tend(self) -> None:
        """Connect to the broker whenever it is there, and keep on it what must be there."""
        started = standing = False
        while not self._stop.is_set():
            try:
                if not started:
                    started = True  # from here on it reconnects by itself
                    self._voice.start()
                self._voice.tend()
                if not standing:
                    self._publish_standing()
                    standing = True
                self._refresh_timestamp()
                self._note_statuses()
                self._collect()
            except (FederationError, OSError) as error:
                _log.warning("the broker is away", why=str(error))
            self._stop.wait(_TEND_SECONDS)

    def _note_statuses(self) -> None:
        """Keep what the edges say they run where `hanse-center status` finds it."""
        said = self._voice.statuses()
        if said != self._said:
            self._registry.note_statuses(said)
            self._said = said

    def _publish_standing(self) -> None:
        membership.publish(self._voice, self._directory, self._settings, now=datetime.now(UTC))

    def _collect(self) -> None:
        """Take away what nobody needs any more: after each publication, by whomever, and every hour."""
        if time.monotonic() < self._collect_at and self._voice.ledger.note() == self._collected:
            return
        garbage = collecting.collect(self._voice, self._directory, self._settings, now=datetime.now(UTC))
        if garbage:
            _log.info("garbage collected", **garbage.to_json())
        self._collect_at, self._collected = time.monotonic() + _COLLECT_SECONDS, self._voice.ledger.note()

    def _refresh_timestamp(self) -> None:
        """Sign fresh metadata long before the old ones end; at the start also whatever a crash left unpublished."""
        if time.monotonic() < self._refresh_at:
            return
        with signing(self._directory) as repository:
            self._voice.publish_metadata(repository.refresh(now=datetime.now(UTC)))
        self._refresh_at = time.monotonic() + _REFRESH_SECONDS

    def _roster(self) -> Roster | None:
        return admission.read_roster(self._directory, federation=self._federation, keys=self._keys)

    def _run_campaign(self, row: CampaignRow) -> None:
        _log.info("campaign begins", campaign=row.id, rounds=row.rounds)
        self._registry.set_campaign(row.id, state="running")
        try:
            run_campaign(
                row,
                folder=Folder(path=self._directory / "campaigns" / row.id),
                around=self._surroundings(row),
                settings=self._settings,
            )
        except StoppedError:
            _log.info("campaign paused", campaign=row.id)
        except UnavailableError as error:
            _log.warning("campaign interrupted; it goes on", campaign=row.id, why=error.line())
        except FederationError as error:
            self._registry.set_campaign(row.id, state="failed", why=error.line())
            _log.error("campaign failed", campaign=row.id, why=error.line())
        except Exception as error:  # a fault of ours ends this campaign, not the service  # noqa: BLE001
            self._registry.set_campaign(row.id, state="failed", why=f"{type(error).__name__}: {error}")
            _log.exception("campaign failed", campaign=row.id)
        else:
            self._registry.set_campaign(row.id, state="finished")
            _log.info("campaign finished", campaign=row.id)

    @cached_property
    def _asking(self) -> Federation:
        """What campaigns and rollouts ask the edges through: one, so that they share a key epoch."""

        def roster() -> Roster:
            current = self._roster()
            if current is None:
                raise BadInputError("no roster has been signed", advice="hanse-center admit")
            transport.enlist({member.edge: member.node for member in current.members})
            return current

        transport = self._flower.transport({})
        return Federation(
            roster=roster,
            center_epoch=self._settings.epoch,
            center_key=self._keys.center,
            transport=transport,
            registry=self._registry,
            wake=self._wake,
            stopped=self._stop.is_set,
            now_ms=now_ms,
        )

    @cached_property
    def _rolling(self) -> Rolling:
        def members() -> Mapping[Ring, tuple[EdgeId, ...]]:
            policy = rings.read_rings(self._directory, federation=self._federation, keys=self._keys)
            return rings.members_by_ring(policy, self._roster())

        return Rolling(
            Around(
                orders=Orders(directory=self._directory, settings=self._settings, registry=self._registry),
                settings=self._settings,
                voice=self._voice,
                questions=Figures(self._directory / "rollouts", federation=self._asking, settings=self._settings),
                rings=members,
                statuses=self._voice.statuses,
                now_ms=now_ms,
            )
        )

    def _surroundings(self, row: CampaignRow) -> Surroundings:
        school = learning.School.open(self._directory, self._settings.model, registry=self._registry)
        return Surroundings(
            federation=self._asking,
            catalogue_version=school.catalogue_version,
            items=school.items,
            counted=lambda: school.counted(self._directory / "campaigns", without=row.id),
            initial=lambda counts: school.initial_weights(counts, campaign=self._registry.campaign_number(row.id)),
            between=self._between,
        )


class _Wake:
    """Wakes edges over MQTT; a broker that is away delays a round, it does not fail it."""

    def __init__(self, voice: Publisher) -> None:
        self._voice = voice
        self._until_ms = 0

    def end(self, now_ms: int) -> None:
        """Nothing is left to ask: the edges' learners may go to sleep."""
        if now_ms < self._until_ms:
            self("", now_ms)

    def __call__(self, campaign: str, until_ms: int) -> None:
        self._until_ms = until_ms
        try:
            self._voice.wake({"campaign": campaign, "until_ms": until_ms})
        except FederationError as error:
            _log.warning("edges could not be woken", why=error.line())
