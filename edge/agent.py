"""`hanse-edge serve`: starts and stops the parts of an edge; the only supervisor.

One process, one event loop for the shop's queries; beside it threads for MQTT and for installing releases, and child
processes of lower priority for learning and fitting. None of this imports torch or flwr.
"""

import asyncio
import fcntl
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import uvicorn

from edge import machine, tuning
from edge.api.app import build_app
from edge.api.connections import server_config
from edge.api.keys import FILE as API_KEYS
from edge.api.keys import ApiKeys
from edge.children import Child
from edge.diary import Diary
from edge.erasing import Erasing
from edge.experiments.releases import Releases
from edge.experiments.running import Experiments
from edge.neighbours.neighbours import Neighbours
from edge.neighbours.sums import HalfLives
from edge.records import retention
from edge.records.store import Store
from edge.releases.trial_record import Outcome, TrialRecord
from edge.releases.trying import Trying
from edge.search.searching import Search
from edge.serving.fusion import FusionWeights
from edge.serving.memory import Memory
from edge.serving.release import Loaded, Release
from edge.serving.service import Service
from edge.settings import CenterSettings, EdgeSettings, TillSettings
from edge.shop import Shop
from edge.tills.listening import Tills
from edge.tills.rejects import FILE_NAME as REJECTS
from edge.tills.rejects import Rejects
from edge.tills.taking import taking
from protocol.errors import BadInputError, FederationError

if TYPE_CHECKING:
    from edge.line import Line

_log = structlog.get_logger(__name__)
_LOOK_SECONDS = 0.5
_MEBI = 1 << 20
_SHARE_OF_MACHINE = 0.8  # for this process, where nobody has said how much: others live there, too
_RESTART_SECONDS = 5.0
_PAGE_NICENESS = 5
_SWITCH_SECONDS = 0.0005
"""For so long a thread that loads a release may keep the interpreter from an answer; Python's default is ten times."""


def now_ms() -> int:
    """UTC."""
    return time.time_ns() // 1_000_000


def serve(directory: Path, settings: EdgeSettings) -> None:
    """Serve until SIGTERM or Ctrl-C, with or without a line to the center.

    Raises:
        BadInputError: another `serve` runs in this folder, the port is in use, a key or the store is damaged.
    """
    machine.share_one_heap()
    with _alone(directory), ExitStack() as parts:
        listener = parts.enter_context(_listen(settings))
        agent = _Agent(directory, settings, parts)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(agent.serve(listener))


class _Agent:
    def __init__(self, directory: Path, settings: EdgeSettings, parts: ExitStack) -> None:
        self._directory = directory
        self._settings = settings
        self._store = parts.enter_context(Store.open(directory / "store.db", durability=settings.store.durability))
        self._installer = tuning.open_installer(directory, settings)
        self._diary = Diary(directory)
        parts.callback(self._diary.close)
        self._goes_on_trying = self._count_start()
        self._neighbours = Neighbours(
            self._store, HalfLives.of(settings.neighbours), now_ms=now_ms, note=self._note_following
        )
        self._service = Service(
            self._store,
            self._committed(),
            draw=secrets.token_bytes,
            now_ms=now_ms,
            deadline_ms=settings.serving.deadline_ms,
            remembered_bytes=settings.serving.remembered_mb << 20,
            neighbours=self._neighbours,
        )
        parts.callback(self._service.close)
        parts.callback(self._service.arranging.promotions.save_if_possible)
        self._memory = Memory(
            ceiling=settings.serving.memory_mb * _MEBI or round(_SHARE_OF_MACHINE * machine.machine_bytes()),
            loaded=lambda: self._service.loaded,
            resident=machine.resident_bytes,
            give_back=machine.give_back,
            drop=self._service.drop_caches,
        )
        self._service.metrics.registry.register(self._memory)
        self._experiments = Experiments(
            self._store,
            Releases(self._service, self._arms_release),
            scenarios=self._service.arranging.scenarios.known,
            draw=secrets.token_bytes,
            now_ms=now_ms,
        )
        self._search = Search.open(
            directory / "search",
            self._service,
            language=settings.search.language,
            draw=secrets.token_bytes,
            clock=time.monotonic,
        )
        parts.callback(self._search.close)
        self._rejects = Rejects(directory / REJECTS)
        self._tills = self._listen_to_tills(settings.tills) if settings.tills.host else None
        self._learner = Child(["learn"], directory=directory, niceness=settings.training.niceness)
        self._fitter = Child(["fit"], directory=directory, niceness=settings.training.niceness)
        self._storefront = Child(["storefront", "--child"], directory=directory, niceness=_PAGE_NICENESS)
        parts.callback(self._storefront.stop)
        parts.callback(self._learner.stop)
        parts.callback(self._fitter.stop)
        self._rounds_until_ms = 0
        self._fitted_for = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._trying = Trying(
            service=self._service,
            installer=self._installer,
            limits=settings.trial,
            keep=lambda record: record.save(directory),
            note=self._diary.note,
            changed=self._report,
        )
        self._line = self._connect(settings.center) if settings.center else None

    def _listen_to_tills(self, settings: TillSettings) -> Tills:
        site = self._settings.site.name
        return Tills(settings, taking(self._service), self._rejects, folder=self._directory, site=site)

    def _note_following(self, events: int, seconds: float) -> None:
        self._service.metrics.note_following("neighbours", events, seconds)

    def _arms_release(self, version: int) -> tuple[Release, FusionWeights | None] | None:
        """A release that lies in a slot and has not been taken back, for an experiment's arm."""
        for found in self._installer.slots():
            refused = self._installer.standing().refusal_of(version, era=found.era)
            if found.offer.version == version and refused is None:
                release = tuning.load_release(self._installer, found, like=self._service.loaded.release)
                return release, tuning.read_weights(self._directory, found)
        return None

    def _connect(self, center: CenterSettings) -> "Line":
        from edge.line import Line  # noqa: PLC0415 - TUF and MQTT take a fifth of a second, which a shop alone is spared

        return Line(
            self._directory,
            self._settings,
            center,
            service=self._service,
            installer=self._installer,
            trying=self._trying,
            diary=self._diary,
            rounds_until=self._expect_rounds,
            changed=self._report,
            loop=self._running_loop,
            memory=self._memory,
        )

    async def serve(self, listener: socket.socket) -> None:
        """Answer until uvicorn is told to stop; then stop the rest."""
        self._loop = asyncio.get_running_loop()
        sys.setswitchinterval(_SWITCH_SECONDS)
        # uvicorn raises the signal that stopped it once more, and that must not end this process before its parts.
        signal.signal(signal.SIGTERM, lambda *_: None)
        serving = self._settings.serving
        shop = Shop(
            service=self._service,
            erasing=Erasing(
                service=self._service,
                note=self._diary.note,
                derived=(self._experiments.forget, self._neighbours.forget),
                beside=(self._rejects.forget, self._neighbours.forgotten, self._search.forget),
            ),
            experiments=self._experiments,
            tills=self._tills,
            neighbours=self._neighbours,
            search=self._search,
            memory=self._memory,
            storefront=self._storefront_url(),
        )
        app = build_app(shop, api_keys=self._api_keys(), settings=serving)
        server = uvicorn.Server(server_config(app, serving, timeout_graceful_shutdown=5))
        if self._line:
            self._line.start(resume=self._goes_on_trying)
        if self._tills:
            self._tills.start()
        self._neighbours.start()
        self._search.start()
        self._report()
        keeping = retention.watch(
            self._store,
            days=self._settings.store.retention_days,
            now_ms=now_ms,
            deleted=lambda _count: self._service.recount(),
        )
        machine.set_aside()
        watching = (self._trying.watch(), self._memory.watch(), keeping)
        minding = asyncio.gather(self._mind_children(), self._mind_storefront(), *watching)
        _log.info("edge serves", site=self._settings.site.name, port=listener.getsockname()[1])
        try:
            await server.serve(sockets=[listener])
        finally:
            if self._tills:
                await self._tills.stop()
            minding.cancel()
            with suppress(asyncio.CancelledError):
                await minding
            await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._neighbours.stop()
        if self._line:
            self._line.stop()
        with suppress(FederationError):
            self._installer.rest()

    async def _mind_children(self) -> None:
        """Keep the learner up while rounds are on, and take fitted weights in when they are there."""
        started_at, learnt_from = 0.0, None
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            catalogue = self._installer.catalogue() if now_ms() < self._rounds_until_ms else None
            if self._learner.running() and catalogue != learnt_from:
                await asyncio.to_thread(self._learner.stop)  # the rounds are over, or its rows are others now
            elif catalogue and not self._learner.running() and time.monotonic() - started_at > _RESTART_SECONDS:
                started_at, learnt_from = time.monotonic(), catalogue
                self._learner.start()
            try:
                await self._mind_fitting()
            except FederationError as error:  # fitting is a refinement; minding the learner goes on
                _log.warning("fitting is not minded", why=error.line())

    async def _mind_storefront(self) -> None:
        """Keep the page up, where there is to be one."""
        while self._storefront_url():
            if not self._storefront.running():
                self._storefront.start()
            await asyncio.sleep(_RESTART_SECONDS)

    def _storefront_url(self) -> str:
        told = self._settings.storefront
        return f"http://127.0.0.1:{told.port}/" if told.enabled else ""

    async def _mind_fitting(self) -> None:
        release = self._service.loaded.release
        if release is None or release.version == self._fitted_for or self._fitter.running():
            return
        bundle = self._installer.bundle()
        if bundle is None or bundle.offer.version != release.version:
            return
        weights = tuning.read_weights(self._directory, bundle)
        if weights is None and self._fitter.returncode() is None:
            self._fitter.start()
        elif weights is None:  # it ended without a word: the defaults have to do
            self._fitted_for = release.version
            self._fitter.stop()
        else:
            self._fitted_for = release.version
            self._fitter.stop()
            self._service.swap(replace(self._service.loaded, weights=weights))
            self._search.weights = tuning.read_search_weights(self._directory, bundle)
            self._report()

    def _count_start(self) -> bool:
        """May what is on trial be loaded? A release under which this process keeps crashing is not tried again."""
        try:
            refusal = self._installer.start(max_boots=self._settings.trial.max_boots)
            if refusal is not None:
                _log.error("went back", release=refusal.version, why=refusal.why)
                self._diary.note("went back", release=refusal.version, sha256=refusal.sha256, why=refusal.why)
                record = TrialRecord(version=refusal.version, sha256=refusal.sha256, outcome=Outcome.WENT_BACK)
                record.save(self._directory)
        except (FederationError, OSError) as error:  # what cannot be counted is not risked
            _log.error("starts in a trial cannot be counted", why=str(error))
            return False
        return True

    def _committed(self) -> Loaded:
        """What was committed before the restart; popularity when nothing can be loaded, never an error."""
        bundle = self._installer.bundle()
        if bundle is None:
            return Loaded.of(self._store, None)
        try:
            release = tuning.load_release(self._installer, bundle)
        except FederationError as error:
            _log.error("the installed release cannot be loaded", why=error.line())
            return Loaded.of(self._store, None)
        return Loaded.of(self._store, release, tuning.read_weights(self._directory, bundle))

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None
        return self._loop

    def _report(self) -> None:
        """Tell the center what runs here, and nothing else."""
        if self._line is None:
            return
        served, catalogue = self._service.loaded.release, self._installer.catalogue()
        standing, candidate = self._installer.standing(), self._installer.candidate()
        self._line.report(
            {
                "version": tuning.EDGE_VERSION,
                "release": served.version if served else 0,
                "sha256": served.sha256 if served else "",
                "trial": standing.trial is not None,
                "went_back": standing.refused[-1].version if standing.refused else 0,
                "candidate": candidate.offer.version if candidate else 0,
                "catalogue": catalogue.offer.version if catalogue else 0,
                "fetching": self._line.fetching,
                "fitted": self._fitted_for,
                "audit": self._diary.head(),
            }
        )

    def _expect_rounds(self, until_ms: int) -> None:
        self._rounds_until_ms = until_ms

    def _api_keys(self) -> ApiKeys | None:
        if not self._settings.serving.require_api_key:
            return None
        return ApiKeys.open(self._directory / API_KEYS)


def _loop_factory() -> Any:
    import uvloop  # noqa: PLC0415 - there is none on Windows, where nobody serves

    return uvloop.new_event_loop


@contextmanager
def _listen(settings: EdgeSettings) -> Iterator[socket.socket]:
    """The service's socket, taken before anything else is started.

    Raises:
        BadInputError: the port is in use.
    """
    address = (settings.serving.host, settings.serving.port)
    try:
        listener = socket.create_server(address, backlog=1024)
    except OSError as error:
        raise BadInputError(
            f"cannot listen on {address[0]}:{address[1]}: {error.strerror}",
            advice="end what listens there, or set serving.port in edge.toml",
        ) from error
    with listener:
        yield listener


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One `serve` a folder; the lock is the kernel's and ends with this process.

    Raises:
        BadInputError: another one runs.
    """
    with (directory / "serve.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInputError(f"an edge serves in {directory} already", advice="end it first") from error
        yield
