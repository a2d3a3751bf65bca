"""``python -m simulation.alone``: train on some sites' data in one place, with the edges' own code, and evaluate.

A process of its own, so that two can run side by side on two cores. Used for the `local` and `central` figures only.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edge.rounds.training import Lesson, item_counts, train
from protocol.models import weights as model_weights
from protocol.models.weights import SequenceConfig
from simulation import datasets
from simulation.fused import fused_quality
from simulation.quality import evaluate
from simulation.sequences import ModelScorer, TestHistories, sequences_of, tokens_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to train on, and how.

    Attributes:
        which: positions of the sites whose data are pooled.
        min_support: an item has an id embedding from so many events in these data on.
        output: JSON file with the NDCG and recall of each user of each of these sites.
        edge: folder of the site's edge, to serve the network from as well; empty: the network alone.
    """

    sites: int
    fraction: float
    which: tuple[int, ...]
    embedding_size: int
    history_length: int
    min_support: int
    epochs: int
    batch_size: int
    learning_rate: float
    negatives: int
    seed: int
    output: str
    edge: str = ""


def run(task: Task) -> None:
    """Train, evaluate, write."""
    torch.set_num_threads(1)
    data = datasets.complete_journey(task.sites, fraction=task.fraction)
    tokens = tokens_of(data)
    chosen = [data.sites[index] for index in task.which]
    sequences = sequences_of(chosen)
    popularity = item_counts(sequences.rows.astype(np.int64), items=len(data.catalogue)).astype(np.float64)
    config = SequenceConfig(
        items=len(data.catalogue), embedding_size=task.embedding_size, history_length=task.history_length
    )
    first = model_weights.initial(
        config, popularity=popularity, min_support=task.min_support, rng=np.random.default_rng(task.seed)
    )
    lesson = Lesson(
        epochs=task.epochs,
        batch_size=task.batch_size,
        learning_rate=task.learning_rate,
        negatives=task.negatives,
        max_seconds=3600,
    )
    update = train(first, tokens, sequences, lesson=lesson, seed=task.seed)
    weights = first.moved(model_weights.flatten(first.tensors) + update.delta)
    figures = {}
    for index, site in zip(task.which, chosen, strict=True):
        quality = evaluate(ModelScorer(weights, tokens, TestHistories.of(site)), site.test)
        figures[f"{index}"] = {"ndcg": quality.ndcg.tolist(), "recall": quality.recall.tolist()}
        if task.edge:
            fused = fused_quality(weights, tokens, popularity, edge=Path(task.edge), site=site)
            figures[f"{index} fused"] = {"ndcg": fused.ndcg.tolist(), "recall": fused.recall.tolist()}
    Path(task.output).write_text(json.dumps(figures), "utf-8")


if __name__ == "__main__":
    values = json.loads(sys.argv[1])
    run(Task(**{**values, "which": tuple(values["which"])}))
