"""What a site may say in a round under differential privacy: one clipped vector of each user, summed.

The books of privacy hold if taking one user away changes the sum by no more than that user's own vector. So what a user
puts in is a function of the user's own events, the announced weights and the round's seed, and of nothing else: users
are computed one at a time, each draws from a generator of their own, rivals are sampled by what the weights say of
popularity and not by what this site has sold, and no clock decides who is left out. Vectors are cut to a grid on which
float64 adds without error, so that the order of users does not matter either (Mironov, CCS 2012, shows what rounding in
floats can give away).
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.rounds.training import Baskets, K, Negatives, Scorer, Sequences, sampled_loss, window_batch
from protocol import ranking_metrics
from protocol.errors import UnavailableError
from protocol.models.sasrec import SasRec
from protocol.models.weights import Weights, flatten
from protocol.privacy import FIGURES, UPDATE_SHARE, Privacy

Values = dict[str, NDArray[np.float64] | float]

_MOST_WINDOWS = 16
_GRID_BITS = 31  # below the clip: sums of a million users are exact, and the noise is larger by far
_FURTHEST_BIAS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateLesson:
    """How to learn in one private round.

    Attributes:
        bound: largest absolute value that the layout allows; sums beyond it are cut.
        negatives: sampled items for each user.
        share: of the users that take part, each by chance; a site with more than it can compute in time lowers it.
        max_seconds: wall-clock budget; what is not ready by then is not sent at all.
    """

    privacy: Privacy
    bound: float
    negatives: int = 512
    share: float = 1.0
    max_seconds: float = 1200.0


def train_privately(
    weights: Weights,
    tokens: NDArray[np.int32],
    sequences: Sequences,
    *,
    lesson: PrivateLesson,
    seed: int,
    stop: Callable[[], bool] = lambda: False,
) -> Values:
    """The sum over this site's users of minus the gradient at the weights as they came, clipped for each user.

    A user with something to learn from, three baskets or more, counts as one, however long the history: the newest
    windows of it are read. The held-out basket gives the user's own NDCG and recall.

    Args:
        tokens: int32[n + 1, t] from `content.token_table` of the shared catalogue.
        seed: of sampling, public.
        stop: asked before each user.

    Returns:
        The values of `lessons.training_layout`, in the units of `protocol.privacy`: ``update`` float64[d], which must
        not be narrowed to float32 before it is encoded, and the figures.

    Raises:
        UnavailableError: told to stop, or out of time. Half of the users would say who is slow to compute.
    """
    deadline = time.monotonic() + lesson.max_seconds
    pupil = _Pupil(weights, tokens, lesson)
    total = np.zeros(len(flatten(weights.tensors)))
    figures = dict.fromkeys(FIGURES, 0.0)
    for own in _each_user(sequences):
        if stop() or time.monotonic() > deadline:
            raise UnavailableError(
                f"{len(sequences)} users were not ready in {lesson.max_seconds:g} s",
                advice="lower privacy.users_share or raise training.max_minutes in edge.toml",
            )
        said = pupil.contribution(own, seed=seed)
        if said is None:
            continue
        total[said.places] += said.values
        figures = {name: figures[name] + said.figures[name] for name in FIGURES}
    update = np.clip(total, -lesson.bound, lesson.bound)
    return {"update": update, **{name: min(value, lesson.bound) for name, value in figures.items()}}


def popularity_privately(
    users: NDArray[np.int64], rows: NDArray[np.int64], *, items: int, privacy: Privacy, bound: float
) -> Values:
    """The sum over this site's users of how often each had each item, clipped for each user.

    Args:
        users: int64[events], in any order.
        rows: int64[events], catalogue rows; 0 for what the catalogue does not list.

    Returns:
        The values of `lessons.popularity_layout`: ``counts`` float64[items + 1] and ``weight``.
    """
    names, whose = np.unique(users, return_inverse=True)
    pairs, times = np.unique(whose * (items + 1) + rows, return_counts=True)
    owner, item = np.divmod(pairs, items + 1)
    often = times.astype(np.float64)
    norms = np.sqrt(np.bincount(owner, weights=often * often, minlength=len(names)))
    shrink = np.minimum(1.0, UPDATE_SHARE * privacy.user_clip / norms)
    counts = np.bincount(item, weights=_to_grid(often * shrink[owner], privacy), minlength=items + 1)
    weight = len(names) * float(_to_grid(np.float64(privacy.unit("weight")), privacy))
    return {"counts": np.minimum(counts, bound), "weight": min(weight, bound)}


def _to_grid(values: NDArray[np.float64] | np.float64, privacy: Privacy) -> NDArray[np.float64]:
    """Towards zero to a multiple of a power of two: norms do not grow, and sums of multiples are exact."""
    step = 2.0 ** (math.frexp(privacy.user_clip)[1] - _GRID_BITS)
    return np.asarray(np.trunc(values / step) * step, dtype=np.float64)


def _each_user(sequences: Sequences) -> Iterator[Sequences]:
    for start, end in zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True):
        yield Sequences(
            rows=sequences.rows[start:end],
            time_ms=sequences.time_ms[start:end],
            offsets=np.array([0, end - start], dtype=np.int64),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Said:
    """One user's vector: where the update is not zero, its values there, and the figures, all on the grid."""

    places: NDArray[np.int64]
    values: NDArray[np.float64]
    figures: Mapping[str, float]


class _Pupil:
    """The model at the announced weights; it is asked about one user after the other and does not change."""

    def __init__(self, weights: Weights, tokens: NDArray[np.int32], lesson: PrivateLesson) -> None:
        self._model = SasRec(weights, tokens).eval()
        self._scorer = Scorer(weights, tokens)
        self._length = weights.config.history_length
        self._sampler = Negatives.of(_public_popularity(weights))
        self._lesson = lesson

    def contribution(self, own: Sequences, *, seed: int) -> _Said | None:
        """What one user says; None for one who has nothing to learn from or is not drawn this time."""
        held = Baskets.of(own)
        windows = _windows(int(held.held_from[0]), self._length)
        draw, rng = _chances(own, seed)
        if draw >= self._lesson.share or not len(windows):
            return None
        batch = window_batch(own, held, windows, rng)
        targets = np.count_nonzero(batch.targets)
        if not targets:
            return None
        negatives, correction = self._sampler.draw(self._lesson.negatives, rng)
        self._model.zero_grad(set_to_none=True)
        loss = sampled_loss(self._model, batch, negatives, correction, dropout=0.0)
        (loss * float(targets)).backward()  # type: ignore[no-untyped-call]
        places, values = self._clipped()
        ndcg, recall = self._validate(own, int(held.held_from[0]))
        plain = {"weight": 1.0, "loss": float(loss.detach()), "ndcg": ndcg, "recall": recall}
        return _Said(places=places, values=values, figures={name: self._figure(name, plain[name]) for name in plain})

    def _clipped(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        gradient = flatten(
            {
                name: np.zeros(tuple(part.shape), np.float32) if part.grad is None else part.grad.numpy()
                for name, part in self._model.named_parameters()
            }
        )
        places = np.flatnonzero(gradient)
        values = -gradient[places].astype(np.float64)
        norm = float(np.linalg.norm(values))
        if not math.isfinite(norm):  # weights that lead nowhere: the user still counts, and teaches nothing
            return places[:0], values[:0]
        privacy = self._lesson.privacy
        limit = UPDATE_SHARE * privacy.user_clip
        return places, _to_grid(values * min(1.0, limit / norm) if norm else values, privacy)

    def _figure(self, name: str, plain: float) -> float:
        largest = FIGURES[name]
        cut = min(max(plain, 0.0), largest) if math.isfinite(plain) else largest
        privacy = self._lesson.privacy
        return float(_to_grid(np.float64(cut * privacy.unit(name)), privacy))

    def _validate(self, own: Sequences, held_from: int) -> tuple[float, float]:
        basket = np.unique(own.rows[held_from:])
        offsets = np.array([0, len(basket)], dtype=np.int64)
        ranks = ranking_metrics.target_ranks(self._scorer.scores([own.rows[:held_from]]), basket, offsets)
        ndcg, recall = ranking_metrics.ndcg(ranks, offsets, k=K), ranking_metrics.recall(ranks, offsets, k=K)
        return float(ndcg[0]), float(recall[0])


def _windows(end: int, length: int) -> NDArray[np.int64]:
    """int64[windows, 2], the newest windows that end where the held-out basket begins."""
    highs = np.arange(end, 0, -length, dtype=np.int64)[:_MOST_WINDOWS]
    return np.stack([np.maximum(highs - length, 0), highs], axis=1)


def _chances(own: Sequences, seed: int) -> tuple[float, np.random.Generator]:
    """A draw from 0 to 1 and a generator that hang on the user's own events alone: others may come and go."""
    digest = hashlib.sha256(seed.to_bytes(8, "little"))
    digest.update(own.rows.tobytes())
    digest.update(own.time_ms.tobytes())
    entropy = digest.digest()
    return int.from_bytes(entropy[:8], "little") / 2.0**64, np.random.default_rng(int.from_bytes(entropy, "little"))


def _public_popularity(weights: Weights) -> NDArray[np.float32]:
    """float32[n + 1], how popular the weights hold each item; what this site sold must not show in whom it samples."""
    counts = np.zeros(weights.config.items + 1, np.float32)
    bias = weights.tensors["id_bias"]
    counts[weights.id_rows] = np.exp(np.clip(bias, -_FURTHEST_BIAS, _FURTHEST_BIAS))
    return counts
