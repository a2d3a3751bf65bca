"""Brings this edge up to what the federation says: roster and rings, catalogue, bundle, candidate; one thread, in turn.

What is refused stops nothing but itself.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from edge.membership import Membership
from edge.releases.assembly import Fetched
from edge.releases.fetching import Newest, Offered
from edge.releases.installed import Installed
from edge.releases.installer import Installer
from edge.releases.ring import Rings
from edge.releases.stage import Stage
from edge.releases.sync import Sync
from edge.releases.trying import Note
from protocol.card import BundleCard
from protocol.errors import FederationError, NotAdmittedError, RollbackError, UnavailableError
from protocol.identity import EdgeId
from protocol.release import offered_to

_log = structlog.get_logger(__name__)
_RETRY_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """What this edge has been told of the federation, and where it writes down what it did.

    Attributes:
        changed: something was installed or begun; say so in the next status.
    """

    me: EdgeId
    membership: Membership
    rings: Rings
    note: Note
    changed: Callable[[], None]


class Updater:
    """Woken when there may be something newer; retries by itself when the road is interrupted."""

    def __init__(self, *, sync: Sync, installer: Installer, stage: Stage, papers: Papers) -> None:
        self._sync = sync
        self._installer = installer
        self._stage = stage
        self._papers = papers
        self._due = threading.Event()
        self._stopping = threading.Event()
        self._resuming = True
        self._thread = threading.Thread(target=self._work, name="updater", daemon=True)
        self.trouble: FederationError | None = None
        self.fetching = 0
        """Number of the release that is on its way; 0: none."""

    def start(self, *, resume: bool = True) -> None:
        """Begin.

        Args:
            resume: go on with a trial that a restart has interrupted.
        """
        self._resuming = resume
        self._thread.start()

    def wake(self) -> None:
        """There may be something newer."""
        self._due.set()

    def stop(self) -> None:
        self._stopping.set()
        self._due.set()
        self._thread.join(_RETRY_SECONDS)

    def _work(self) -> None:
        if self._resuming:
            self._attempt(self._resume)
        while True:
            self._due.wait()
            if self._stopping.is_set():
                return
            self._due.clear()
            if not self._attempt(self._update):
                self._due.wait(_RETRY_SECONDS)
                self._due.set()

    def _attempt(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except (FederationError, OSError) as error:  # a full disk, too, is over one day
            self.trouble = error if isinstance(error, FederationError) else UnavailableError(str(error))
            if not self._stopping.is_set():
                _log.warning("update interrupted", why=self.trouble.line())
            return False
        self.trouble = None
        return True

    def _resume(self) -> None:
        """Go on with a trial that a restart has interrupted."""
        installed = self._installer.on_trial()
        if installed is not None:
            self._bring_on(installed)

    def _update(self) -> None:
        newest = self._sync.newest()
        self._accept(newest)
        steps: tuple[Callable[[Newest], None], ...] = (self._catalogue, self._bundle, self._candidate)
        troubles = []
        for step in steps:
            try:
                step(newest)
            except FederationError as error:
                _log.warning("not taken", step=step.__name__.removeprefix("_"), why=error.line())
                troubles.append(error)
            if self._stopping.is_set():
                return
        if troubles:
            raise troubles[0]
        self._installer.sweep()

    def _accept(self, newest: Newest) -> None:
        """Take a newer roster and a newer policy; what cannot be believed is said and left."""
        papers = self._papers
        try:
            if newest.roster is not None and newest.roster[0] > self._roster_version():
                roster = papers.membership.accept(newest.roster[1])
                papers.note("roster accepted", version=roster.version, sites=len(roster.members))
        except FederationError as error:
            _log.warning("roster not believed", why=error.line())
        try:
            if newest.policy is not None and newest.policy[0] > self._policy_number():
                policy = papers.rings.accept(newest.policy[1])
                papers.note("policy accepted", number=policy.number, ring=policy.ring_of(papers.me).value)
        except FederationError as error:
            _log.warning("policy of rings not believed", why=error.line())

    def _roster_version(self) -> int:
        try:
            return self._papers.membership.roster().version
        except NotAdmittedError:
            return 0

    def _policy_number(self) -> int:
        policy = self._papers.rings.policy()
        return policy.number if policy else 0

    def _catalogue(self, newest: Newest) -> None:
        offered = newest.catalogue
        if offered is None or not self._wanted(offered, self._installer.check, era=newest.era):
            return
        fetched = self._fetch(offered)
        installed = self._installer.install_catalogue(fetched, now=datetime.now(UTC), era=newest.era)
        self._papers.note("catalogue installed", **_named(installed))
        self._papers.changed()

    def _bundle(self, newest: Newest) -> None:
        offer = offered_to(
            (offered.offer for offered in newest.bundles.values()),
            ring=self._papers.rings.ring(),
            edge=self._papers.me,
            reach=newest.pace,
        )
        offered = newest.bundles[offer.target] if offer else None
        if offered is None or not self._wanted(offered, self._installer.check, era=newest.era):
            return
        if self._installer.standing().trial is not None:
            self._stage.supersede(offered.offer)
        kind = "adopted"
        installed = self._installer.adopt(offered.offer, expires=offered.expires, now=datetime.now(UTC), era=newest.era)
        if installed is None:
            kind = "installed"
            installed = self._installer.install(self._fetch(offered), now=datetime.now(UTC), era=newest.era)
        card = installed.read_card()
        training = dict(card.training) if isinstance(card, BundleCard) else {}
        self._papers.note(kind, **_named(installed), center_audit=offered.offer.audit, training=training)
        serving = self._installer.bundle()
        if serving is not None and serving.directory == installed.directory:
            self._stage.renumber(installed)
            return
        self._installer.begin_trial(installed, now_ms=int(datetime.now(UTC).timestamp() * 1000))
        self._bring_on(installed)

    def _bring_on(self, installed: Installed) -> None:
        """Serve what has been noted as being on trial; however that ends, the center hears what answers now."""
        try:
            if self._installer.is_proven(installed.sha256):
                self._stage.take_up(installed)
            else:
                self._papers.note("on trial", **_named(installed))
                self._stage.try_out(installed)
        finally:
            self._papers.changed()

    def _candidate(self, newest: Newest) -> None:
        offered = max(newest.candidates.values(), key=lambda one: one.offer.version, default=None)
        if offered is None or not self._wanted(offered, self._installer.check_candidate, era=newest.era):
            return
        fetched = self._fetch(offered)
        installed = self._installer.install_candidate(fetched, now=datetime.now(UTC), era=newest.era)
        self._papers.note("candidate kept", **_named(installed), center_audit=offered.offer.audit)
        self._stage.rehearse(installed)
        self._papers.changed()

    def _wanted(self, offered: Offered, check: Callable[..., None], *, era: int) -> bool:
        try:
            check(offered.offer, expires=offered.expires, now=datetime.now(UTC), era=era)
        except RollbackError as error:
            _log.debug("nothing newer", why=str(error))
            return False
        return True

    def _fetch(self, offered: Offered) -> Fetched:
        self.fetching = offered.offer.version
        self._papers.changed()
        try:
            known = self._installer.known(offered.offer.kind)
            return self._sync.fetch(offered, known=known, progress=self._check_newest)
        finally:
            self.fetching = 0
            self._papers.changed()

    def _check_newest(self, done: int, missing: int) -> None:
        """Put a download off when there may be something newer: a rollback does not wait for it. Its blocks stay."""
        if self._due.is_set() and done < missing:
            raise UnavailableError("something newer may be there, what was on its way is put off")


def _named(installed: Installed) -> dict[str, Any]:
    offer = installed.offer
    return {"release": offer.version, "target": offer.target, "sha256": offer.sha256}
