"""What a release will take of memory, judged by its files before any of them is loaded."""

from dataclasses import dataclass
from typing import Final, Self

from edge.serving.ranker import MOST_WIDE_BYTES
from protocol.card import BundleCard

_GRAPH_COPIES: Final = 3  # read, checked, packed
_TABLE_COPIES: Final = 3  # mapped, checked, and by place
_UNPACKED: Final = 1.3  # a catalogue is read as a whole, and some of it is kept
_ITEM_BYTES: Final = 100  # of a numbering and a catalogue: offsets, hashes, codes, prices
_SPARE: Final = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A release's files.

    Attributes:
        graphs: bytes of the ONNX files.
        tables: bytes of the item vectors of each submodel.
        rest: bytes of all other files.
        items: of the catalogue.
        private: items that only this site sells.
        catalogue: bytes of the unpacked catalogue; 0: it is loaded already.
    """

    graphs: int
    tables: tuple[int, ...]
    rest: int
    items: int
    private: int = 0
    catalogue: int = 0

    @classmethod
    def of(cls, card: BundleCard, *, items: int, private: int, catalogue: int) -> Self:
        """Of a bundle, by its card."""
        sizes = {path: file.size for path, file in card.files.items()}
        graphs = sum(size for path, size in sizes.items() if path.endswith(".onnx"))
        tables = tuple(size for path, size in sizes.items() if path.endswith("item_vectors.bin"))
        rest = sum(sizes.values()) - graphs - sum(tables)
        return cls(graphs=graphs, tables=tables, rest=rest, items=items, private=private, catalogue=catalogue)

    @property
    def bytes(self) -> int:
        """At the most, while it is loaded."""
        wide = sum(2 * size for size in self.tables if 2 * size <= MOST_WIDE_BYTES)
        own = sum(2 * self.private * size // max(self.items, 1) for size in self.tables)
        shelf = _ITEM_BYTES * (self.items + self.private) if self.catalogue else 0
        files = _GRAPH_COPIES * self.graphs + sum(self.tables) + _TABLE_COPIES * self.rest
        return files + wide + own + shelf + round(_UNPACKED * self.catalogue) + _SPARE
