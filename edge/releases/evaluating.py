"""How good a release is at this site: each user's newest basket held out, the whole catalogue ranked.

By the served artifact and the code that serves it, not by the model it was made of; nothing here imports torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge.records.store import Behaviour, Store
from edge.serving.ranker import ModelFailedError, Ranker, best
from edge.serving.release import Release
from protocol import ranking_metrics
from protocol.lessons import EVALUATED

K = 10
MOST_USERS = 2_000
NEW_USER_EVENTS = 5
"""A user with at most so many events before the one held out is new."""
NEW_ITEM_MS = 28 * 24 * 60 * 60 * 1000
"""An item is new whose first event at this site lies no further back than this from the newest."""
HEAD_SHARE = 0.8
"""Of what the federation bought: the tail is what is left when the items that make it up are taken away."""
_LINES = 2_000
_STEP = 2.0**-20  # gains are cut to multiples of it, so that their sum does not depend on the order of users


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """One user's newest basket, and what came before it.

    Attributes:
        history: int64[n], keys of the store, oldest first.
        basket: int64[m], distinct keys, at least one.
        past: events before the basket.
    """

    history: NDArray[np.int64]
    basket: NDArray[np.int64]
    past: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two releases on the same events.

    Attributes:
        events: held-out baskets.
        ndcg_new: mean NDCG@10, 0 if there were none.
        ndcg_old: likewise.
        spread: standard error of the mean difference, event by event.
    """

    events: int
    ndcg_new: float
    ndcg_old: float
    spread: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contender:
    """What ranks the catalogue: a release's model, or how popular its items are.

    Attributes:
        rows: int64[keys], the catalogue row of each of the store's keys, 0 where the catalogue lacks it.
        popular: int64[K], what is answered where there is no model, or nothing it knows.
    """

    rows: NDArray[np.int64]
    popular: NDArray[np.int64]
    ranker: Ranker | None

    @classmethod
    def of(cls, release: Release, names: Mapping[int, str], *, only_popularity: bool = False) -> Self:
        """Prepare a release.

        Args:
            names: of all items, by the store's key.
            only_popularity: leave its model out.
        """
        rows = np.zeros(max(names, default=0) + 1, np.int64)
        for key, name in names.items():
            rows[key] = release.catalogue.row_of.get(name, 0)
        bought = release.popularity.copy()
        bought[0] = -np.inf
        return cls(rows=rows, popular=best(bought, K), ranker=None if only_popularity else release.ranker)

    def top(self, history: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[at most K], rows, best first; empty where the model fails."""
        known = self.rows[history]
        known = known[known > 0]
        if self.ranker is None or not known.size:
            return self.popular
        try:
            return self.ranker.rank(known, k=K).rows[:K]
        except ModelFailedError:
            return np.empty(0, np.int64)

    def ranks(self, held: Sequence[HeldOut]) -> NDArray[np.float64]:
        """float64[targets], the rank of each item of each basket from 1, infinite beyond the first K."""
        ranks = [np.full(len(one.basket), np.inf) for one in held]
        for one, found in zip(held, ranks, strict=True):
            wanted = self.rows[one.basket]
            for place, row in enumerate(self.top(one.history), start=1):
                found[(wanted == row) & (wanted > 0)] = place
        return np.concatenate([np.empty(0), *ranks])


def evaluate(
    store: Store, candidate: Release, serving: Release | None, *, draw: int, most: int = MOST_USERS
) -> dict[str, NDArray[np.float64]]:
    """Measure a candidate, and on the same events what is served now.

    Of a basket only items count that the candidate's catalogue lists. A basket is in an item segment with its items of
    that segment alone.

    Args:
        serving: None before the first release: then the federation's popularity is the measure.
        draw: which users, where there are more than `most`.

    Returns:
        For each name of `lessons.EVALUATED` float64[5], the words of `lessons.QUALITY`: sums over events.

    Raises:
        BadInputError: the store is damaged; UnavailableError: it cannot be read.
    """
    behaviour, names = store.behaviour(), store.item_names()
    new = Contender.of(candidate, names)
    base = Contender.of(serving or candidate, names, only_popularity=serving is None)
    cuts = _cuts(behaviour, listed=new.rows > 0)
    held = [_cut(behaviour, cuts, number, listed=new.rows > 0) for number in _drawn(cuts, draw=draw, most=most)]
    ranks = new.ranks(held), base.ranks(held)
    sizes = np.array([len(one.basket) for one in held], dtype=np.int64)
    targets = np.concatenate([np.empty(0, np.int64), *[one.basket for one in held]]).astype(np.int64)
    beginners = np.array([one.past <= NEW_USER_EVENTS for one in held], dtype=np.bool_)
    belongs = {
        "all": np.ones(len(targets), np.bool_),
        "new_users": np.repeat(beginners, sizes),
        "new_items": _new_items(behaviour)[targets] if targets.size else np.zeros(0, np.bool_),
        "tail": _tail(candidate.popularity)[new.rows[targets]],
    }
    return {name: _quality(belongs[name], sizes, *ranks) for name in EVALUATED}


def compare(store: Store, new: Release, old: Release, *, most: int = MOST_USERS) -> Comparison:
    """NDCG@10 of two releases on the users' newest baskets, of the users who came last.

    Raises:
        BadInputError: the store is damaged; UnavailableError: it cannot be read.
    """
    behaviour, names = store.behaviour(), store.item_names()
    contenders = Contender.of(new, names), Contender.of(old, names)
    listed = (contenders[0].rows > 0) & (contenders[1].rows > 0)
    cuts = _cuts(behaviour, listed=listed)
    latest = np.argsort(-cuts.time_ms, kind="stable")[:most]
    held = [_cut(behaviour, cuts, number, listed=listed) for number in latest]
    sizes = np.array([len(one.basket) for one in held], dtype=np.int64)
    ranks = [contender.ranks(held) for contender in contenders]
    events, ndcg_new, _, ndcg_old, _ = _quality(np.ones(int(sizes.sum()), np.bool_), sizes, *ranks)
    offsets = np.append(0, np.cumsum(sizes)).astype(np.int64)
    gained = ranking_metrics.ndcg(ranks[0], offsets, k=K) - ranking_metrics.ndcg(ranks[1], offsets, k=K)
    return Comparison(
        events=int(events),
        ndcg_new=float(ndcg_new / max(events, 1)),
        ndcg_old=float(ndcg_old / max(events, 1)),
        spread=float(gained.std() / max(events, 1) ** 0.5) if events else 0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cuts:
    """Where the history of each user with something to hold out ends.

    Attributes:
        start: int64[users], where the user's events begin.
        cut: int64[users], where the newest basket begins that holds a listed item.
        end: int64[users], where it ends.
        user: int64[users], the store's keys.
        time_ms: int64[users], of the basket.
    """

    start: NDArray[np.int64]
    cut: NDArray[np.int64]
    end: NDArray[np.int64]
    user: NDArray[np.int64]
    time_ms: NDArray[np.int64]


def _cuts(behaviour: Behaviour, *, listed: NDArray[np.bool_]) -> _Cuts:
    """Of each user who had listed items before a basket with one.

    Args:
        listed: bool[keys], items that count.
    """
    user, time_ms, events = behaviour.user, behaviour.time_ms, len(behaviour.user)
    if not events:
        none = np.empty(0, np.int64)
        return _Cuts(start=none, cut=none, end=none, user=none, time_ms=none)
    counts = listed[behaviour.item]
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    last = np.maximum.reduceat(np.where(counts, np.arange(events), -1), starts)
    fresh = np.r_[True, (user[1:] != user[:-1]) | (time_ms[1:] != time_ms[:-1])]
    baskets = np.append(np.flatnonzero(fresh), events)
    basket = np.cumsum(fresh)[last] - 1
    before = np.append(0, np.cumsum(counts))
    cut = baskets[basket]
    usable = (last >= 0) & (before[cut] > before[starts])
    cut, end, start = cut[usable], baskets[basket + 1][usable], starts[usable]
    return _Cuts(start=start, cut=cut, end=end, user=user[start], time_ms=time_ms[cut])


def _drawn(cuts: _Cuts, *, draw: int, most: int) -> Iterable[int]:
    """Which users, by a hash of their key: the same whenever it is asked for this draw."""
    chance = [sha256(f"{draw} {user}".encode()).digest() for user in cuts.user.tolist()]
    return sorted(sorted(range(len(chance)), key=chance.__getitem__)[:most])


def _cut(behaviour: Behaviour, cuts: _Cuts, number: int, *, listed: NDArray[np.bool_]) -> HeldOut:
    start, cut, end = int(cuts.start[number]), int(cuts.cut[number]), int(cuts.end[number])
    basket = np.unique(behaviour.item[cut:end])
    return HeldOut(
        history=behaviour.item[max(start, cut - _LINES) : cut], basket=basket[listed[basket]], past=cut - start
    )


def _new_items(behaviour: Behaviour) -> NDArray[np.bool_]:
    """bool[keys], items whose first event is recent, as this site's books go."""
    first = np.full(int(behaviour.item.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, behaviour.item, behaviour.time_ms)
    newest = int(behaviour.time_ms.max())
    return np.asarray((first > newest - NEW_ITEM_MS) & (first <= newest), dtype=np.bool_)


def _tail(popularity: NDArray[np.float32]) -> NDArray[np.bool_]:
    """bool[n + 1], rows outside the most popular ones that together make up the head."""
    counts = popularity[1:].astype(np.float64)
    order = np.argsort(-counts, kind="stable")
    bought = np.cumsum(counts[order])
    head = int(np.searchsorted(bought, HEAD_SHARE * bought[-1])) + 1
    tail = np.ones(len(popularity), np.bool_)
    tail[1 + order[:head]] = False
    tail[0] = False
    return tail


def _quality(
    belongs: NDArray[np.bool_],
    sizes: NDArray[np.int64],
    ranks: NDArray[np.float64],
    base: NDArray[np.float64],
) -> NDArray[np.float64]:
    """float64[5], the words of `lessons.QUALITY`.

    Args:
        belongs: bool[targets], which of them count.
        sizes: int64[events], targets of each event.
        ranks: float64[targets], of the candidate; `base` likewise, of what is served now.
    """
    event = np.repeat(np.arange(len(sizes)), sizes)[belongs]
    offsets = np.append(0, np.cumsum(np.bincount(event, minlength=len(sizes)))).astype(np.int64)
    sums = [
        np.trunc(measure(found[belongs], offsets, k=K) / _STEP).sum() * _STEP
        for found in (ranks, base)
        for measure in (ranking_metrics.ndcg, ranking_metrics.recall)
    ]
    return np.array([len(np.unique(event)), *sums])
