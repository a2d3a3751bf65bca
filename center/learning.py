"""What the center knows of a submodel before any round: the catalogue, and the first weights that follow from sums."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from center import catalogue
from center.registry import Registry
from center.settings import ModelSettings
from protocol.errors import BadInputError
from protocol.models import content
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

    def initial_weights(self, popularity: NDArray[np.float64]) -> bytes:
        """First weights, from the exact counts of the federation: float64[n + 1]."""
        config = model_weights.SequenceConfig(
            items=self.items,
            embedding_size=self.model.embedding_size,
            history_length=self.model.history_length,
        )
        rng = np.random.default_rng(self.model.seed)
        first = model_weights.initial(config, popularity=popularity, min_support=self.model.min_support, rng=rng)
        return first.to_bytes()

    def tokens(self) -> NDArray[np.int32]:
        """int32[n + 1, t], the hashed tokens of every item."""
        items = catalogue.read(self.directory)
        return content.token_table((item.title, item.brand, item.category) for item in items)
