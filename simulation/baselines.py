"""What a model has to beat: popularity, and what the household itself bought before."""

import numpy as np
from numpy.typing import NDArray

from simulation.datasets import SiteData


def item_counts(site: SiteData, *, items: int) -> NDArray[np.float64]:
    """Purchase lines of each row at one site, float64[items + 1]."""
    return np.bincount(site.events["row"].to_numpy(), minlength=items + 1).astype(np.float64)


class Popularity:
    """The same list for everybody: what sold most."""

    def __init__(self, counts: NDArray[np.float64]) -> None:
        self._scores = counts.astype(np.float32)

    def scores(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[users, n + 1] for users by their position in the test."""
        return np.broadcast_to(self._scores, (len(positions), len(self._scores)))


class PersonalFrequency:
    """What this user bought most often here; among items never bought, what sold most."""

    def __init__(self, site: SiteData, *, popularity: NDArray[np.float64]) -> None:
        self._popularity = (popularity / (popularity.max() + 1)).astype(np.float32)
        self._rows = site.events["row"].to_numpy()
        users = site.events["user"].to_numpy()
        starts = np.flatnonzero(np.concatenate([[True], users[1:] != users[:-1]]))
        ends = np.append(starts[1:], len(users))
        spans = {users[start]: slice(start, end) for start, end in zip(starts, ends, strict=True)}
        self._spans = [spans[user] for user in site.test.users]

    def counts(self, position: int) -> NDArray[np.float32]:
        """How often the user at this position of the test bought each row, float32[n + 1]."""
        counts = np.bincount(self._rows[self._spans[position]], minlength=len(self._popularity))
        return counts.astype(np.float32)

    def scores(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[users, n + 1] for users by their position in the test."""
        return np.stack([self.counts(position) + self._popularity for position in positions])
