"""How many bits a word of the update needs: campaigns by arithmetic that differ in nothing else.

The sites of a federation train with the edges' own code; their weighted updates are encoded, summed and decoded as in a
round, and the center takes its step. Masks vanish in the sum, so they are left out, and so is the network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from center.rounds.averaging import ServerOptimizer, ServerState, apply_round
from center.settings import ModelSettings, RoundSettings
from edge.rounds.training import Lesson, LocalUpdate, Sequences, item_counts, train
from protocol import lessons, packing
from protocol.fixed_point import decode, encode
from protocol.models import weights as model_weights
from simulation import datasets
from simulation.quality import Quality, confidence_interval, evaluate
from simulation.sequences import ModelScorer, TestHistories, sequences_of, tokens_of

_QUANTILES = (0.5, 0.9, 0.99, 0.999, 0.9999, 1.0)

Advance = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Width:
    """How the words of an update are made.

    Attributes:
        bits: 8 to 32, or 0 for sums of floats, which everything is compared with.
        coordinate_clip: largest absolute value of a coordinate of a weighted update.
    """

    bits: int
    coordinate_clip: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is tried, and on how much.

    Attributes:
        fraction: share of the households of Complete Journey.
        weight_cap: examples of one site that count at most.
    """

    sites: int = 5
    fraction: float = 0.15
    rounds: int = 3
    widths: tuple[Width, ...] = (
        Width(bits=0, coordinate_clip=float("inf")),
        *(Width(bits=bits, coordinate_clip=clip) for clip in (1.0, 0.1) for bits in (32, 20, 16, 12, 10)),
    )
    weight_cap: int = RoundSettings().weight_cap


def run(plan: Plan, *, model: ModelSettings, advance: Advance = lambda _what: None) -> dict[str, Any]:
    """Train once a width, from the same weights and seeds.

    Args:
        advance: called with what comes next, `steps` times.
    """
    torch.set_num_threads(1)
    school = _School.open(plan, model)
    first = school.lesson_of_all(school.weights, number=1, advance=advance)
    rows = [_campaign(width, first=first, school=school, advance=advance) for width in plan.widths]
    return {
        "sites": plan.sites,
        "households": plan.fraction,
        "weight_cap": plan.weight_cap,
        "parameters": int(first[0].delta.size),
        "examples": [update.examples for update in first],
        "coordinates": {
            "update": _quantiles([update.delta for update in first]),
            "weighted": _quantiles([school.weighted(update) for update in first]),
        },
        "widths": rows,
    }


def steps(plan: Plan) -> int:
    """How often `run` will call ``advance``."""
    return plan.sites + len(plan.widths) * ((plan.rounds - 1) * plan.sites + plan.rounds)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _School:
    """Data and first weights, the same for every width."""

    plan: Plan
    data: datasets.Dataset
    tokens: NDArray[np.int32]
    sequences: tuple[Sequences, ...]
    histories: tuple[TestHistories, ...]
    weights: model_weights.Weights
    lesson: Lesson

    @classmethod
    def open(cls, plan: Plan, model: ModelSettings) -> "_School":
        data = datasets.complete_journey(plan.sites, fraction=plan.fraction)
        sequences = tuple(sequences_of([site]) for site in data.sites)
        items = len(data.catalogue)
        counts = np.sum([item_counts(each.rows.astype(np.int64), items=items) for each in sequences], axis=0)
        config = model_weights.SequenceConfig(
            items=items, embedding_size=model.embedding_size, history_length=model.history_length
        )
        return cls(
            plan=plan,
            data=data,
            tokens=tokens_of(data),
            sequences=sequences,
            histories=tuple(TestHistories.of(site) for site in data.sites),
            weights=model_weights.initial(
                config,
                popularity=counts.astype(np.float64),
                min_support=model.min_support,
                rng=np.random.default_rng(model.seed),
            ),
            lesson=Lesson(
                epochs=model.epochs,
                batch_size=model.batch_size,
                learning_rate=model.learning_rate,
                negatives=model.negatives,
                max_seconds=3600,
            ),
        )

    def lesson_of_all(self, weights: model_weights.Weights, *, number: int, advance: Advance) -> list[LocalUpdate]:
        """What each site learns from these weights in one round."""
        updates = []
        for site, sequences in zip(self.data.sites, self.sequences, strict=True):
            advance(f"round {number}, {site.name}")
            updates.append(train(weights, self.tokens, sequences, lesson=self.lesson, seed=number))
        return updates

    def share(self, update: LocalUpdate) -> float:
        return min(update.examples, self.plan.weight_cap) / self.plan.weight_cap

    def weighted(self, update: LocalUpdate) -> NDArray[np.float32]:
        """The update as its site would send it, but for the clipping of coordinates."""
        norm = float(np.linalg.norm(update.delta.astype(np.float64)))
        shrink = min(1.0, RoundSettings().clip / norm) if norm else 1.0
        return update.delta * np.float32(self.share(update) * shrink)

    def quality(self, weights: model_weights.Weights) -> Quality:
        """On the held-out baskets of all sites."""
        return Quality.over(
            [
                evaluate(ModelScorer(weights, self.tokens, past), site.test)
                for past, site in zip(self.histories, self.data.sites, strict=True)
            ]
        )


def _campaign(width: Width, *, first: list[LocalUpdate], school: _School, advance: Advance) -> dict[str, Any]:
    state = ServerState.begin(school.weights.to_bytes())
    qualities, errors, clipped = [], [], 0
    for number in range(1, school.plan.rounds + 1):
        updates = first if number == 1 else school.lesson_of_all(state.model, number=number, advance=advance)
        weight = sum(school.share(update) for update in updates)
        values = [school.weighted(update) for update in updates]
        clipped += sum(int(np.count_nonzero(np.abs(value) > width.coordinate_clip)) for value in values)
        exact = np.sum([value.astype(np.float64) for value in values], axis=0)
        total = _sum(values, width, number=number) if width.bits else exact
        errors.append(float(np.linalg.norm(total - exact) / np.linalg.norm(exact)))
        state = apply_round(state, average=total / weight, validation=0.0, settings=ServerOptimizer())
        advance(f"{width.bits or 'no'} bits, round {number}")
        qualities.append(school.quality(state.model).ndcg)
    parameters = first[0].delta.size
    layout = lessons.training_layout(parameters, coordinate_clip=1.0, word_bits=width.bits or 32)
    return {
        "bits": width.bits,
        "coordinate_clip": width.coordinate_clip if width.bits else None,
        "bytes_per_parameter": packing.packed_size(layout) / parameters if width.bits else 4.0,
        "ndcg@10": [float(ndcg.mean()) for ndcg in qualities],
        "ndcg@10_ci95": list(confidence_interval(qualities[-1])),
        "relative_error": errors,
        "clipped_coordinates": clipped,
    }


def _sum(values: Sequence[NDArray[np.float32]], width: Width, *, number: int) -> NDArray[np.float64]:
    """The sum of the updates as a round would give it."""
    bound, edges = width.coordinate_clip, len(values)
    layout = lessons.training_layout(len(values[0]), coordinate_clip=bound, word_bits=width.bits)[:1]
    total = np.zeros(len(values[0]), dtype=np.uint32)
    for place, value in enumerate(values):
        seed = sha256(f"rounding {number} {place}".encode()).digest()
        total += encode({"update": np.clip(value, -bound, bound)}, layout=layout, edges=edges, seed=seed)
    total = packing.unpack(packing.pack(total, layout=layout), layout=layout)
    return decode(total, layout=layout, edges=edges)["update"]


def _quantiles(values: Sequence[NDArray[np.float32]]) -> dict[str, float]:
    sizes = np.abs(np.concatenate(values))
    return {
        f"{quantile:g}": float(value)
        for quantile, value in zip(_QUANTILES, np.quantile(sizes, _QUANTILES), strict=True)
    }
