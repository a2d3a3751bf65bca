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
from typing import Any

import structlog
import uvicorn

from edge import tuning
from edge.api.app import build_app
from edge.api.door import ApiKeys
from edge.children import Child
from edge.diary import Diary
from edge.line import Line
from edge.records.store import Store
from edge.releases.trial_record import Outcome, TrialRecord
from edge.releases.trying import Trying
from edge.serving.release import Loaded
from edge.serving.service import Service
from edge.settings import CenterSettings, EdgeSettings
from edge.shop import Shop
from protocol.errors import BadInputError, FederationError

_log = structlog.get_logger(__name__)
_LOOK_SECONDS = 0.5
_RESTART_SECONDS = 5.0
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
        self._service = Service(self._store, self._committed(), draw=secrets.token_bytes, now_ms=now_ms)
        parts.callback(self._service.close)
        self._learner = Child(["learn"], directory=directory, niceness=settings.training.niceness)
        self._fitter = Child(["fit"], directory=directory, niceness=settings.training.niceness)
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

    def _connect(self, center: CenterSettings) -> Line:
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
        )

    async def serve(self, listener: socket.socket) -> None:
        """Answer until uvicorn is told to stop; then stop the rest."""
        self._loop = asyncio.get_running_loop()
        sys.setswitchinterval(_SWITCH_SECONDS)
        # uvicorn raises the signal that stopped it once more, and that must not end this process before its parts.
        signal.signal(signal.SIGTERM, lambda *_: None)
        app = build_app(Shop(service=self._service), api_keys=self._api_keys())
        config = uvicorn.Config(
            app, http="httptools", ws="none", access_log=False, log_config=None, timeout_graceful_shutdown=5
        )
        server = uvicorn.Server(config)
        if self._line:
            self._line.start(resume=self._goes_on_trying)
        self._report()
        minding = asyncio.gather(self._mind_children(), self._trying.watch())
        _log.info("edge serves", site=self._settings.site.name, port=listener.getsockname()[1])
        try:
            await server.serve(sockets=[listener])
        finally:
            minding.cancel()
            with suppress(asyncio.CancelledError):
                await minding
            await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
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
        try:
            lines = (self._directory / "keys" / "api-keys").read_text("utf-8").splitlines()
        except FileNotFoundError:
            lines = []
        hashes = [line.split()[0] for line in lines if line.strip()]
        if not hashes:
            raise BadInputError("no API key has been made", advice="hanse-edge key NAME")
        return ApiKeys(hashes)


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
