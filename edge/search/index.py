"""One index on disk: documents in, a committed state to search in out.

What is written is seen by nobody before `commit`, and a process that dies leaves the last committed state.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

import tantivy

from edge.breaths import in_breaths
from edge.search.documents import SCHEMA, Entry, Stems, document
from edge.search.vocabulary import Vocabulary
from protocol.errors import NoSpaceError, UnavailableError

_HEAP_BYTES: Final = 16 << 20
_BULK_HEAP_BYTES: Final = 64 << 20  # one large segment is searched faster than several; used only as far as needed
_DISK_FULL = ("No space left", "os error 28")


class DamagedIndexError(UnavailableError):
    """The index cannot be read; it is derived from the store and is built anew."""


class Reader:
    """One committed state of an index, which later writing does not change.

    Attributes:
        vocabulary: the words that it knows, for corrections; of this state or of one a little older.
    """

    __slots__ = ("searcher", "stems", "vocabulary")

    def __init__(self, searcher: tantivy.Searcher, stems: Stems, vocabulary: Vocabulary) -> None:
        self.searcher = searcher
        self.stems = stems
        self.vocabulary = vocabulary

    @property
    def items(self) -> int:
        return self.searcher.num_docs

    def keys(self, addresses: list[tantivy.DocAddress]) -> list[int]:
        """The keys of documents that were found."""
        keys: list[Any] = self.searcher.fast_field_values("key", addresses)
        return keys


class Index:
    """An index in a folder of its own; one thread writes, any number read."""

    def __init__(self, directory: Path, index: tantivy.Index, stems: Stems) -> None:
        self.directory = directory
        self._index = index
        self._stems = stems
        self._vocabulary = Vocabulary(())
        self.reader = self._read()

    @classmethod
    def create(cls, directory: Path, stems: Stems) -> Self:
        """An empty one, in a folder that is there and empty."""
        with _plainly(directory):
            return cls(directory, _manual(tantivy.Index(SCHEMA, str(directory), reuse=False)), stems)

    @classmethod
    def open(cls, directory: Path, stems: Stems) -> Self:
        """One that was committed.

        Raises:
            DamagedIndexError: there is none that can be read.
        """
        with _plainly(directory):
            index = cls(directory, _manual(tantivy.Index(SCHEMA, str(directory), reuse=True)), stems)
            index.learn_words()
            return index

    def put(self, entries: Iterable[Entry], *, gone: Iterable[int] = (), fresh: bool = False) -> None:
        """Write items, replacing what was known under their keys, and commit.

        Args:
            gone: keys of items that are to be found no more.
            fresh: the index holds none of these yet.

        Raises:
            NoSpaceError: the disk is full; nothing has changed.
            DamagedIndexError: the index cannot be written.
        """
        with _plainly(self.directory):
            writer = self._index.writer(_BULK_HEAP_BYTES if fresh else _HEAP_BYTES, 1)
            try:
                for key in gone:
                    writer.delete_documents_by_term("key", key)
                for entry in in_breaths(entries):
                    if not fresh:
                        writer.delete_documents_by_term("key", entry.key)
                    writer.add_document(document(entry, self._stems))
                writer.commit()
            except BaseException:
                with suppress(ValueError):
                    writer.rollback()
                raise
            writer.wait_merging_threads()
            self.reader = self._read()

    def learn_words(self) -> None:
        """Know the words of what is committed now; takes some 20 ms for 20,000 words."""
        self._vocabulary = Vocabulary(self.reader.searcher.terms_with_prefix("word", ""))
        self.reader = self._read()

    def _read(self) -> Reader:
        self._index.reload()
        return Reader(self._index.searcher(), self._stems, self._vocabulary)


def _manual(index: tantivy.Index) -> tantivy.Index:
    index.config_reader("manual")
    return index


@contextmanager
def _plainly(directory: Path) -> Iterator[None]:
    """Tantivy's complaints in our words."""
    try:
        yield
    except (ValueError, OSError) as error:
        if any(sign in str(error) for sign in _DISK_FULL):
            raise NoSpaceError(f"the disk that holds {directory} is full", advice="free some space") from error
        raise DamagedIndexError(f"the index in {directory} cannot be used: {error}") from error
    except BaseException as error:
        if not is_panic(error):
            raise
        raise DamagedIndexError(f"the index in {directory} cannot be read: {error}") from error


def is_panic(error: BaseException) -> bool:
    """Whether Rust gave up inside Tantivy, as it does on a file that is not what it was."""
    return type(error).__module__ == "pyo3_runtime"


def remove(directory: Path) -> None:
    """Take an index off the disk, whatever is left of it."""
    with suppress(FileNotFoundError):
        for path in sorted(directory.rglob("*"), reverse=True):
            path.unlink(missing_ok=True) if not path.is_dir() else path.rmdir()
        directory.rmdir()
