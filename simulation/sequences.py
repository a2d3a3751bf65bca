"""A site's events as the edge's trainer and scorer see them, without an edge."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from edge.rounds.training import Scorer, Sequences
from protocol import content
from protocol.models.weights import Weights
from simulation.datasets import Dataset, SiteData


def tokens_of(data: Dataset) -> NDArray[np.int32]:
    """int32[n + 1, t], as center and edges make them from the shared catalogue."""
    columns = data.catalogue.select("title", "brand", "category").with_columns(pl.all().fill_null(""))
    return content.token_table(columns.iter_rows())


def sequences_of(sites: Sequence[SiteData]) -> Sequences:
    """The users of some sites; a household at two of them is two users."""
    users, rows, times, offset = [], [], [], 0
    for site in sites:
        users.append(_numbers(site) + offset)
        rows.append(site.events["row"].to_numpy().astype(np.int64))
        times.append(site.events["time"].str.to_datetime().dt.epoch("ms").to_numpy())
        offset = int(users[-1][-1]) + 1
    return Sequences.of(user=np.concatenate(users), rows=np.concatenate(rows), time_ms=np.concatenate(times))


def _numbers(site: SiteData) -> NDArray[np.int64]:
    names = site.events["user"].to_numpy()
    return np.cumsum(np.append(True, names[1:] != names[:-1])).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TestHistories:
    """Everything that each user of a site's test had before the test."""

    rows: tuple[NDArray[np.int32], ...]

    @classmethod
    def of(cls, site: SiteData) -> Self:
        names = site.events["user"].to_numpy()
        starts = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
        ends = np.append(starts[1:], len(names))
        spans = {names[start]: slice(start, end) for start, end in zip(starts, ends, strict=True)}
        rows = site.events["row"].to_numpy().astype(np.int32)
        return cls(rows=tuple(rows[spans[user]] for user in site.test.users))


class ModelScorer:
    """The network alone, in full precision, for the users of one site's test."""

    def __init__(self, weights: Weights, tokens: NDArray[np.int32], histories: TestHistories) -> None:
        self._scorer = Scorer(weights, tokens)
        self._histories = histories

    def scores(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[users, n + 1] for users by their position in the test."""
        return self._scorer.scores([self._histories.rows[position] for position in positions])
