"""What the center knows of a submodel before any round: the catalogue, and the first weights that follow from sums."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from center.registry import Registry
from center.releases import catalogue
from center.settings import ModelSettings
from protocol import content
from protocol.errors import BadInputError
from protocol.models import weights as model_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class School:
    """The shared catalogue and the shape of the model.

    Attributes:
        directory: of the catalogue in force.
        items: its length n.
    """

    directory: Path
    catalogue_version: int
    items: int
    model: ModelSettings

    @classmethod
    def open(cls, directory: Path, model: ModelSettings, *, registry: Registry) -> Self:
        """The newest published catalogue of a center's folder.

        Raises:
            BadInputError: none has been published.
        """
        newest = registry.release("catalogue")
        if newest is None:
            raise BadInputError("no catalogue has been published", advice="hanse-center catalogue FILE")
        version, card = newest
        folder = directory / "releases" / f"catalogue-{version}"
        return cls(directory=folder, catalogue_version=version, items=int(card["items"]), model=model)

    def counted(self, campaigns: Path, *, without: str = "") -> NDArray[np.float64]:
        """What all campaigns but one have counted of each row of this catalogue: float64[n + 1].

        Sites count an event once, ever, so what was counted on another catalogue is looked up by the items' names.
        """
        total = np.zeros(self.items + 1)
        row_of: dict[str, int] | None = None
        for path in sorted(campaigns.glob("*/popularity-*.npy")):
            if path.parent.name == without:
                continue
            counts = np.load(path, allow_pickle=False)
            version = int(path.stem.partition("-")[2])
            if version == self.catalogue_version:
                total += counts
                continue
            row_of = row_of or {item.item: row for row, item in enumerate(catalogue.read(self.directory), start=1)}
            earlier = catalogue.read(self.directory.with_name(f"catalogue-{version}"))
            rows = np.array([0, *(row_of.get(item.item, 0) for item in earlier)])
            np.add.at(total, rows, counts)
        return total

    def initial_weights(self, popularity: NDArray[np.float64], *, campaign: int) -> bytes:
        """First weights, from the exact counts of the federation.

        Args:
            popularity: float64[n + 1].
            campaign: its number. Every campaign begins elsewhere, since a site answers a question once.
        """
        config = model_weights.SequenceConfig(
            items=self.items,
            embedding_size=self.model.embedding_size,
            history_length=self.model.history_length,
        )
        rng = np.random.default_rng((self.model.seed, campaign))
        first = model_weights.initial(config, popularity=popularity, min_support=self.model.min_support, rng=rng)
        return first.to_bytes()

    def tokens(self) -> NDArray[np.int32]:
        """int32[n + 1, t], the hashed tokens of every item."""
        items = catalogue.read(self.directory)
        return content.token_table((item.title, item.brand, item.category) for item in items)
