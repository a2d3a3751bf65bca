"""From the updater's thread to the event loop: loads releases beside the one that serves, and has them swapped.

Loading runs in this thread. It takes the shop's requests nothing but a share of the interpreter, which is kept small:
a catalogue and a numbering that are loaded already are used again, and the rest lets other threads go first.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from edge import tuning
from edge.breaths import without_collections
from edge.releases.installed import Installed
from edge.releases.installer import Installer
from edge.releases.rehearsal import Rehearsal
from edge.releases.trying import Note, Trying
from edge.serving.memory import Memory
from edge.serving.need import Need
from edge.serving.release import Loaded
from edge.serving.service import Service
from protocol.card import BundleCard, CatalogueCard
from protocol.errors import BadInputError, MalformedMessageError, UntrustedReleaseError
from protocol.release import Offer


class Stage:
    """What the updater does to the service; each call, on the updater's thread, returns when it is done."""

    def __init__(
        self,
        directory: Path,
        *,
        service: Service,
        installer: Installer,
        trying: Trying,
        rehearsal: Rehearsal,
        note: Note,
        loop: Callable[[], asyncio.AbstractEventLoop],
        memory: Memory | None = None,
    ) -> None:
        """Prepare.

        Args:
            loop: the one that the service lives in, once it runs.
            memory: refuses what does not fit; None: whatever comes is tried.
        """
        self._directory = directory
        self._service = service
        self._installer = installer
        self._trying = trying
        self._rehearsal = rehearsal
        self._note = note
        self._loop = loop
        self._memory = memory

    def try_out(self, installed: Installed) -> None:
        """Rehearse it elsewhere, load it here, serve from it.

        Raises:
            UntrustedReleaseError: it did not stay; the old release serves.
            UnavailableError: it was interrupted.
        """
        try:
            self._check_memory(installed)
            rehearsed = self._rehearsal.run(installed, "trial")
            loaded = self.load(installed)
        except (UntrustedReleaseError, MalformedMessageError) as error:
            self._trying.refuse(installed, str(error))
            raise
        self._in_loop(self._trying.begin(installed, loaded, rehearsed))

    def take_up(self, installed: Installed) -> None:
        """Load what has served here before, and serve from it.

        Raises:
            UntrustedReleaseError: it does not load any more.
        """
        try:
            loaded = self.load(installed)
        except (UntrustedReleaseError, MalformedMessageError) as error:
            self._trying.refuse(installed, str(error))
            raise
        self._in_loop(self._trying.take_up(installed, loaded))

    def renumber(self, installed: Installed) -> None:
        """Go on serving the same files under another number."""
        self._in_loop(self._trying.renumber(installed))

    def supersede(self, newer: Offer) -> None:
        """End the trial that is going on."""
        self._in_loop(self._trying.supersede(newer))

    def rehearse(self, installed: Installed) -> None:
        """Load a candidate elsewhere, once; one that does not load is refused and removed.

        Raises:
            UntrustedReleaseError: it does not load.
        """
        try:
            self._rehearsal.run(installed, "candidate")
        except UntrustedReleaseError as error:
            self._installer.refuse(installed, why=str(error))
            self._installer.remove_candidate(installed)
            self._note("candidate refused", release=installed.offer.version, sha256=installed.sha256, why=str(error))
            raise

    def load(self, installed: Installed) -> Loaded:
        """All that answers need, beside what serves now.

        Raises:
            UntrustedReleaseError: the release, or its catalogue, is not as its card says.
        """
        serving = self._service.loaded
        with without_collections():
            release = tuning.load_release(self._installer, installed, like=serving.release)
            weights = tuning.read_weights(self._directory, installed) or (serving.weights if serving.release else None)
            return serving.with_release(release, weights) or Loaded.of(self._service.store, release, weights)

    def _check_memory(self, installed: Installed) -> None:
        """May it be loaded beside what serves?

        Raises:
            UntrustedReleaseError: it would not fit.
        """
        card, serving = installed.read_card(), self._service.loaded
        if self._memory is None or not isinstance(card, BundleCard):
            return
        try:
            catalogue = self._installer.catalogue_of(card).read_card()
        except BadInputError:
            return  # loading it says so
        if not isinstance(catalogue, CatalogueCard):
            return
        known = serving.release is not None and serving.release.catalogue.sha256 == card.catalogue_sha256
        need = Need.of(
            card,
            items=catalogue.items,
            private=serving.shelf.size - 1 - serving.shelf.rows,
            catalogue=0 if known else catalogue.bytes_unpacked,
        )
        if why := self._memory.why_not(need):
            raise UntrustedReleaseError(f"{installed.offer.target} does not fit: {why}")

    def _in_loop(self, step: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop()).result()
