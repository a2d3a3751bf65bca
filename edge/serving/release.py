"""What the query service answers from: an installed release, and everything of the site that goes with it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge.records.store import Store
from edge.releases.catalogue import Catalogue
from edge.search.semantic import Semantic
from edge.serving.fusion import FusionWeights
from edge.serving.ranker import SUBMODEL, Ranker, table
from edge.serving.shelf import Shelf
from edge.serving.vectors import Vectors
from protocol.bundle import CARD
from protocol.card import BundleCard
from protocol.content import BUCKETS
from protocol.errors import UntrustedReleaseError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Release:
    """A loaded bundle.

    Attributes:
        version: the version under which it is offered; a rollback offers an older bundle under a new one.
        sha256: the bundle's digest, hexadecimal.
        popularity: float32[n+1], how often the federation bought each row.
        tokens: float16[BUCKETS+1, d], embeddings of the words that items are described with; None: an older center
            made it, and items that the catalogue lacks have no vectors.
        semantic: the submodel `search`; None: the bundle has none.
        file_bytes: of all its files, which are read or mapped.
    """

    version: int
    sha256: str
    ranker: Ranker
    catalogue: Catalogue
    popularity: NDArray[np.float32]
    tokens: NDArray[np.float16] | None = None
    semantic: Semantic | None = None
    file_bytes: int = 0

    @classmethod
    def load(cls, directory: Path, catalogue: Catalogue, *, version: int, sha256: str) -> Self:
        """Load and ask once.

        Raises:
            UntrustedReleaseError: it has no submodel `recommend`, is of another catalogue, or a file is wrong.
            MalformedMessageError: ``card.json`` is not the card of a bundle.
        """
        try:
            card = BundleCard.from_bytes((directory / CARD).read_bytes())
        except OSError as error:
            raise UntrustedReleaseError(f"{directory} holds no card: {error.strerror}") from error
        match card.submodels.get(SUBMODEL):
            case {"history_length": int(history), "embedding_size": int(size), "items": int(items)} if (
                min(history, size, items) > 0
            ):
                pass
            case _:
                raise UntrustedReleaseError(f"bundle {card.version} has no usable submodel {SUBMODEL}")
        if card.catalogue_sha256 != catalogue.sha256 or items != len(catalogue):
            raise UntrustedReleaseError(
                f"bundle {card.version} numbers the {items} items of catalogue {card.catalogue_version}, "
                f"not the {len(catalogue)} of catalogue {catalogue.version}"
            )
        folder = directory / SUBMODEL
        ranker = Ranker.load(folder, items=items, embedding_size=size, history_length=history)
        popularity = np.array(table(folder / "popularity.bin", np.float32, (items + 1,)))
        usable = np.isfinite(popularity) & (popularity > 0)
        return cls(
            version=version,
            sha256=sha256,
            ranker=ranker,
            catalogue=catalogue,
            popularity=np.where(usable, popularity, 0).astype(np.float32),
            tokens=_tokens(folder / "tokens.bin", size),
            semantic=Semantic.load(directory, card.submodels, items=items),
            file_bytes=sum(file.size for file in card.files.values()),
        )

    def nbytes(self) -> int:
        """Bytes in memory, without the catalogue."""
        rankers = [self.ranker, *([self.semantic.ranker] if self.semantic else [])]
        return self.file_bytes + self.popularity.nbytes + sum(ranker.nbytes() for ranker in rankers)

    def vectors(self, shelf: Shelf) -> Vectors:
        """Of everything on a shelf."""
        return Vectors(self.ranker, shelf.numbering, tokens=self.tokens)

    def meanings(self, shelf: Shelf) -> Vectors | None:
        """What the submodel `search` makes of everything on a shelf."""
        return self.semantic.vectors(shelf.numbering) if self.semantic else None


def _tokens(path: Path, size: int) -> NDArray[np.float16] | None:
    """The file, if the release ships one.

    Raises:
        UntrustedReleaseError: it is of another size, or holds what is no number.
    """
    if not path.exists():
        return None
    found: NDArray[np.float16] = table(path, np.float16, (BUCKETS + 1, size))
    if not np.isfinite(found).all() or found[0].any():
        raise UntrustedReleaseError(f"{path} holds what is no vector")
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded:
    """All that one answer needs; the service swaps it as a whole, between two requests.

    Attributes:
        release: None before the first one.
        vectors: of everything on the shelf; None before the first release.
        meanings: the same as the submodel `search` has them; None: there is none.
    """

    release: Release | None
    shelf: Shelf
    weights: FusionWeights
    vectors: Vectors | None = None
    meanings: Vectors | None = None

    @classmethod
    def of(cls, store: Store, release: Release | None, weights: FusionWeights | None = None) -> Self:
        """Put the site's items and a release together; takes about a second for 100,000 items, so not in the loop."""
        shelf = Shelf.of(
            store,
            release.catalogue if release else None,
            federation=release.popularity if release else None,
        )
        vectors = release.vectors(shelf) if release else None
        meanings = release.meanings(shelf) if release else None
        return cls(
            release=release,
            shelf=shelf,
            weights=weights or FusionWeights.default(),
            vectors=vectors,
            meanings=meanings,
        )

    def with_release(self, release: Release, weights: FusionWeights | None = None) -> Self | None:
        """Another release of the same catalogue on the same shelf, at once; None: it numbers other items.

        Args:
            weights: None: as here.
        """
        if self.release is None or self.release.catalogue.sha256 != release.catalogue.sha256:
            return None
        shelf = self.shelf.beside(release.popularity)
        return replace(
            self,
            release=release,
            shelf=shelf,
            weights=weights or self.weights,
            vectors=release.vectors(shelf),
            meanings=release.meanings(shelf),
        )

    def embed(self) -> None:
        """Give vectors to private items that have come or changed since; else the next answer would have to."""
        for vectors in (self.vectors, self.meanings):
            if vectors is not None:
                vectors.follow()

    def with_version(self, version: int) -> Self:
        """The same bundle under the number of another release."""
        return replace(self, release=replace(self.release, version=version)) if self.release else self
