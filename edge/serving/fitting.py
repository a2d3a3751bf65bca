"""How much each voice counts at this site: fitted on its own newest baskets, judged on users held out from the fit.

Each user's newest basket is taken away, the slate is laid out from what remains, and the weights are those under which
the basket's items would most likely have been picked from it (a multinomial logit, drawn towards the defaults by a
normal prior). The objective is concave, so Newton's method finds the one answer; nothing here depends on luck but the
choice of users, which the caller's generator makes.

A model that was trained on those baskets knows them by heart and would be believed too much: training leaves each
user's newest basket out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.records.events import DAY_MS
from edge.records.store import Behaviour, Past, Store
from edge.serving.fusion import TOP, VOICES, FusionWeights
from edge.serving.ranker import ModelFailedError, Ranked, best
from edge.serving.release import Loaded, Release
from edge.serving.shelf import POPULAR, Shelf
from edge.serving.slate import NEAR, NOTHING_NEAR, Market, Near, slate_of
from edge.serving.vectors import Vectors

LINES: Final = 2_000
"""Newest positive events of a user that habits are read from, here and in serving."""
_FEWEST_USERS = 20
_PRIOR = 3.0  # users' worth of belief in the defaults
_HELD_OUT = 5  # one user in so many judges
_STEPS = 30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """One user's newest basket and the slate it was picked from.

    Attributes:
        voices: float64[n, len(VOICES)].
        picked: bool[n], candidates that are in the basket.
        basket: int, how many items it held, on the slate or not.
    """

    voices: NDArray[np.float64]
    picked: NDArray[np.bool_]
    basket: int


class Companions(Protocol):
    """What goes with what: `edge.neighbours`."""

    def near(
        self, shelf: Shelf, places: NDArray[np.int64], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]: ...


def fit_fusion(
    store: Store,
    release: Release | None,
    *,
    max_users: int,
    rng: np.random.Generator,
    companions: Companions | None = None,
) -> FusionWeights:
    """Fit on at most so many users; the defaults, if there are too few or the fit does not do better.

    Args:
        release: None before the first.
        companions: None: they have no voice.

    Raises:
        BadInputError: the store is damaged; UnavailableError: it cannot be read.
    """
    examples = list(_examples(store, release, max_users=max_users, rng=rng, companions=companions))
    if len(examples) < _FEWEST_USERS:
        return FusionWeights.default()
    judges, teachers = examples[::_HELD_OUT], [e for i, e in enumerate(examples) if i % _HELD_OUT]
    start = FusionWeights.default().vector()
    before, after = ndcg(judges, start), ndcg(judges, fit(teachers, start))
    figures = {"ndcg_before": round(before, 6), "ndcg_after": round(after, 6)}
    if after <= before:
        return FusionWeights(weights=FusionWeights.default().weights, users=0, **figures)
    weights = fit(examples, start)
    named = {name: round(float(weight), 6) for name, weight in zip(VOICES, weights, strict=True)}
    return FusionWeights(weights=named, users=len(examples), **figures)


def fit(examples: Sequence[Example], start: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[len(VOICES)], the weights under which these baskets are most likely, drawn towards `start`."""
    useful = [example for example in examples if example.picked.any()]
    if not useful:
        return start
    spread = np.concatenate([example.voices for example in useful]).std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)  # a voice that said nothing keeps its weight
    data = [(e.voices / scale, e.picked / e.picked.sum()) for e in useful]
    prior = start * scale
    weights, value = prior, _objective(prior, prior, data)
    for _ in range(_STEPS):
        gradient, curvature = _PRIOR * (prior - weights), _PRIOR * np.eye(len(weights))
        for voices, wanted in data:
            chance = _softmax(voices @ weights)
            mean = chance @ voices
            gradient += wanted @ voices - mean
            curvature += (voices * chance[:, None]).T @ voices - np.outer(mean, mean)
        step, length = np.linalg.solve(curvature, gradient), 1.0
        while (reached := _objective(weights + length * step, prior, data)) < value and length > 1e-6:  # noqa: PLR2004
            length /= 2
        if reached - value < 1e-7 * abs(value):
            break
        weights, value = weights + length * step, reached
    return weights / scale


def ndcg(examples: Sequence[Example], weights: NDArray[np.float64], *, k: int = 10) -> float:
    """Mean NDCG@k of the slates' own order against the baskets; items not on the slate count as missed."""
    gains = 1 / np.log2(np.arange(2, k + 2))
    total = 0.0
    for example in examples:
        order = np.argsort(-(example.voices @ weights), kind="stable")[:k]
        ideal = gains[: min(example.basket, k)].sum()
        total += float((example.picked[order] * gains[: len(order)]).sum() / ideal)
    return total / max(len(examples), 1)


def _objective(
    weights: NDArray[np.float64],
    prior: NDArray[np.float64],
    data: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> float:
    total = -0.5 * _PRIOR * float((weights - prior) @ (weights - prior))
    for voices, wanted in data:
        scores = voices @ weights
        top = scores.max()
        total += float(wanted @ scores - top - np.log(np.exp(scores - top).sum()))
    return total


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    odds: NDArray[np.float64] = np.exp(scores - scores.max())
    chance: NDArray[np.float64] = odds / odds.sum()
    return chance


def _examples(
    store: Store,
    release: Release | None,
    *,
    max_users: int,
    rng: np.random.Generator,
    companions: Companions | None = None,
) -> Iterator[Example]:
    loaded = Loaded.of(store, release)
    shelf, vectors = loaded.shelf, loaded.vectors
    behaviour = store.behaviour()
    spans = list(_held_out(behaviour))
    chosen = sorted(rng.permutation(len(spans))[:max_users])
    places = shelf.places(behaviour.item)
    market = _market(shelf, behaviour, places, spans)
    for start, cut, end in (spans[i] for i in chosen):
        first = max(start, cut - LINES)
        past = Past(
            item=places[first:cut], time_ms=behaviour.time_ms[first:cut], purchased=behaviour.purchased[first:cut]
        )
        ranked = _ask(release, vectors, past.item, shelf.offered)
        basket = np.unique(places[cut:end][behaviour.purchased[cut:end]])
        near = _near(companions, shelf, past, basket, basket_ms=int(behaviour.time_ms[cut]))
        slate = slate_of(past, market, allowed=shelf.offered, model=vectors, ranked=ranked, near=near)
        yield Example(voices=slate.voices(), picked=np.isin(slate.places, basket), basket=len(basket))


def _near(
    companions: Companions | None, shelf: Shelf, past: Past, basket: NDArray[np.int64], *, basket_ms: int
) -> Near:
    """What goes with a past, but for what may stand in the books for this very basket's sake.

    The books know it by what was bought or looked at together with it. So neither what was bought again in it is asked
    about, nor what was looked at on the day before: the voice is rather believed too little than too much.
    """
    if companions is None:
        return NOTHING_NEAR
    seeds = past.item[(past.time_ms < basket_ms - DAY_MS) & ~np.isin(past.item, basket)]
    found, weights = companions.near(shelf, seeds, NEAR)
    return Near(places=found, weights=weights)


def _ask(
    release: Release | None, vectors: Vectors | None, past: NDArray[np.int64], offered: NDArray[np.bool_]
) -> Ranked | None:
    """What the model makes of a past, in places; None if there is no model, nothing it knows, or it fails."""
    if release is None or vectors is None or not (history := vectors.readable(past)).size:
        return None
    try:
        ranked = release.ranker.rank(history, k=TOP, vectors=vectors)
    except ModelFailedError:
        return None
    return vectors.with_private(ranked, offered)


def _held_out(behaviour: Behaviour) -> Iterator[tuple[int, int, int]]:
    """(start, cut, end) of each user with a past; [cut, end) is the newest basket and whatever came after."""
    if not behaviour.user.size:
        return
    starts = np.flatnonzero(np.r_[True, behaviour.user[1:] != behaviour.user[:-1]]).tolist()
    for start, end in zip(starts, [*starts[1:], len(behaviour.user)], strict=True):
        bought = np.flatnonzero(behaviour.purchased[start:end])
        if not bought.size:
            continue
        times = behaviour.time_ms[start:end]
        cut = start + int(np.searchsorted(times, times[bought[-1]]))
        if cut > start:
            yield start, cut, end


def _market(
    shelf: Shelf, behaviour: Behaviour, places: NDArray[np.int64], spans: Sequence[tuple[int, int, int]]
) -> Market:
    """What sold before the held-out baskets were bought, so that no basket votes for itself."""
    counted = behaviour.purchased.copy()
    for _, cut, end in spans:
        counted[cut:end] = False
    site = np.bincount(places[counted], minlength=len(shelf.bought)).astype(np.float32)
    popular = best(np.where(shelf.offered, site, -np.inf).astype(np.float32), POPULAR)
    return Market(site=site, federation=shelf.federation, popular=popular)
