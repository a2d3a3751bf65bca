"""A release that lies whole on this disk, and the record beside it that says so.

The record is written last and removed first: a directory without one is never served, however much of it is left.
"""

import errno
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from edge import durable
from edge.releases.assembly import Fetched, measure
from protocol import canonical, card
from protocol.bundle import CARD, FileDigest, bundle_digest, check_directory
from protocol.card import Card
from protocol.errors import BadSignatureError, MalformedMessageError
from protocol.release import Offer


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A complete release on this disk.

    Attributes:
        directory: its files; nothing changes them while the record stands.
        files: every file, as the signed manifest lists it.
        era: of the metadata that offered it (SPEC 9.6): numbers of an older era bind nobody.
    """

    directory: Path
    offer: Offer
    files: Mapping[str, FileDigest]
    era: int = 1

    @property
    def sha256(self) -> str:
        """The digest of these files, hexadecimal, whatever name they are offered under."""
        return bundle_digest(self.files)

    def read_card(self) -> Card:
        """The card that came with it.

        Raises:
            MalformedMessageError: not a card of its kind.
        """
        return card.parse(self.offer.kind, (self.directory / CARD).read_bytes())

    def save(self) -> None:
        """Write the record: from here on the directory counts."""
        content = {
            "format": 2,
            "target": self.offer.target,
            "custom": self.offer.to_custom(),
            "era": self.era,
            "files": {path: file.to_json() for path, file in self.files.items()},
        }
        durable.write(_record(self.directory), canonical.encode(content))

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """What the record beside a directory says, if there is one and the files are there."""
        try:
            value = canonical.decode(_record(directory).read_bytes())
            match value:
                case {"format": 2, "target": str(target), "custom": custom, "era": int(era), "files": dict(rows)}:
                    files = {path: FileDigest.from_json(path, row) for path, row in rows.items()}
                    found = cls(directory=directory, offer=Offer.from_custom(target, custom), files=files, era=era)
                    return found if found.is_whole() else None
                case _:
                    return None
        except (FileNotFoundError, MalformedMessageError):
            return None

    def is_whole(self) -> bool:
        """Do all files exist with their right size? Cheap enough for every start."""
        paths = {self.directory / path: file.size for path, file in self.files.items()}
        return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())

    def check_bytes(self) -> None:
        """Read every file again.

        Raises:
            BadSignatureError: one does not hold what was signed.
            UntrustedReleaseError: there is a link among them.
        """
        if measure(self.directory) != dict(self.files):
            raise BadSignatureError(f"{self.directory} does not hold what {self.offer.target} says")


def settle(fetched: Fetched, place: Path, *, era: int) -> Installed:
    """Move a download to its place, read every file of it there, and write its record.

    Raises:
        BadSignatureError: the disk does not hold what was signed.
        UntrustedReleaseError: there is a link among the files.
    """
    files = {path: entry.file for path, entry in fetched.manifest.files.items()}
    _move(fetched.directory, place)
    check_directory(fetched.manifest, measure(place))
    installed = Installed(directory=place, offer=fetched.offer, files=files, era=era)
    installed.save()
    return installed


def resettle(found: Installed, place: Path, offer: Offer, *, era: int) -> Installed:
    """The same files at another place and under another offer, checked after the move."""
    record = _record(found.directory)
    remove(place)
    record.unlink()
    durable.flush_directory(record.parent)
    _rename(found.directory, place)
    moved = Installed(directory=place, offer=offer, files=found.files, era=era)
    moved.check_bytes()
    moved.save()
    return moved


def remove(place: Path) -> None:
    """Take a release from the disk, its record first."""
    _record(place).unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    durable.flush_directory(place.parent)
    if place.exists():
        shutil.rmtree(place)


def _record(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.json")


def _move(source: Path, place: Path) -> None:
    remove(place)
    _rename(source, place)


def _rename(source: Path, place: Path) -> None:
    try:
        source.rename(place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(source, place)
        measure(place, flush=True)
        shutil.rmtree(source)
    durable.flush_directory(place.parent)
