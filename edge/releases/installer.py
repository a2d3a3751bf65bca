"""Two slots: a release is installed in the idle one, tried out, and committed or taken back by one rename (SPEC 9.11).

slots/a/ slots/b/       the files           slots/a.json slots/b.json   what is in them; written when complete
slots/standing.json     which slot is committed, which is on trial, what was refused

On the disk lie at most two slots, one candidate, one download for either of these, the newest catalogue, those that
slots and candidate need, and a download of one more: five bundles and five catalogues, however long an edge runs.
"""

import shutil
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from edge import durable
from edge.releases.assembly import Fetched, disk_errors, measure
from edge.releases.candidates import Candidates
from edge.releases.catalogues import Catalogues
from edge.releases.installed import Installed, resettle, settle
from edge.releases.slots import OTHER, OnTrial, Refusal, Standing
from protocol import card
from protocol.bundle import CARD, check_directory
from protocol.card import CATALOGUE_FILE, BundleCard, Card, CatalogueCard
from protocol.errors import (
    BadSignatureError,
    MalformedMessageError,
    OutOfTurnError,
    RollbackError,
    UntrustedReleaseError,
)
from protocol.identity import FederationId
from protocol.release import Kind, Offer, check_installable


class Installer:
    """Installs releases and catalogues under an edge's folder; one process at a time, any number may look.

    One thread installs; any may commit, refuse or end a trial.
    """

    def __init__(self, folder: Path, *, federation: FederationId, edge_version: str) -> None:
        self._slots = folder / "slots"
        self._downloads = folder / "blocks"
        self._catalogues = Catalogues(folder)
        self._candidates = Candidates(folder)
        self._turn = threading.Lock()
        self._federation = federation
        self._edge_version = edge_version

    def bundle(self) -> Installed | None:
        """The committed bundle; the other slot's if that is damaged and the other was committed once."""
        committed = self.standing().committed
        return Installed.load(self._slots / committed) if committed else None

    def on_trial(self) -> Installed | None:
        """The bundle that is being tried out."""
        trial = self.standing().trial
        return Installed.load(self._slots / trial.slot) if trial else None

    def slots(self) -> list[Installed]:
        """What lies whole in the slots."""
        return [found for name in OTHER if (found := Installed.load(self._slots / name)) is not None]

    def candidate(self) -> Installed | None:
        """The bundle that is there to be measured."""
        return self._candidates.newest()

    def catalogue(self) -> Installed | None:
        """The newest installed catalogue."""
        return self._catalogues.newest()

    def catalogue_of(self, bundle: BundleCard) -> Installed:
        """The catalogue whose rows a bundle's item numbers are.

        Raises:
            UntrustedReleaseError: it is not installed.
        """
        return self._catalogues.of(bundle)

    def known(self, kind: Kind) -> list[Path]:
        """Directories whose blocks the next release of this kind may share."""
        if kind is Kind.BUNDLE:
            slots = [slot for name in OTHER if (slot := self._slots / name).is_dir()]
            return slots + [found.directory for found in (self.candidate(),) if found]
        newest = self.catalogue()
        return [newest.directory] if newest else []

    def is_proven(self, sha256: str) -> bool:
        """Has this bundle been committed here before? Then it needs no second trial."""
        return sha256 in self.standing().proven

    def check(self, offer: Offer, *, expires: datetime, now: datetime, era: int = 1) -> None:
        """Would this release be installed? Ask before fetching it.

        Args:
            era: of the metadata that offer it; what was signed in an older one binds nobody.

        Raises:
            RollbackError: not newer, a superseded center's, or one that this edge has gone back from.
            ExpiredReleaseError: its metadata are too old.
            UntrustedReleaseError: it needs newer edge software.
        """
        bundles = [found for found in (self.bundle(), self.on_trial()) if found is not None]
        catalogue = self.catalogue()
        known = [*bundles, catalogue] if catalogue else bundles
        if any(found.era > era for found in known):
            raise RollbackError(f"{offer.target} was signed in era {era}, which is over")
        present = [found for found in known if found.era == era]
        versions = [found.offer.version for found in present if found.offer.kind is offer.kind]
        check_installable(
            offer,
            installed_version=max(versions, default=0),
            center_epoch_seen=max((found.offer.epoch for found in present), default=0),
            edge_version=self._edge_version,
            expires=expires,
            now=now,
        )
        refusal = self.standing().refusal_of(offer.version, era=era) if offer.kind is Kind.BUNDLE else None
        if refusal is not None:
            raise RollbackError(f"{offer.target} was tried and taken back: {refusal.why}")

    def adopt(self, offer: Offer, *, expires: datetime, now: datetime, era: int = 1) -> Installed | None:
        """Take up a bundle whose files lie here already: in a slot, or as the candidate. None: they have to be fetched.

        The committed slot stays where it is, only its record changes; anything else ends up whole in the idle slot.

        Raises:
            RollbackError: see `check`; so do ExpiredReleaseError and UntrustedReleaseError.
            OutOfTurnError: a trial is going on.
            NoSpaceError: the disk is full.
        """
        self.check(offer, expires=expires, now=now, era=era)
        self._check_idle()
        for found in [self.bundle(), *self.slots(), self.candidate()]:
            if found is None or found.sha256 != offer.sha256:
                continue
            try:
                found.check_bytes()
                self._check_bundle(found.read_card(), offer)
            except (BadSignatureError, UntrustedReleaseError, MalformedMessageError):
                continue  # damaged since: the road brings what is missing
            with disk_errors(f"cannot take up {offer.target}"):
                return self._take_up(found, offer, era=era)
        return None

    def install(self, fetched: Fetched, *, now: datetime, era: int = 1) -> Installed:
        """Install a bundle in the idle slot; it is not tried and not served yet.

        Args:
            fetched: its directory is moved into the slot.

        Raises:
            RollbackError: see `check`; so do ExpiredReleaseError and UntrustedReleaseError.
            BadSignatureError: the disk does not hold what was signed.
            UntrustedReleaseError: it needs a catalogue that is missing.
            OutOfTurnError: a trial is going on.
            NoSpaceError: the disk is full; the old release is intact.
        """
        self.check(fetched.offer, expires=fetched.expires, now=now, era=era)
        self._check_idle()
        self._check_bundle(_read_checked(fetched), fetched.offer)
        with disk_errors(f"cannot install {fetched.offer.target}"):
            return settle(fetched, self._idle_slot(), era=era)

    def begin_trial(self, installed: Installed, *, now_ms: int) -> None:
        """Note on disk that this is about to be tried, before any of it is loaded.

        Raises:
            OutOfTurnError: there is a trial already, or this one serves.
        """
        trial = OnTrial(
            slot=installed.directory.name,
            version=installed.offer.version,
            sha256=installed.sha256,
            since_ms=now_ms,
        )
        self._change(lambda standing: standing.begin(trial))

    def commit(self, installed: Installed) -> None:
        """From now on this serves, also after a restart; a trial ends with it."""
        self._change(lambda standing: standing.commit(installed.directory.name, installed.sha256))
        self._candidates.remove(up_to=installed.offer.version)

    def end_trial(self) -> None:
        """The committed slot serves again; nothing is held against what was tried."""
        self._change(Standing.end_trial)

    def refuse(self, installed: Installed, *, why: str) -> None:
        """Go back from a release, or never begin it: it is not tried again."""
        offer = installed.offer
        refusal = Refusal(version=offer.version, sha256=offer.sha256, why=why, era=installed.era)
        self._change(lambda standing: standing.refuse(refusal))

    def start(self, *, max_boots: int) -> Refusal | None:
        """Called once when the process starts: a release on trial under which it keeps crashing is refused.

        Args:
            max_boots: so often a crashed process comes back to the release on trial.

        Returns:
            What was refused now.
        """
        trial = self.standing().trial
        if trial is None:
            return None
        if trial.starts <= max_boots:
            self._change(Standing.start)
            return None
        why = f"the edge crashed {trial.starts} times during its trial"
        installed = self.on_trial()
        era = installed.era if installed else 1
        refusal = Refusal(version=trial.version, sha256=trial.sha256, why=why, era=era)
        self._change(lambda standing: standing.refuse(refusal))
        return refusal

    def rest(self) -> None:
        """Called when the process ends in good order."""
        if self.standing().trial is not None:
            self._change(Standing.rest)

    def install_catalogue(self, fetched: Fetched, *, now: datetime, era: int = 1) -> Installed:
        """Install a shared catalogue; older ones stay while a bundle on this disk needs them.

        Raises:
            RollbackError: see `check`; so do ExpiredReleaseError and UntrustedReleaseError.
            BadSignatureError: the disk does not hold what was signed.
            NoSpaceError: the disk is full.
        """
        self.check(fetched.offer, expires=fetched.expires, now=now, era=era)
        _check_catalogue(_read_checked(fetched), fetched.offer)
        bundles = [*self.slots(), self.candidate()]
        return self._catalogues.install(fetched, era=era, bundles=[found for found in bundles if found is not None])

    def check_candidate(self, offer: Offer, *, expires: datetime, now: datetime, era: int = 1) -> None:
        """Would this candidate be kept? Ask before fetching it.

        Raises:
            RollbackError: it is here already, or see `check`.
        """
        self.check(offer, expires=expires, now=now, era=era)
        known = self.candidate()
        if known is not None and known.era >= era and offer.version <= known.offer.version:
            raise RollbackError(f"candidate {offer.version} is not newer than candidate {known.offer.version}")

    def install_candidate(self, fetched: Fetched, *, now: datetime, era: int = 1) -> Installed:
        """Keep a candidate, to be measured; older ones go.

        Raises:
            RollbackError: see `check_candidate`; so do ExpiredReleaseError and UntrustedReleaseError.
            BadSignatureError: the disk does not hold what was signed.
            UntrustedReleaseError: it needs a catalogue that is missing.
            NoSpaceError: the disk is full.
        """
        self.check_candidate(fetched.offer, expires=fetched.expires, now=now, era=era)
        self._check_bundle(_read_checked(fetched), fetched.offer)
        return self._candidates.install(fetched, era=era)

    def remove_candidate(self, candidate: Installed) -> None:
        """It is not to be measured after all."""
        self._candidates.remove(up_to=candidate.offer.version)

    def sweep(self) -> None:
        """Remove what interrupted downloads have left, once nothing is on its way."""
        for folder in self._downloads.glob("*"):
            for left in folder.glob("*") if folder.is_dir() else ():
                shutil.rmtree(left, ignore_errors=True)

    def standing(self) -> Standing:
        """How the slots stand, as far as their files bear it out."""
        try:
            standing = Standing.from_bytes((self._slots / "standing.json").read_bytes())
        except FileNotFoundError:
            return Standing()
        except MalformedMessageError:
            return self._guessed()
        trial = standing.trial
        if trial is not None and not self._holds(trial.slot, [trial.sha256]):
            standing = standing.end_trial()
        name = standing.committed
        if name and not self._holds(name, standing.proven):
            other = OTHER[name] if self._holds(OTHER[name], standing.proven) else ""
            standing = replace(standing, committed=other)
        return standing

    def _holds(self, slot: str, digests: Iterable[str]) -> bool:
        """Does a slot hold one of these bundles, whole? What was never committed stands in for nothing."""
        found = Installed.load(self._slots / slot)
        return found is not None and found.sha256 in digests

    def _guessed(self) -> Standing:
        """The file is damaged: of two slots the older release, since the newer may be on trial."""
        if not (found := self.slots()):
            return Standing()
        oldest = min(found, key=lambda one: one.offer.version)
        return Standing().commit(oldest.directory.name, oldest.sha256)

    def _take_up(self, found: Installed, offer: Offer, *, era: int) -> Installed:
        if found.directory.parent != self._slots:
            return resettle(found, self._idle_slot(), offer, era=era)
        taken = replace(found, offer=offer, era=era)
        taken.save()
        return taken

    def _check_idle(self) -> None:
        trial = self.standing().trial
        if trial is not None:
            raise OutOfTurnError(f"release {trial.version} is on trial, its slot is not free")

    def _check_bundle(self, found: Card, offer: Offer) -> None:
        if not isinstance(found, BundleCard) or found.federation != self._federation:
            raise UntrustedReleaseError(f"{offer.target} is no bundle of federation {self._federation}")
        if found.version > offer.version:
            raise UntrustedReleaseError(f"{offer.target} holds the card of release {found.version}")
        self.catalogue_of(found)

    def _idle_slot(self) -> Path:
        committed = self.standing().committed
        return self._slots / (OTHER[committed] if committed else "a")

    def _change(self, step: Callable[[Standing], Standing]) -> None:
        with self._turn, disk_errors("cannot note which slot serves"):
            durable.write(self._slots / "standing.json", step(self.standing()).to_bytes())


def _read_checked(fetched: Fetched) -> Card:
    """The card of a download whose files are those that were signed and that the card lists."""
    found = measure(fetched.directory)
    check_directory(fetched.manifest, found)
    if fetched.manifest.bundle_digest != fetched.offer.sha256:
        raise UntrustedReleaseError(f"the files of {fetched.offer.target} are not those that it offers")
    read = card.parse(fetched.offer.kind, (fetched.directory / CARD).read_bytes())
    card.check_listed(read, found)
    return read


def _check_catalogue(found: Card, offer: Offer) -> None:
    if not isinstance(found, CatalogueCard) or CATALOGUE_FILE not in found.files:
        raise UntrustedReleaseError(f"{offer.target} holds no {CATALOGUE_FILE}")
