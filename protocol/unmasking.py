"""Shares in, the bare sum out: rebuild each seed, check it against its commitment, take its mask away (SPEC 6.9)."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol import cohort, round_keys
from protocol.announcement import Announcement
from protocol.errors import MalformedMessageError, TooFewSurvivorsError
from protocol.identity import EdgeId
from protocol.masking import Sign, apply_masks
from protocol.messages import Survivors
from protocol.secret_sharing import Recombination

_MOST_LIARS_SOUGHT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealing:
    """What one survivor committed to and dealt, by place in the cohort.

    Attributes:
        commitments: to its own mask at its own place, to the pair's mask at each other.
        sealed: its shares for every other edge, as in `MaskedUpdate`.
    """

    commitments: tuple[bytes, ...]
    sealed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Secret:
    """One seed that has to be rebuilt.

    Attributes:
        of: whose mask it is: the dealer itself, or a dropped edge it shares the mask with.
        row: place of its shares in every unmasking.
    """

    dealer: EdgeId
    of: EdgeId
    row: int

    @property
    def pair(self) -> tuple[EdgeId, ...]:
        return tuple(sorted({self.dealer, self.of}))

    @property
    def undo(self) -> Sign:
        """The dealer added its own mask and those towards later names; what it added is taken away."""
        return Sign.SUBTRACT if self.dealer <= self.of else Sign.ADD


def remove_masks(
    total: NDArray[np.uint32],
    *,
    announcement: Announcement,
    survivors: Survivors,
    dealings: Mapping[EdgeId, Dealing],
    unmaskings: Mapping[EdgeId, Sequence[bytes]],
) -> tuple[NDArray[np.uint32], frozenset[EdgeId]]:
    """Take every mask that is left away from a sum.

    Args:
        total: uint32[d], the sum of the survivors' updates.
        unmaskings: for at least t survivors, their shares in the order of `Unmasking`.

    Returns:
        uint32[d], the sum of the encoded values; and the edges whose shares did not fit.

    Raises:
        TooFewSurvivorsError: without the shares that do not fit there are fewer than t, or a dealer dealt nonsense.
    """
    seeds = _Seeds(announcement=announcement, dealings=dealings, unmaskings=unmaskings)
    masks = [(seeds.rebuild(secret), secret.undo) for secret in _secrets(announcement, survivors)]
    bare = total.copy()
    apply_masks(bare, masks)
    return bare, frozenset(seeds.liars)


def _secrets(announcement: Announcement, survivors: Survivors) -> Iterator[_Secret]:
    dropped = [edge for edge in announcement.cohort if edge not in survivors.edges]
    rows = itertools.count()
    for dealer in survivors.edges:
        for of in (dealer, *dropped):
            yield _Secret(dealer=dealer, of=of, row=next(rows))


class _Seeds:
    """Rebuilds one seed after the other with the same edges' shares, until one of them turns out not to fit."""

    def __init__(
        self,
        *,
        announcement: Announcement,
        dealings: Mapping[EdgeId, Dealing],
        unmaskings: Mapping[EdgeId, Sequence[bytes]],
    ) -> None:
        self._announcement = announcement
        self._digest = announcement.digest()
        self._dealings = dealings
        self._unmaskings = unmaskings
        self._places = {edge: place for place, edge in enumerate(announcement.cohort)}
        self._threshold = cohort.threshold(announcement.edges)
        self.liars: set[EdgeId] = set()
        self._use(sorted(unmaskings)[: self._threshold])

    def _use(self, edges: Sequence[EdgeId]) -> None:
        self._edges = edges
        self._recombination = Recombination.at([self._places[edge] + 1 for edge in edges])

    def rebuild(self, secret: _Secret) -> bytes:
        """The seed of one mask, as committed to."""
        seed = self._attempt(secret)
        if seed is None:
            seed = self._without_liars(secret)
        return seed

    def _attempt(self, secret: _Secret) -> bytes | None:
        """The seed, or None if it is not the one that was committed to."""
        try:
            seed = self._recombination.combine([self._unmaskings[edge][secret.row] for edge in self._edges])
        except MalformedMessageError:
            return None
        fixed = self._dealings[secret.dealer].commitments[self._places[secret.of]]
        found = round_keys.commitment(seed, announcement=self._digest, edges=secret.pair)
        return seed if found == fixed else None

    def _without_liars(self, secret: _Secret) -> bytes:
        """Leave one edge out, then two, until the seed fits: who was left out sent a wrong share."""
        available = [edge for edge in sorted(self._unmaskings) if edge not in self.liars]
        used = list(self._edges)
        for count in range(1, _MOST_LIARS_SOUGHT + 1):
            for out in itertools.combinations(used, count):
                rest = [edge for edge in available if edge not in out]
                if len(rest) < self._threshold:
                    continue
                self._use(rest[: self._threshold])
                seed = self._attempt(secret)
                if seed is not None:
                    self.liars |= set(out)
                    return seed
        self._use(used)
        raise TooFewSurvivorsError(
            f"round {self._announcement.round}: the shares of what {secret.dealer} dealt do not fit its commitment",
            missing={secret.dealer},
            advice="the next round runs without it",
        )
