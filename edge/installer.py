"""Two slots: a release is installed in the idle one, tried, and committed by one atomic rename.

slots/a/ slots/b/       the files           slots/a.json slots/b.json   what is in them; written when complete
slots/committed         "a" or "b"          slots/refused.json          release that did not load, never tried again
catalogue/<version>/    the files           catalogue/<version>.json    likewise
"""

import errno
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from edge import durable
from edge.assembly import Fetched, disk_errors, measure
from protocol import canonical, card
from protocol.bundle import CARD, FileDigest, Manifest, check_directory
from protocol.card import CATALOGUE_FILE, BundleCard, CatalogueCard
from protocol.errors import MalformedMessageError, RollbackError, UntrustedReleaseError
from protocol.identity import FederationId
from protocol.release import Kind, Offer, check_installable
from protocol.sealing import digest

Loaded = TypeVar("Loaded")

_OTHER = {"a": "b", "b": "a"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A complete release on this disk.

    Attributes:
        directory: its files; nothing changes them while they are committed.
        sha256: digest of the signed manifest.
        files: every file, as the manifest lists it.
    """

    directory: Path
    offer: Offer
    sha256: str
    files: dict[str, FileDigest]

    def read_card(self) -> BundleCard | CatalogueCard:
        """The card that came with it.

        Raises:
            MalformedMessageError: not a card of its kind.
        """
        return card.parse(self.offer.kind, (self.directory / CARD).read_bytes())

    def to_bytes(self) -> bytes:
        return canonical.encode(
            {
                "format": 1,
                "custom": self.offer.to_custom(),
                "sha256": self.sha256,
                "files": {path: file.to_json() for path, file in self.files.items()},
            }
        )

    @classmethod
    def of(cls, directory: Path, offer: Offer, manifest: Manifest) -> Self:
        files = {path: entry.file for path, entry in manifest.files.items()}
        return cls(directory=directory, offer=offer, sha256=digest(manifest.to_bytes()), files=files)

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """What the record beside a directory says, if there is one and the files are there."""
        try:
            value = canonical.decode(_record(directory).read_bytes())
        except (FileNotFoundError, MalformedMessageError):
            return None
        match value:
            case {"format": 1, "custom": {"kind": kind, "version": version} as custom, "sha256": sha256, "files": rows}:
                files = {path: FileDigest.from_json(path, row) for path, row in rows.items()}
                offer = Offer.from_custom(f"{kind}/{version}.json", custom)
                found = cls(directory=directory, offer=offer, sha256=sha256, files=files)
                return found if found.is_whole() else None
            case _:
                return None

    def is_whole(self) -> bool:
        """Do all files exist with their right size? Cheap enough for every start."""
        paths = {self.directory / path: file.size for path, file in self.files.items()}
        return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


class Installer:
    """Installs releases and catalogues under an edge's folder; one process at a time."""

    def __init__(self, folder: Path, *, federation: FederationId, edge_version: str) -> None:
        self._slots = folder / "slots"
        self._catalogues = folder / "catalogue"
        self._federation = federation
        self._edge_version = edge_version

    def bundle(self) -> Installed | None:
        """The committed bundle; the other slot's if the committed one is damaged; None before the first."""
        name = self._committed()
        return Installed.load(self._slots / name) or Installed.load(self._slots / _OTHER[name])

    def catalogue(self) -> Installed | None:
        """The newest installed catalogue."""
        return max(self._all_catalogues(), key=lambda found: found.offer.version, default=None)

    def catalogue_of(self, bundle: BundleCard) -> Installed:
        """The catalogue whose rows a bundle's item numbers are.

        Raises:
            UntrustedReleaseError: it is not installed.
        """
        for found in self._all_catalogues():
            if found.files[CATALOGUE_FILE].sha256 == bundle.catalogue_sha256:
                return found
        raise UntrustedReleaseError(
            f"bundle {bundle.version} needs catalogue {bundle.catalogue_version}, which is not installed"
        )

    def check(self, offer: Offer, *, expires: datetime, now: datetime) -> None:
        """Would this release be installed? Ask before fetching it.

        Raises:
            RollbackError: not newer, a superseded center's, or one that did not load on this edge.
            ExpiredReleaseError: its metadata are too old.
            UntrustedReleaseError: it needs newer edge software.
        """
        installed = self.bundle() if offer.kind is Kind.BUNDLE else self.catalogue()
        present = [found for found in (self.bundle(), self.catalogue()) if found is not None]
        check_installable(
            offer,
            installed_version=installed.offer.version if installed else 0,
            center_epoch_seen=max((found.offer.epoch for found in present), default=0),
            edge_version=self._edge_version,
            expires=expires,
            now=now,
        )
        if offer.kind is Kind.BUNDLE and (refused := self._refused()).get("version") == offer.version:
            raise RollbackError(f"{offer.target} was tried and taken back: {refused['why']}")

    def install(self, fetched: Fetched, *, load: Callable[[Path], Loaded], now: datetime) -> Loaded:
        """Install a bundle in the idle slot, warm it up, commit.

        Args:
            fetched: its directory is moved into the slot.
            load: loads and warms up what will serve; whatever it raises, the old release stays.

        Returns:
            What `load` returned; swap to it between two requests.

        Raises:
            RollbackError: see `check`; so do ExpiredReleaseError and UntrustedReleaseError.
            BadSignatureError: the disk does not hold what was signed.
            UntrustedReleaseError: it needs a catalogue that is missing, or does not load.
            NoSpaceError: the disk is full; the old release is intact.
        """
        self.check(fetched.offer, expires=fetched.expires, now=now)
        _check_files(fetched, self._check_bundle)
        slot = self._idle_slot()
        with disk_errors(f"cannot install {fetched.offer.target}"):
            _move(fetched.directory, slot)
            check_directory(fetched.manifest, measure(slot))
        try:
            loaded = load(slot)
        except Exception as error:
            self._refuse(fetched.offer, why=str(error))
            shutil.rmtree(slot)
            raise UntrustedReleaseError(f"{fetched.offer.target} does not load: {error}") from error
        with disk_errors(f"cannot commit {fetched.offer.target}"):
            durable.write(_record(slot), Installed.of(slot, fetched.offer, fetched.manifest).to_bytes())
            durable.write(self._slots / "committed", slot.name.encode())
        return loaded

    def go_back(self, *, why: str) -> Installed:
        """Take the committed bundle back; the one before serves again.

        Raises:
            UntrustedReleaseError: there is none before it.
        """
        name = self._committed()
        current, before = Installed.load(self._slots / name), Installed.load(self._slots / _OTHER[name])
        if before is None:
            raise UntrustedReleaseError("there is no older release in the other slot")
        if current is not None:
            self._refuse(current.offer, why=why)
        durable.write(self._slots / "committed", _OTHER[name].encode())
        return before

    def install_catalogue(self, fetched: Fetched, *, now: datetime) -> Installed:
        """Install a shared catalogue; older ones stay while a slot needs them.

        Raises:
            RollbackError: see `check`; so do ExpiredReleaseError and UntrustedReleaseError.
            BadSignatureError: the disk does not hold what was signed.
            NoSpaceError: the disk is full.
        """
        self.check(fetched.offer, expires=fetched.expires, now=now)
        _check_files(fetched, _check_catalogue)
        place = self._catalogues / str(fetched.offer.version)
        installed = Installed.of(place, fetched.offer, fetched.manifest)
        with disk_errors(f"cannot install {fetched.offer.target}"):
            _move(fetched.directory, place)
            check_directory(fetched.manifest, measure(place))
            durable.write(_record(place), installed.to_bytes())
            self._remove_unused_catalogues(newest=fetched.offer.version)
        return installed

    def known(self, kind: Kind) -> list[Path]:
        """Directories whose blocks the next release of this kind may share."""
        if kind is Kind.BUNDLE:
            return [slot for name in "ab" if (slot := self._slots / name).is_dir()]
        newest = self.catalogue()
        return [newest.directory] if newest else []

    def _check_bundle(self, found: BundleCard | CatalogueCard, offer: Offer) -> None:
        if not isinstance(found, BundleCard) or found.federation != self._federation:
            raise UntrustedReleaseError(f"{offer.target} is no bundle of federation {self._federation}")
        if found.version > offer.version:
            raise UntrustedReleaseError(f"{offer.target} holds the card of release {found.version}")
        self.catalogue_of(found)

    def _idle_slot(self) -> Path:
        # Not simply "the other than committed": if the committed one is damaged, the other one serves.
        serving = self.bundle()
        return self._slots / (_OTHER[serving.directory.name] if serving else "a")

    def _committed(self) -> str:
        try:
            name = (self._slots / "committed").read_text("ascii").strip()
        except FileNotFoundError:
            return "a"
        return name if name in _OTHER else "a"

    def _all_catalogues(self) -> list[Installed]:
        places = [path for path in self._catalogues.glob("*") if path.name.isdigit()]
        return [found for place in places if (found := Installed.load(place)) is not None]

    def _remove_unused_catalogues(self, *, newest: int) -> None:
        slots = [found for name in "ab" if (found := Installed.load(self._slots / name)) is not None]
        cards = [found.read_card() for found in slots]
        needed = {found.catalogue_sha256 for found in cards if isinstance(found, BundleCard)}
        for place in [path for path in self._catalogues.glob("*") if path.name.isdigit()]:
            found = Installed.load(place)
            wanted = found is not None and found.files[CATALOGUE_FILE].sha256 in needed
            if place.name != str(newest) and not wanted:
                _clear(place)

    def _refused(self) -> dict[str, Any]:
        try:
            value = canonical.decode((self._slots / "refused.json").read_bytes())
        except (FileNotFoundError, MalformedMessageError):
            return {}
        return value if isinstance(value, dict) else {}

    def _refuse(self, offer: Offer, *, why: str) -> None:
        record = canonical.encode({"version": offer.version, "why": why[:500]})
        durable.write(self._slots / "refused.json", record)


def _record(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.json")


def _check_files(fetched: Fetched, check_card: Callable[[BundleCard | CatalogueCard, Offer], None]) -> None:
    found = measure(fetched.directory)
    check_directory(fetched.manifest, found)
    read = card.parse(fetched.offer.kind, (fetched.directory / CARD).read_bytes())
    card.check_listed(read, found)
    check_card(read, fetched.offer)


def _check_catalogue(found: BundleCard | CatalogueCard, offer: Offer) -> None:
    if not isinstance(found, CatalogueCard) or CATALOGUE_FILE not in found.files:
        raise UntrustedReleaseError(f"{offer.target} holds no {CATALOGUE_FILE}")


def _clear(place: Path) -> None:
    # The record goes first: a directory without one is never served, however much of it is left.
    _record(place).unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    durable.flush_directory(place.parent)
    if place.exists():
        shutil.rmtree(place)


def _move(source: Path, place: Path) -> None:
    _clear(place)
    try:
        source.rename(place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(source, place)
        measure(place, flush=True)
        shutil.rmtree(source)
    durable.flush_directory(place.parent)
