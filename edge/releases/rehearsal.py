"""A release is loaded for the first time in a process of its own: what crashes or eats memory there harms nobody.

That process also compares it with the committed release on this site's newest baskets, at low priority. It writes what
it found to ``rehearsal.json``; one that ends without a word has crashed.
"""

import resource
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

import structlog

from edge import durable, tuning
from edge.children import Child, end_with_parent
from edge.records.store import Store
from edge.releases.evaluating import compare
from edge.releases.installed import Installed
from edge.settings import EdgeSettings
from protocol import canonical
from protocol.errors import (
    BadInputError,
    FederationError,
    MalformedMessageError,
    UnavailableError,
    UntrustedReleaseError,
)

_log = structlog.get_logger(__name__)
_FILE = "rehearsal.json"
_LOOK_SECONDS = 0.05
_LONGEST_SECONDS = 1_800.0
_ATTEMPTS = 2
_MOST_USERS = 600
_MEMORY_BYTES = 6 << 30
"""Address space beyond what the files need several times over: a graph that asks for more is refused."""
_FILES_IN_MEMORY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What a rehearsal found.

    Attributes:
        baskets: of this site, on which the release was compared with the committed one; 0: it was not.
        ndcg_new: mean NDCG@10; `ndcg_old` is the committed release's.
        ndcg_spread: standard error of the mean difference.
        error: why the release does not load; empty: it does.
    """

    baskets: int = 0
    ndcg_new: float = 0.0
    ndcg_old: float = 0.0
    ndcg_spread: float = 0.0
    error: str = ""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What was written there; None: nothing that can be read."""
        try:
            value = canonical.decode(path.read_bytes())
            return cls(**value) if isinstance(value, dict) else None
        except (FileNotFoundError, MalformedMessageError, TypeError):
            return None


class Rehearsal:
    """Runs rehearsals, one at a time, on the thread that asks."""

    def __init__(self, directory: Path, *, niceness: int) -> None:
        self._directory = directory
        self._niceness = niceness
        self._stopping = threading.Event()

    def run(self, installed: Installed, which: Literal["trial", "candidate"]) -> Rehearsed:
        """Load it there; what is on trial is compared with what is committed.

        Raises:
            UntrustedReleaseError: it does not load, or the process that loaded it died of it.
            UnavailableError: it was interrupted; nothing is known.
        """
        child = Child(["rehearse", which], directory=self._directory, niceness=self._niceness)
        path = self._directory / _FILE
        for _ in range(_ATTEMPTS):
            path.unlink(missing_ok=True)
            child.start()
            waited = 0.0
            while child.running() and waited < _LONGEST_SECONDS and not self._stopping.is_set():
                self._stopping.wait(_LOOK_SECONDS)
                waited += _LOOK_SECONDS
            ended = child.returncode()
            child.stop()
            if self._stopping.is_set():
                raise UnavailableError("the rehearsal was interrupted")
            found = Rehearsed.read(path)
            if found is not None and found.error:
                raise UntrustedReleaseError(f"{installed.offer.target} does not load: {found.error}")
            if found is not None:
                return found
            _log.warning("a rehearsal ended without a word", target=installed.offer.target, status=ended)
        raise UntrustedReleaseError(f"{installed.offer.target} does not load: the process that tried it died")

    def stop(self) -> None:
        """End one that runs, and begin no other."""
        self._stopping.set()


def rehearse(directory: Path, settings: EdgeSettings, which: str) -> None:
    """Load what is on trial, or the candidate; and compare what is on trial with the committed release.

    Raises:
        NoSpaceError: the disk is full.
        BadInputError: nothing is there to be tried.
    """
    end_with_parent()
    installer = tuning.open_installer(directory, settings)
    on_trial, committed = which == "trial", installer.bundle()
    installed = installer.on_trial() if on_trial else installer.candidate()
    if installed is None:
        raise BadInputError(f"there is no {which} to be tried")
    _bound_memory(sum(found.offer.bytes for found in (installed, committed) if found))
    try:
        release = tuning.load_release(installer, installed)
    except (UntrustedReleaseError, MalformedMessageError) as error:
        found = Rehearsed(error=str(error))
    else:
        found = Rehearsed()
        if on_trial and committed is not None:
            try:
                old = tuning.load_release(installer, committed)
                with Store.open(directory / "store.db", durability=settings.store.durability) as store:
                    outcome = compare(store, release, old, most=_MOST_USERS)
                found = Rehearsed(
                    baskets=outcome.events,
                    ndcg_new=outcome.ndcg_new,
                    ndcg_old=outcome.ndcg_old,
                    ndcg_spread=outcome.spread,
                )
            except FederationError as error:
                _log.warning("the releases cannot be compared", why=error.line())
    durable.write(directory / _FILE, canonical.encode(asdict(found)))


def _bound_memory(files: int) -> None:
    """What would not fit is an error of the release here, not the end of the machine."""
    used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    bound = used + _FILES_IN_MEMORY * files + _MEMORY_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or bound < hard:
        resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
