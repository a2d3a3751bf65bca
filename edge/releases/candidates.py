"""The candidate for a release, on this disk to be measured in a round, never served (SPEC 9.7).

candidate/<version>/    the files           candidate/<version>.json    what is in them; written when complete
"""

from pathlib import Path

from edge.releases.assembly import Fetched, disk_errors
from edge.releases.installed import Installed, remove, settle


class Candidates:
    """At most one candidate under an edge's folder: the newest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "candidate"

    def newest(self) -> Installed | None:
        found = [one for place in self._places() if (one := Installed.load(place)) is not None]
        return max(found, key=lambda one: one.offer.version, default=None)

    def install(self, fetched: Fetched, *, era: int) -> Installed:
        """Keep this one in the place of all others.

        Raises:
            BadSignatureError: the disk does not hold what was signed.
            NoSpaceError: the disk is full.
        """
        with disk_errors(f"cannot keep {fetched.offer.target}"):
            place = self._folder / str(fetched.offer.version)
            self._remove_all_but(place)
            return settle(fetched, place, era=era)

    def remove(self, *, up_to: int) -> None:
        """Remove what is no newer than this."""
        for place in self._places():
            if int(place.name) <= up_to:
                remove(place)

    def _remove_all_but(self, kept: Path) -> None:
        for place in self._places():
            if place != kept:
                remove(place)

    def _places(self) -> list[Path]:
        return [path for path in self._folder.glob("*") if path.name.isdigit()]
