"""The folder ``search/``: one index a folder, and a file that names the one in force.

A new index is filled beside the one in force and takes its place by one rename. Whatever a process left behind when it
died is no index in force, and goes. All of it is derived from the store: to delete the folder loses nothing.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from edge import durable
from edge.search.documents import FORMAT, Stems
from edge.search.index import DamagedIndexError, Index, remove
from protocol import canonical
from protocol.errors import MalformedMessageError

_POINTER: Final = "current.json"
_MARK: Final = "mark.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What an index was made from and how; another one of these needs another index.

    Attributes:
        language: whose endings were cut off.
        catalogue: digest of the shared catalogue whose texts stand in for missing ones; empty: none.
        listed: whether this site lists what it sells; if not, all of the catalogue is in the index.
    """

    language: str
    catalogue: str
    listed: bool
    format: int = FORMAT


class Versions:
    """The indexes in one folder, used by one process at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def current(self) -> tuple[Index, Source] | None:
        """The index in force; None: there is none that can be used."""
        named = self._named()
        if named is None:
            return None
        number, source = named
        try:
            return Index.open(self._folder(number), Stems(source.language)), source
        except DamagedIndexError:
            return None

    def begin(self, source: Source) -> Index:
        """An empty index beside the one in force.

        Raises:
            NoSpaceError: the disk is full.
        """
        self.sweep()
        numbers = [int(path.name) for path in self._directory.glob("[0-9]*") if path.name.isdecimal()]
        folder = self._folder(max(numbers, default=0) + 1)
        folder.mkdir(parents=True)
        return Index.create(folder, Stems(source.language))

    def promote(self, index: Index, source: Source) -> None:
        """From now on this one is in force."""
        pointer = {"folder": int(index.directory.name), **asdict(source)}
        durable.write(self._directory / _POINTER, canonical.encode(pointer))
        self.sweep(index)

    def drop(self) -> None:
        """No index is in force: the next start builds one."""
        (self._directory / _POINTER).unlink(missing_ok=True)

    def sweep(self, *kept: Index) -> None:
        """Remove what is not in force and not among these."""
        named = self._named()
        wanted = {index.directory for index in kept} | ({self._folder(named[0])} if named else set())
        for path in self._directory.glob("[0-9]*"):
            if path not in wanted:
                remove(path)

    def _folder(self, number: int) -> Path:
        return self._directory / str(number)

    def _named(self) -> tuple[int, Source] | None:
        try:
            match canonical.decode((self._directory / _POINTER).read_bytes()):
                case {
                    "folder": int(folder),
                    "language": str(language),
                    "catalogue": str(catalogue),
                    "listed": bool(listed),
                    "format": int(number),
                } if number == FORMAT:
                    return folder, Source(language=language, catalogue=catalogue, listed=listed)
        except (OSError, MalformedMessageError):
            pass
        return None


def write_mark(index: Index, mark: int) -> None:
    """Note up to which change of items an index is committed: after the commit, so that it never says too much."""
    durable.write(index.directory / _MARK, canonical.encode({"items": mark}))


def read_mark(index: Index) -> int:
    """The mark noted last; 0: all items have to be looked at again, which changes nothing that is right."""
    try:
        match canonical.decode((index.directory / _MARK).read_bytes()):
            case {"items": int(mark)}:
                return mark
    except (OSError, MalformedMessageError):
        pass
    return 0
