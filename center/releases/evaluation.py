"""May this release ship? The served artifact is compared with full precision before anything is signed.

The center has no histories: it draws some from the federation's popularity. How good the answers are in the shops is
measured there, and reaches the center as sums.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from center.releases.export import SUBMODEL, Exported
from center.settings import GateSettings
from protocol.errors import UntrustedReleaseError

K = 10
_HISTORIES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How near the served artifact is to the same model in full precision.

    Attributes:
        top10_overlap: mean share of the full-precision top 10 that is in the served top 10.
        ndcg: mean NDCG@10 of the served order, with the full-precision top 10 as the truth, its first item worth most.
        histories: how many were compared.
    """

    top10_overlap: float
    ndcg: float
    histories: int

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def sample_histories(
    popularity: NDArray[np.float64], *, length: int, count: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Histories of 1 to `length` rows, drawn by popularity.

    Args:
        popularity: float64[n + 1], counts by row.
    """
    chance = popularity[1:] + 1e-3 * max(popularity[1:].mean(), 1e-9)
    cumulative = np.cumsum(chance)
    sizes = rng.integers(1, length + 1, count)
    return [1 + np.searchsorted(cumulative, rng.random(size) * cumulative[-1]).astype(np.int64) for size in sizes]


def compare(
    exported: Exported,
    popularity: NDArray[np.float64],
    *,
    history_length: int,
    rng: np.random.Generator,
    histories: int = _HISTORIES,
) -> Agreement:
    """Ask both models the same."""
    with TemporaryDirectory() as folder:
        for path, data in exported.files.items():
            place = Path(folder) / path
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(data)
        served = _session(str(Path(folder) / SUBMODEL / "model.onnx"))
        full = _session(exported.fp32)
        asked = sample_histories(popularity, length=history_length, count=histories, rng=rng)
        tops = [(_top(served, history), _top(full, history)) for history in asked]
    overlap = float(np.mean([len(set(ours) & set(truth)) / len(truth) for ours, truth in tops]))
    ndcg = float(np.mean([_ndcg(ours, truth) for ours, truth in tops]))
    return Agreement(top10_overlap=overlap, ndcg=ndcg, histories=histories)


def check(agreement: Agreement, *, gate: GateSettings) -> None:
    """Hold a release back.

    Raises:
        UntrustedReleaseError: it is too far from full precision; says how far, and where the limit stands.
    """
    for name, found, least in (
        ("top-10 overlap", agreement.top10_overlap, gate.min_top10_overlap),
        ("NDCG@10", agreement.ndcg, gate.min_ndcg),
    ):
        if found < least:
            raise UntrustedReleaseError(
                f"the quantized model keeps {name} {found:.4f} of full precision, less than {least:g}",
                advice="nothing was signed; section gate of center.toml holds the limits",
            )


def _session(model: str | bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _top(session: ort.InferenceSession, history: NDArray[np.int64]) -> list[int]:
    (items,) = session.run(["items"], {"history": history.reshape(1, -1), "k": np.array([K], np.int64)})
    found: list[int] = items[0].tolist()
    return found


def _ndcg(ours: list[int], truth: list[int]) -> float:
    gain = {item: len(truth) - place for place, item in enumerate(truth)}
    discount = 1 / np.log2(np.arange(2, len(truth) + 2))
    reached = sum(gain.get(item, 0) * discount[place] for place, item in enumerate(ours))
    best = sum(gain[item] * discount[place] for place, item in enumerate(truth))
    return float(reached / best)
