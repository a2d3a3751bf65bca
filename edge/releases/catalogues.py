"""The shared catalogues on this disk: the newest, and those that an installed bundle numbers its items by.

catalogue/<version>/    the files           catalogue/<version>.json    what is in them; written when complete
In a later era than the first its number follows: catalogue/<version>-<era>.
"""

from collections.abc import Iterable
from pathlib import Path

from edge.releases.assembly import Fetched, disk_errors
from edge.releases.installed import Installed, remove, settle
from protocol.card import CATALOGUE_FILE, BundleCard
from protocol.errors import UntrustedReleaseError


class Catalogues:
    """All catalogues under an edge's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "catalogue"

    def newest(self) -> Installed | None:
        return max(self._all(), key=lambda found: (found.era, found.offer.version), default=None)

    def of(self, bundle: BundleCard) -> Installed:
        """The one whose rows a bundle's item numbers are.

        Raises:
            UntrustedReleaseError: it is not installed.
        """
        for found in self._all():
            if found.files[CATALOGUE_FILE].sha256 == bundle.catalogue_sha256:
                return found
        raise UntrustedReleaseError(
            f"bundle {bundle.version} needs catalogue {bundle.catalogue_version}, which is not installed"
        )

    def install(self, fetched: Fetched, *, era: int, bundles: Iterable[Installed]) -> Installed:
        """Install one, and remove those that nobody needs.

        Args:
            bundles: everything on this disk that numbers its items by a catalogue.

        Raises:
            BadSignatureError: the disk does not hold what was signed.
            NoSpaceError: the disk is full.
        """
        with disk_errors(f"cannot install {fetched.offer.target}"):
            name = f"{fetched.offer.version}" if era == 1 else f"{fetched.offer.version}-{era}"
            installed = settle(fetched, self._folder / name, era=era)
            cards = [bundle.read_card() for bundle in bundles]
            needed = {found.catalogue_sha256 for found in cards if isinstance(found, BundleCard)}
            for place in self._places():
                found = Installed.load(place)
                wanted = found is not None and found.files[CATALOGUE_FILE].sha256 in needed
                if place != installed.directory and not wanted:
                    remove(place)
        return installed

    def _places(self) -> list[Path]:
        return [path for path in self._folder.glob("*") if path.is_dir()]

    def _all(self) -> list[Installed]:
        found = (Installed.load(place) for place in self._places())
        return [one for one in found if one is not None and CATALOGUE_FILE in one.files]
