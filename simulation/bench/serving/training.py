"""How long answers take while this site's learner computes on the same machine, and while it does not.

``python -m simulation.bench.serving.training --dir DIRECTORY`` is the learner's work without the rounds around it: the
edge's own training code over the shop's own events, again and again.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge import settings as edge_settings
from edge.children import Child, end_with_parent
from edge.settings import TrainingSettings
from protocol.errors import UnavailableError
from simulation.bench.growth import Advance
from simulation.bench.serving import caller
from simulation.bench.serving.caller import Server
from simulation.bench.serving.recommending import questions
from simulation.bench.serving.server import here
from simulation.bench.serving.shop import Shop

_MODULE = "simulation.bench.serving.training"
_READY = "learning"
_READY_SECONDS = 120.0
_SETTLE_SECONDS = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long is measured.

    Attributes:
        rounds: each with and without the learner; the first does not count.
        questions: of one client in each.
    """

    rounds: int = 8
    questions: int = 500


def steps(plan: Plan) -> int:
    """How often `measure` will call ``advance``."""
    return plan.rounds


def measure(shop: Shop, plan: Plan, *, advance: Advance) -> dict[str, Any]:
    """Percentiles of one client's answers, with and without.

    Returns:
        milliseconds, and the ratio of the two 99th percentiles.
    """
    server = Server(port=shop.port, key=shop.key)
    ready = shop.directory / _READY
    ready.unlink(missing_ok=True)
    learner = Child([], directory=shop.directory, niceness=TrainingSettings().niceness, module=_MODULE)
    learner.start()
    waited: dict[str, list[float]] = {"idle": [], "training": []}
    try:
        _wait_for(ready, learner)
        with server.connected() as line:
            for turn in range(plan.rounds + 1):
                alone, beside = (questions(shop, server, count=plan.questions, seed=2 * turn + half) for half in (0, 1))
                once = {"idle": _paused(learner, line, alone), "training": _beside(learner, line, beside)}
                if turn:
                    advance("answers beside training")
                    for name, seconds in once.items():
                        waited[name] += seconds
    finally:
        learner.signal(signal.SIGCONT)
        learner.stop()
    p99 = {name: 1000 * float(np.quantile(seconds, 0.99)) for name, seconds in waited.items()}
    p50 = {name: 1000 * float(np.quantile(seconds, 0.5)) for name, seconds in waited.items()}
    return {
        "idle_p50_ms": p50["idle"],
        "idle_p99_ms": p99["idle"],
        "training_p50_ms": p50["training"],
        "training_p99_ms": p99["training"],
        "p99_ratio": p99["training"] / p99["idle"],
    }


def _paused(learner: Child, line: Any, asked: list[bytes]) -> list[float]:
    learner.signal(signal.SIGSTOP)
    return _asked(line, asked)


def _beside(learner: Child, line: Any, asked: list[bytes]) -> list[float]:
    learner.signal(signal.SIGCONT)
    return _asked(line, asked)


def _asked(line: Any, asked: list[bytes]) -> list[float]:
    time.sleep(_SETTLE_SECONDS)
    with here():
        return caller.one_by_one(line, asked)


def _wait_for(ready: Path, learner: Child) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not ready.exists():
        if not learner.running() or time.monotonic() > deadline:
            raise UnavailableError("the learner of the benchmark does not start")
        time.sleep(0.1)


def learn(directory: Path, *, again: Callable[[], bool] = lambda: True) -> None:
    """Train as in a round, over and over, from the first step on with a file that says so."""
    import torch  # noqa: PLC0415 - in the child alone

    from edge.rounds import training  # noqa: PLC0415
    from edge.rounds.books import Books  # noqa: PLC0415
    from protocol.models import weights as model_weights  # noqa: PLC0415
    from protocol.models.weights import SequenceConfig  # noqa: PLC0415

    settings = edge_settings.load(directory)
    torch.set_num_threads(settings.training.threads)
    books = Books.read(directory, settings)
    counts = training.item_counts(books.rows, items=books.items).astype(np.float64)
    config = SequenceConfig(items=books.items)
    weights = model_weights.initial(config, popularity=counts, min_support=1, rng=np.random.default_rng(0))
    started = False

    def stop() -> bool:
        nonlocal started
        if not started:
            started = True
            (directory / _READY).touch()
        return False

    while again():
        lesson = training.Lesson(epochs=1)
        training.train(weights, books.tokens, books.sequences, lesson=lesson, seed=0, stop=stop)


if __name__ == "__main__":
    end_with_parent()
    os.environ["OMP_NUM_THREADS"] = "1"
    learn(Path(sys.argv[sys.argv.index("--dir") + 1]))
