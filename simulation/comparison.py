"""What the federation is compared with: baselines, every site alone, and all data in one place.

The networks train with the edges' own code and the same budget; nothing of this runs in a federation.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from center.rounds.campaign import Folder
from center.settings import ModelSettings
from protocol.errors import UnavailableError
from protocol.models import weights as model_weights
from simulation.alone import Task
from simulation.baselines import PersonalFrequency, Popularity, item_counts
from simulation.datasets import Dataset
from simulation.quality import Quality, evaluate
from simulation.sequences import ModelScorer, TestHistories, tokens_of

_AT_ONCE = 2
_LOOK_SECONDS = 0.2

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compared:
    """Quality by voice and site, and of the federated weights after each round.

    Attributes:
        quality: voice -> one entry a site.
        ndcg_by_round: over all sites.
    """

    quality: dict[str, list[Quality]]
    ndcg_by_round: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What everybody may spend.

    Attributes:
        rounds: of the federation; the others make as many passes over their data in one go.
    """

    rounds: int
    fraction: float
    model: ModelSettings


def compare(data: Dataset, *, campaign: Path, edges: Path, scratch: Path, budget: Budget, advance: Advance) -> Compared:
    """Train alone and pooled, and evaluate everything on the same baskets.

    Args:
        campaign: folder of the federated weights.
        edges: the folder of the edges' folders; they have ended.
        scratch: for the outputs of the training processes.

    Raises:
        UnavailableError: a training process ended with an error.
    """
    quality = _baselines(data)
    trained = _train(data, edges=edges, scratch=scratch, budget=budget, advance=advance)
    quality["local"] = [trained[(index,)][str(index)] for index in range(len(data.sites))]
    quality["local_fused"] = [trained[(index,)][f"{index} fused"] for index in range(len(data.sites))]
    everybody = tuple(range(len(data.sites)))
    quality["central"] = [trained[everybody][str(index)] for index in everybody]
    by_round = _federated(data, campaign=campaign, rounds=budget.rounds, advance=advance)
    quality["federated"] = by_round[-1]
    return Compared(quality=quality, ndcg_by_round=[float(Quality.over(parts).ndcg.mean()) for parts in by_round])


def steps(sites: int, rounds: int) -> int:
    """How often `compare` will call ``advance``."""
    return sites + 1 + rounds


def _baselines(data: Dataset) -> dict[str, list[Quality]]:
    counts = [item_counts(site, items=len(data.catalogue)) for site in data.sites]
    everywhere = np.sum(counts, axis=0)
    popular = Popularity(everywhere)
    personal = [PersonalFrequency(site, popularity=own) for site, own in zip(data.sites, counts, strict=True)]
    return {
        "popularity": [evaluate(popular, site.test) for site in data.sites],
        "personal_frequency": [evaluate(own, site.test) for own, site in zip(personal, data.sites, strict=True)],
    }


def _federated(data: Dataset, *, campaign: Path, rounds: int, advance: Advance) -> list[list[Quality]]:
    tokens = tokens_of(data)
    histories = [TestHistories.of(site) for site in data.sites]
    by_round = []
    for completed in range(1, rounds + 1):
        path = Folder(path=campaign).weights(completed)
        if not path.exists():
            break  # steps were taken back until the campaign ended
        weights = model_weights.load(path.read_bytes())
        parts = [
            evaluate(ModelScorer(weights, tokens, past), site.test)
            for past, site in zip(histories, data.sites, strict=True)
        ]
        by_round.append(parts)
        advance(1)
    return by_round


def _train(
    data: Dataset, *, edges: Path, scratch: Path, budget: Budget, advance: Advance
) -> dict[tuple[int, ...], dict[str, Quality]]:
    """Every site alone and all together, two processes at a time, the longest first."""
    scratch.mkdir(parents=True, exist_ok=True)
    everybody = tuple(range(len(data.sites)))
    waiting = [_task(everybody, len(data.sites), scratch, budget)]
    for index, site in enumerate(data.sites):
        task = _task((index,), len(data.sites), scratch, budget)
        waiting.append(replace(task, edge=str(edges / site.name)))
    running: dict[subprocess.Popen[bytes], Task] = {}
    done: dict[tuple[int, ...], dict[str, Quality]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < _AT_ONCE:
                task = waiting.pop(0)
                running[_start(task)] = task
            for process in [process for process in running if process.poll() is not None]:
                task = running.pop(process)
                if process.returncode != 0:
                    said = Path(task.output).with_suffix(".log").read_text("utf-8").strip().splitlines()[-1:]
                    raise UnavailableError(f"training for comparison failed: {' '.join(said)}")
                done[task.which] = _read(task)
                advance(1)
            time.sleep(_LOOK_SECONDS)
    finally:
        for process in running:
            process.kill()
            process.wait()
    return done


def _task(which: tuple[int, ...], sites: int, scratch: Path, budget: Budget) -> Task:
    model = budget.model
    whole = Task(
        sites=sites,
        fraction=budget.fraction,
        which=which,
        embedding_size=model.embedding_size,
        history_length=model.history_length,
        min_support=model.min_support,
        epochs=budget.rounds * model.epochs,
        batch_size=model.batch_size,
        learning_rate=model.learning_rate,
        negatives=model.negatives,
        seed=model.seed,
        output=str(scratch / f"{'-'.join(map(str, which)) if len(which) == 1 else 'central'}.json"),
    )
    # A site alone sees a part of the events only; it would ask for as much less.
    return whole if len(which) > 1 else replace(whole, min_support=max(1, model.min_support // sites))


def _start(task: Task) -> subprocess.Popen[bytes]:
    with Path(task.output).with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "simulation.alone", json.dumps(asdict(task))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _read(task: Task) -> dict[str, Quality]:
    figures = json.loads(Path(task.output).read_text("utf-8"))
    return {
        name: Quality(ndcg=np.array(of_users["ndcg"]), recall=np.array(of_users["recall"]))
        for name, of_users in figures.items()
    }
