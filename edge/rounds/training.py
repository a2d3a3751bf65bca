"""How an edge learns from its own shoppers: sequences in, an update out. Arrays only; the caller does the I/O.

The target of a position is one random item of the basket that came next, that is of the next distinct time: in a stream
of single clicks that is the next click. Each user's last basket is held out, to validate on and to fit the fusion.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from protocol import ranking_metrics
from protocol.models.sasrec import SasRec
from protocol.models.weights import Weights, flatten, item_vectors

K = 10
_CLIP_GRADIENT = 1.0
_VALIDATED = 400
_UNIFORM_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sequences:
    """What each user had, in order.

    Attributes:
        rows: int32[n], catalogue rows.
        time_ms: int64[n], rising within a user; equal times are one basket.
        offsets: int64[users + 1], where in `rows` each user begins.
    """

    rows: NDArray[np.int32]
    time_ms: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, *, user: NDArray[np.int64], rows: NDArray[np.int64], time_ms: NDArray[np.int64]) -> Self:
        """From columns sorted by user and time; items that the shared catalogue does not list (row 0) are left out."""
        kept = rows > 0
        user, rows, time_ms = user[kept], rows[kept], time_ms[kept]
        starts = np.flatnonzero(np.diff(user, prepend=user[:1] - 1)) if len(user) else np.zeros(0, np.int64)
        return cls(rows=rows.astype(np.int32), time_ms=time_ms, offsets=np.append(starts, len(rows)).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """How to train in one round.

    Attributes:
        negatives: sampled items a step, shared by the batch.
        dropout: share of activations left out while training.
        max_seconds: wall-clock budget; what was learnt until then counts.
    """

    epochs: int = 1
    batch_size: int = 128
    learning_rate: float = 2e-3
    negatives: int = 512
    dropout: float = 0.0
    max_seconds: float = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LocalUpdate:
    """What one site learnt.

    Attributes:
        delta: float32[d], weights after minus weights before.
        examples: positions trained on.
        loss: mean training loss, in nats.
        ndcg: NDCG@10 of the weights as they came, on the held-out baskets of this site, whole catalogue ranked.
        recall: Recall@10 likewise.
    """

    delta: NDArray[np.float32]
    examples: int
    loss: float
    ndcg: float
    recall: float


def item_counts(rows: NDArray[np.int64], *, items: int) -> NDArray[np.float32]:
    """float32[items + 1], how often each row was had; row 0 counts what the catalogue does not list."""
    return np.bincount(rows, minlength=items + 1).astype(np.float32)


def train(
    weights: Weights,
    tokens: NDArray[np.int32],
    sequences: Sequences,
    *,
    lesson: Lesson,
    seed: int,
    validation_seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> LocalUpdate:
    """Learn from a site's sequences, starting from these weights.

    Args:
        tokens: int32[n + 1, t] from `content.token_table` of the shared catalogue.
        seed: of sampling and dropout.
        validation_seed: of the choice of users to validate on; alike in two rounds that are to be compared.
        stop: asked before each step; true ends training early.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    held = Baskets.of(sequences)
    ndcg, recall = _validate(weights, tokens, sequences, held, rng=np.random.default_rng(validation_seed))
    model = SasRec(weights, tokens).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=lesson.learning_rate)
    sampler = Negatives.of(item_counts(sequences.rows.astype(np.int64), items=weights.config.items))
    deadline = time.monotonic() + lesson.max_seconds
    examples, loss_sum = 0, 0.0
    for _ in range(lesson.epochs):
        for batch in _batches(sequences, held, length=weights.config.history_length, lesson=lesson, rng=rng):
            if stop() or time.monotonic() > deadline:
                break
            negatives, correction = sampler.draw(lesson.negatives, rng)
            loss = sampled_loss(model, batch, negatives, correction, dropout=lesson.dropout)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP_GRADIENT)
            optimizer.step()
            count = int(np.count_nonzero(batch.targets))
            examples += count
            loss_sum += float(loss.detach()) * count
    after = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    return LocalUpdate(
        delta=flatten(after) - flatten(weights.tensors),
        examples=examples,
        loss=loss_sum / max(examples, 1),
        ndcg=ndcg,
        recall=recall,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Baskets:
    """Where the baskets of every event lie.

    Attributes:
        next_start: int64[n], where the basket after this event's begins.
        next_end: int64[n], where it ends; equal to its start if there is none.
        held_from: int64[users], where each user's last basket begins.
    """

    next_start: NDArray[np.int64]
    next_end: NDArray[np.int64]
    held_from: NDArray[np.int64]

    @classmethod
    def of(cls, sequences: Sequences) -> Self:
        n = len(sequences.rows)
        user = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
        fresh = np.ones(n, dtype=np.bool_)
        fresh[1:] = (sequences.time_ms[1:] != sequences.time_ms[:-1]) | (user[1:] != user[:-1])
        starts = np.append(np.flatnonzero(fresh), n)
        basket = np.cumsum(fresh) - 1
        next_start = starts[basket + 1]
        next_end = starts[np.minimum(basket + 2, len(starts) - 1)]
        last = np.minimum(next_start, n - 1)
        follows = (next_start < n) & (user[last] == user) if n else np.zeros(0, np.bool_)
        held_from = starts[basket[sequences.offsets[1:] - 1]] if n else np.zeros(0, np.int64)
        return cls(next_start=next_start, next_end=np.where(follows, next_end, next_start), held_from=held_from)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Windows of one length bucket.

    Attributes:
        inputs: int64[batch, time], rows, padding (0) in front.
        targets: int64[batch, time], rows to foretell, 0 where there is nothing.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]


def _batches(
    sequences: Sequences, held: Baskets, *, length: int, lesson: Lesson, rng: np.random.Generator
) -> Iterator[Batch]:
    """Every event once, in windows that begin at a random place of each user; windows of like length together."""
    windows = []
    for user in range(len(sequences)):
        start, end = int(sequences.offsets[user]), int(held.held_from[user])
        cut = end - int(rng.integers(0, length)) if end - start > length else end
        edges = [*range(cut, start, -length), start]
        windows += [(low, high) for high, low in pairwise(edges) if high > low]
        if cut < end:
            windows.append((max(start, end - length), end))
    if not windows:
        return
    bounds = np.array(windows)
    order = np.argsort(bounds[:, 1] - bounds[:, 0] + rng.uniform(0, 4, len(bounds)))
    groups = [order[i : i + lesson.batch_size] for i in range(0, len(order), lesson.batch_size)]
    for group in rng.permutation(len(groups)):
        yield window_batch(sequences, held, bounds[groups[group]], rng)


def window_batch(sequences: Sequences, held: Baskets, bounds: NDArray[np.int64], rng: np.random.Generator) -> Batch:
    lengths = bounds[:, 1] - bounds[:, 0]
    time_steps = int(lengths.max())
    place = bounds[:, 1:] - np.arange(time_steps, 0, -1)
    inside = place >= bounds[:, :1]
    place = np.where(inside, place, bounds[:, :1])
    inputs = np.where(inside, sequences.rows[place], 0).astype(np.int64)
    low, high = held.next_start[place], held.next_end[place]
    user_end = _held_end(sequences, held, place)
    high = np.minimum(high, user_end)
    chosen = low + (rng.random(place.shape) * np.maximum(high - low, 1)).astype(np.int64)
    there = inside & (high > low)
    targets = np.where(there, sequences.rows[np.minimum(chosen, len(sequences.rows) - 1)], 0).astype(np.int64)
    return Batch(inputs=inputs, targets=targets)


def _held_end(sequences: Sequences, held: Baskets, place: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the training part of the user at each place ends: the held-out basket is nobody's target."""
    user = np.searchsorted(sequences.offsets, place, side="right") - 1
    return held.held_from[user]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Negatives:
    """Draws items by their popularity to the power 3/4, mixed with a little of everything.

    Source: Mikolov et al. 2013 for the power; Bengio and Senecal 2008 for the correction by the log of the chance.
    """

    cumulative: NDArray[np.float64]
    log_chance: NDArray[np.float32]

    @classmethod
    def of(cls, counts: NDArray[np.float32]) -> Self:
        weights = counts[1:].astype(np.float64) ** 0.75
        chance = np.full(len(weights), _UNIFORM_SHARE / len(weights))
        chance += (1 - _UNIFORM_SHARE) * weights / weights.sum() if weights.sum() else 0
        return cls(cumulative=np.cumsum(chance), log_chance=np.log(chance).astype(np.float32))

    def draw(self, count: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """int64[count] rows, and float32[count] how much each one's logit must be lowered."""
        points = rng.random(count) * self.cumulative[-1]
        index = np.minimum(np.searchsorted(self.cumulative, points), len(self.cumulative) - 1)
        return index + 1, self.log_chance[index] + np.float32(np.log(count))


def sampled_loss(
    model: SasRec,
    batch: Batch,
    negatives: NDArray[np.int64],
    correction: NDArray[np.float32],
    *,
    dropout: float,
) -> torch.Tensor:
    """Mean sampled-softmax loss over the positions that have a target, in nats."""
    wanted = batch.targets > 0
    rows, inverse = np.unique(
        np.concatenate([batch.inputs.ravel(), batch.targets[wanted], negatives]), return_inverse=True
    )
    unique = torch.from_numpy(rows)
    table, bias = model.vectors(unique), model.bias(unique)
    seen, hits = batch.inputs.size, int(wanted.sum())
    index = torch.from_numpy(inverse)
    state = model(
        table[index[:seen]].view(*batch.inputs.shape, -1), torch.from_numpy(batch.inputs == 0), dropout=dropout
    )
    target, noise = index[seen : seen + hits], index[seen + hits :]
    inputs = torch.from_numpy(batch.inputs)
    past = _Past.of(inputs, torch.from_numpy(batch.targets), torch.from_numpy(negatives))
    wanted_at = torch.from_numpy(wanted)
    own = state @ table[index[:seen]].view(*batch.inputs.shape, -1).transpose(1, 2)
    own = own + bias[index[:seen]].view(len(inputs), 1, -1) + model.repeat * past.own
    own = own.masked_fill(~past.rival, -torch.inf)[wanted_at]
    state = state[wanted_at]
    positive = (state * table[target]).sum(-1) + bias[target] + model.repeat * past.target[wanted_at]
    others = state @ table[noise].T + (bias[noise] - torch.from_numpy(correction))
    others = others.masked_fill(past.known[wanted_at] | (target[:, None] == noise), -torch.inf)
    rivals = torch.cat([own, others, positive[:, None]], dim=1)
    loss: torch.Tensor = (rivals.logsumexp(-1) - positive).sum() / max(hits, 1)
    return loss


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Past:
    """What each position of a batch has seen so far.

    Attributes:
        own: float32[batch, time, time], log(1 + how often item u of the window was had up to position t).
        rival: bool[batch, time, time], item u was had up to t, is not counted twice, and is not the target of t.
        target: float32[batch, time], log(1 + how often the target of t was had up to t).
        known: bool[batch, time, negatives], the sampled item was had up to t, so it is among the own ones already.
    """

    own: torch.Tensor
    rival: torch.Tensor
    target: torch.Tensor
    known: torch.Tensor

    @classmethod
    def of(cls, inputs: torch.Tensor, targets: torch.Tensor, negatives: torch.Tensor) -> Self:
        time_steps = inputs.shape[1]
        until = torch.ones(time_steps, time_steps, dtype=torch.bool).tril()
        same = inputs[:, :, None] == inputs[:, None, :]
        counts = until.float() @ same.float()  # [t, u]: how often u's item stands at or before t
        earlier = torch.ones(time_steps, time_steps, dtype=torch.bool).tril(-1)
        first = ~(same & earlier).any(2)  # no equal item stands before u
        is_target = targets[:, :, None] == inputs[:, None, :]
        sampled = (inputs[:, :, None] == negatives).float()
        return cls(
            own=torch.log1p(counts),
            rival=until & first[:, None, :] & (inputs > 0)[:, None, :] & ~is_target,
            target=torch.log1p((is_target & until).sum(-1).float()),
            known=(until.float() @ sampled) > 0,
        )


def _validate(
    weights: Weights,
    tokens: NDArray[np.int32],
    sequences: Sequences,
    held: Baskets,
    *,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """NDCG@10 and Recall@10 on the held-out baskets of a sample of users."""
    users = np.flatnonzero(held.held_from > sequences.offsets[:-1])
    if not len(users):
        return 0.0, 0.0
    users = np.sort(rng.choice(users, min(_VALIDATED, len(users)), replace=False))
    histories = [sequences.rows[sequences.offsets[user] : held.held_from[user]] for user in users]
    baskets = [np.unique(sequences.rows[held.held_from[user] : sequences.offsets[user + 1]]) for user in users]
    offsets = np.append(0, np.cumsum([len(basket) for basket in baskets])).astype(np.int64)
    ranks = ranking_metrics.target_ranks(Scorer(weights, tokens).scores(histories), np.concatenate(baskets), offsets)
    ndcg, recall = ranking_metrics.ndcg(ranks, offsets, k=K), ranking_metrics.recall(ranks, offsets, k=K)
    return float(ndcg.mean()), float(recall.mean())


class Scorer:
    """Scores of the whole catalogue after a history, in full precision."""

    def __init__(self, weights: Weights, tokens: NDArray[np.int32]) -> None:
        self._model = SasRec(weights, tokens).eval()
        self._vectors, self._bias = item_vectors(weights, tokens)
        self._repeat = weights.tensors["repeat"][0]

    def states(self, histories: list[NDArray[np.int32]]) -> NDArray[np.float32]:
        """float32[users, d], the state after each history."""
        length = self._model.config.history_length
        inputs = np.zeros((len(histories), length), np.int64)
        for number, history in enumerate(histories):
            newest = history[-length:]
            inputs[number, length - len(newest) :] = newest
        with torch.inference_mode():
            vectors = torch.from_numpy(self._vectors[inputs])
            state: NDArray[np.float32] = self._model(vectors, torch.from_numpy(inputs == 0))[:, -1].numpy()
        return state

    def scores(self, histories: list[NDArray[np.int32]]) -> NDArray[np.float32]:
        """float32[users, n + 1]; row 0, which is no item, is minus infinity."""
        scores: NDArray[np.float32] = self.states(histories) @ self._vectors.T + self._bias
        for row, history in zip(scores, histories, strict=True):
            items, counts = np.unique(history[-self._model.config.history_length :], return_counts=True)
            row[items] += self._repeat * np.log1p(counts).astype(np.float32)
        scores[:, 0] = -np.inf
        return scores
