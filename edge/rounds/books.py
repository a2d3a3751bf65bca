"""What a round learns from: this site's events as rows of the shared catalogue. Arrays, read once a process."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge import tuning
from edge.records.store import Store
from edge.releases.catalogue import Catalogue
from edge.rounds import training
from edge.settings import EdgeSettings
from protocol import content
from protocol.announcement import Announcement
from protocol.errors import PeerMisbehavedError, UnavailableError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Books:
    """What a round learns from, read once a process from this site's store.

    Attributes:
        version: of the shared catalogue that rows refer to.
        items: its length n.
        rows: int64[events], the row of each positive event; 0 where the catalogue does not list the item.
        users: int64[events], who; sorted.
        events: int64[events], rising in the order of arrival.
        tokens: int32[n + 1, t].
    """

    version: int
    items: int
    rows: NDArray[np.int64]
    users: NDArray[np.int64]
    events: NDArray[np.int64]
    sequences: training.Sequences
    tokens: NDArray[np.int32]

    @classmethod
    def read(cls, directory: Path, settings: EdgeSettings) -> "Books":
        """Read store and catalogue.

        Raises:
            UnavailableError: the shared catalogue has not arrived yet.
        """
        installed = tuning.open_installer(directory, settings).catalogue()
        if installed is None:
            raise UnavailableError("the shared catalogue has not arrived yet", advice="the next round may find it")
        catalogue = Catalogue.load(installed.directory)
        with Store.open(directory / "store.db", durability=settings.store.durability) as store:
            behaviour, names = store.behaviour(), store.item_names()
        row_by_key = np.zeros(max(names, default=0) + 1, dtype=np.int64)
        for key, name in names.items():
            row_by_key[key] = catalogue.row_of.get(name, 0)
        rows = row_by_key[behaviour.item]
        return cls(
            version=installed.offer.version,
            items=len(catalogue),
            rows=rows,
            users=behaviour.user,
            events=behaviour.event,
            sequences=training.Sequences.of(user=behaviour.user, rows=rows, time_ms=behaviour.time_ms),
            tokens=content.token_table(
                zip(catalogue.titles[1:], catalogue.brands[1:], catalogue.categories[1:], strict=True)
            ),
        )

    @property
    def until(self) -> int:
        """The newest event in them, 0 if there is none."""
        return int(self.events.max(initial=0))

    def check(self, announcement: Announcement) -> None:
        """Refuse a round on another catalogue: its rows would be other items."""
        asked = announcement.training.get("catalogue_version")
        if asked != self.version:
            raise PeerMisbehavedError(f"round on catalogue {asked}, this edge has {self.version}")
