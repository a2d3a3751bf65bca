"""What the query service answers from: an installed release, and everything of the site that goes with it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge.records.store import Store
from edge.releases.catalogue import Catalogue
from edge.serving.fusion import FusionWeights, Market
from edge.serving.ranker import SUBMODEL, Ranker, table
from edge.serving.shelf import Shelf
from protocol.bundle import CARD
from protocol.card import BundleCard
from protocol.errors import UntrustedReleaseError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Release:
    """A loaded bundle.

    Attributes:
        version: the version under which it is offered; a rollback offers an older bundle under a new one.
        sha256: the bundle's digest, hexadecimal.
        popularity: float32[n+1], how often the federation bought each row.
    """

    version: int
    sha256: str
    ranker: Ranker
    catalogue: Catalogue
    popularity: NDArray[np.float32]

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
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded:
    """All that one answer needs; the service swaps it as a whole, between two requests.

    Attributes:
        release: None before the first one.
    """

    release: Release | None
    shelf: Shelf
    weights: FusionWeights

    @classmethod
    def of(cls, store: Store, release: Release | None, weights: FusionWeights | None = None) -> Self:
        """Put the site's items and a release together; takes about a second for 100,000 items, so not in the loop."""
        shelf = Shelf.of(
            store,
            release.catalogue if release else None,
            federation=release.popularity if release else None,
        )
        return cls(release=release, shelf=shelf, weights=weights or FusionWeights.default())

    def with_release(self, release: Release, weights: FusionWeights | None = None) -> Self | None:
        """Another release of the same catalogue on the same shelf, at once; None: it numbers other items.

        Args:
            weights: None: as here.
        """
        if self.release is None or self.release.catalogue.sha256 != release.catalogue.sha256:
            return None
        return replace(
            self, release=release, shelf=self.shelf.beside(release.popularity), weights=weights or self.weights
        )

    def with_version(self, version: int) -> Self:
        """The same bundle under the number of another release."""
        return replace(self, release=replace(self.release, version=version)) if self.release else self

    def market(self) -> Market:
        return Market(
            site=self.shelf.bought,
            federation=self.shelf.federation,
            popular=self.shelf.popular(),
            rows=self.shelf.rows,
        )
