"""The plaintext of releases on the center's disk: `releases/bundle-7`, `releases/catalogue-2`."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from protocol.bundle import FileDigest, bundle_digest
from protocol.release import Kind, Offer

FOLDER = "releases"

_NAME = re.compile(rf"({'|'.join(Kind)})-([1-9][0-9]{{0,9}})")
_DYING = ".removed-"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFolder:
    """One release as it was built."""

    path: Path
    kind: Kind
    number: int

    @property
    def sha256(self) -> str:
        """The bundle digest of what lies there now, hexadecimal; reads every file.

        Raises:
            OSError: a file cannot be read.
        """
        files = [path for path in sorted(self.path.rglob("*")) if path.is_file()]
        return bundle_digest({path.relative_to(self.path).as_posix(): _digest(path) for path in files})


def folders(directory: Path) -> Iterator[ReleaseFolder]:
    """Those of a center's folder, the newest of each kind first."""
    found = [(match, path) for path in (directory / FOLDER).glob("*") if (match := _NAME.fullmatch(path.name))]
    for match, path in sorted(found, key=lambda one: (one[0][1], -int(one[0][2]))):
        yield ReleaseFolder(path=path, kind=Kind(match[1]), number=int(match[2]))


def folder_of(directory: Path, offer: Offer) -> Path | None:
    """Where the files of an offer lie; None if they are gone or are not what they were."""
    candidates = [folder for folder in folders(directory) if folder.kind is offer.kind]
    candidates.sort(key=lambda folder: folder.number != offer.version)  # a rollback's files have an older number
    return next((folder.path for folder in candidates if folder.sha256 == offer.sha256), None)


def remove(folder: Path) -> None:
    """Delete a release's files. Killed in the middle, what is left is no release, and goes with the next one."""
    folder.rename(folder.with_name(_DYING + folder.name))
    for dying in folder.parent.glob(f"{_DYING}*"):
        shutil.rmtree(dying)


def _digest(path: Path) -> FileDigest:
    with path.open("rb") as file:
        return FileDigest(size=path.stat().st_size, sha256=file_digest(file, "sha256").hexdigest())
