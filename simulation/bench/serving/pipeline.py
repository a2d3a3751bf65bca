"""What a release's graph costs: encoder, scan in 4 bits and second look, against the same model in full precision.

Both graphs run in one process on one thread, in turns, on histories of full length; processor time, medians. The
weights were never trained, but have the shape of trained ones: item vectors lie in clusters and differ in length, as
those of a model that knows tastes do, biases follow the logarithm of a popularity that falls off like Zipf's law.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from center.releases.export import SUBMODEL, export
from protocol.models import weights as model_weights
from protocol.models.weights import SequenceConfig, Weights
from simulation.bench.timing import in_turns, one_core

K: Final = 10
_CLUSTERS = 2_000
_CLUSTER_SHARE = 0.7  # of a vector's variance
_OUTPUTS = ["items"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One catalogue.

    Attributes:
        name: what its figure is called by.
        history: items that each question holds, and the most that the model reads.
    """

    name: str
    items: int
    embedding_size: int
    history: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        questions: put to each catalogue, once for the overlap and once for the time.
    """

    scans: tuple[Scan, ...]
    questions: int = 200


FULL: Final = Plan(
    scans=(
        Scan(name="10k", items=10_000, embedding_size=64, history=200),
        Scan(name="100k", items=100_000, embedding_size=128, history=200),
        Scan(name="1m", items=1_000_000, embedding_size=64, history=50),
    )
)
QUICK: Final = Plan(
    scans=tuple(Scan(name=name, items=500, embedding_size=16, history=20) for name in ("10k", "100k", "1m")),
    questions=10,
)
"""So small a catalogue says nothing about a real one."""


def measure(plan: Plan = FULL) -> dict[str, float]:
    """``pipeline_ratio_NAME`` of each, and ``pipeline_overlap``, the least of their mean top-10 overlaps."""
    found: dict[str, float] = {}
    overlaps = []
    for scan in plan.scans:
        one = compare(scan, questions=plan.questions)
        overlaps.append(one["overlap"])
        found |= {f"pipeline_ratio_{scan.name}": one["ratio"], f"served_ms_{scan.name}": one["milliseconds"]}
    return found | {"pipeline_overlap": min(overlaps)}


def compare(scan: Scan, *, questions: int) -> dict[str, float]:
    """Both graphs of one catalogue: the ratio of their times, the served one's milliseconds, the top-10 overlap."""
    rng = np.random.default_rng(scan.items)
    popularity = np.append(0.0, rng.permutation(1e6 / np.arange(1.0, scan.items + 1)))
    tokens = np.zeros((scan.items + 1, 1), np.int32)  # an item without words has the vector of its own alone
    exported = export(_weights(scan, popularity, rng), tokens, popularity)
    with TemporaryDirectory() as folder, one_core():
        for path, data in exported.files.items():
            place = Path(folder) / path
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(data)
        served, full = _session(str(Path(folder) / SUBMODEL / "model.onnx")), _session(exported.fp32)
        del exported
        asked = list(_histories(scan, popularity, questions, rng))
        overlap = float(np.mean([_overlap(_top(served, one), _top(full, one)) for one in asked]))
        sides = {"served": _asking(served, asked), "full": _asking(full, asked)}
        seconds = in_turns(sides, repetitions=questions)
    ratio = seconds["served"] / seconds["full"]
    return {"ratio": ratio, "milliseconds": 1000 * seconds["served"], "overlap": overlap}


def _weights(scan: Scan, popularity: NDArray[np.float64], rng: np.random.Generator) -> Weights:
    """Small random ones as a campaign begins with, moved off their zeros and ones, and vectors as after training."""
    config = SequenceConfig(items=scan.items, embedding_size=scan.embedding_size, history_length=scan.history)
    first = model_weights.initial(config, popularity=popularity, min_support=1, rng=rng)
    tensors = {
        name: tensor + np.float32(0.05) * rng.standard_normal(tensor.shape, np.float32)
        for name, tensor in first.tensors.items()
        if name not in {"id.weight", "id_bias"}
    }
    shape = scan.items, scan.embedding_size
    clusters = np.float32(_CLUSTER_SHARE**0.5) * rng.standard_normal((_CLUSTERS, shape[1]), np.float32)
    vectors = np.float32((1 - _CLUSTER_SHARE) ** 0.5) * rng.standard_normal(shape, np.float32)
    vectors += clusters[rng.integers(_CLUSTERS, size=shape[0])]
    vectors *= rng.lognormal(0.0, 0.3, (shape[0], 1)).astype(np.float32)
    bias = 0.5 * np.log(popularity[1:] / popularity[1:].mean())
    moved = {**tensors, "id.weight": vectors, "id_bias": bias.astype(np.float32)}
    return Weights(config=config, tensors=moved, id_rows=np.arange(1, scan.items + 1, dtype=np.int32))


def _histories(
    scan: Scan, popularity: NDArray[np.float64], count: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """int64[1, history] each, drawn by popularity."""
    cumulative = np.cumsum(popularity[1:])
    for _ in range(count):
        yield 1 + np.searchsorted(cumulative, rng.random((1, scan.history)) * cumulative[-1])


def _session(model: str | bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _asking(session: ort.InferenceSession, asked: Sequence[NDArray[np.int64]]) -> Callable[[], object]:
    histories, k = cycle(asked), np.array([K], np.int64)
    return lambda: session.run(_OUTPUTS, {"history": next(histories), "k": k})


def _top(session: ort.InferenceSession, history: NDArray[np.int64]) -> set[int]:
    (items,) = session.run(_OUTPUTS, {"history": history, "k": np.array([K], np.int64)})
    return set(items[0].tolist())


def _overlap(ours: set[int], truth: set[int]) -> float:
    return len(ours & truth) / len(truth)
