"""Asks running edges as their shops would: how good, how fast, how heavy."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge import settings as edge_settings
from edge import tuning
from protocol.errors import FederationError, UnavailableError
from simulation.datasets import SiteData
from simulation.federation import Site
from simulation.processes import Child
from simulation.quality import K, Quality

_BARE_RUNS = 300
_SAMPLE = 2000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """What one edge answered to every user of its test.

    Attributes:
        milliseconds: float64[users], from the request to the whole answer, at the client.
        degraded: answers that were not of the best rung.
    """

    quality: Quality
    milliseconds: NDArray[np.float64]
    degraded: int


def ask(site: Site, data: SiteData, *, advance: Callable[[int], None]) -> Served:
    """Ask for every user of the test and compare with the basket that came next.

    Raises:
        FederationError: an answer is no answer.
    """
    answers: list[list[str]] = []
    milliseconds = np.empty(len(data.test))
    degraded = 0
    with site.client() as client:
        for position, user in enumerate(data.test.users):
            began = time.perf_counter()
            response = client.post("/v1/recommendations", json={"user": user, "limit": K})
            milliseconds[position] = 1000 * (time.perf_counter() - began)
            if not response.is_success:
                raise FederationError(f"{site.name} answers {response.status_code}: {response.text[:200]}")
            answer = response.json()
            degraded += bool(answer["degraded"])
            answers.append([one["item"] for one in answer["items"]])
            advance(1)
    return Served(quality=quality_of(answers, data), milliseconds=milliseconds, degraded=degraded)


def quality_of(answers: Sequence[Sequence[str]], data: SiteData) -> Quality:
    """How good lists of items are, one for each user of a site's test; what is not in a list counts as missed."""
    row_of = dict(zip(data.events["item"].to_list(), data.events["row"].to_list(), strict=True))
    ranks = np.full(int(data.test.offsets[-1]), np.inf)
    for position, answer in enumerate(answers):
        place = {row_of.get(item): rank for rank, item in enumerate(answer, start=1)}
        start, end = data.test.offsets[position], data.test.offsets[position + 1]
        ranks[start:end] = [place.get(int(row), np.inf) for row in data.test.rows[start:end]]
    return Quality.of_ranks(ranks, data.test.offsets)


def check_event_changes_answer(site: Site, data: SiteData) -> None:
    """Post an event; the user's next answer has to be another.

    Raises:
        FederationError: it is the same.
    """
    user, item = f"visitor-{time.time_ns()}", data.events["item"][0]
    with site.client() as client:
        before = client.post("/v1/recommendations", json={"user": user}).json()
        posted = client.post("/v1/events", json={"type": "purchase", "user": user, "item": item})
        after = client.post("/v1/recommendations", json={"user": user}).json()
    if not posted.is_success or before["items"] == after["items"]:
        raise FederationError(f"{site.name}: the answer is the same after an event", advice="see the logs")


def measure(site: Site, child: Child, *, start_seconds: float, served: list[Served]) -> dict[str, Any]:
    """Latency over all requests, the bare model beside it, and what the process weighs."""
    milliseconds = np.concatenate([answers.milliseconds for answers in served])
    rng = np.random.default_rng(0)
    sample = rng.choice(milliseconds, min(_SAMPLE, len(milliseconds)), replace=False)
    return {
        "requests": len(milliseconds),
        "degraded": sum(answers.degraded for answers in served),
        "p50_ms": round(float(np.quantile(milliseconds, 0.5)), 3),
        "p99_ms": round(float(np.quantile(milliseconds, 0.99)), 3),
        "bare_session_run_ms": round(bare_session_run(site.directory), 3),
        "rss_mb": round(resident_bytes(child.pid) / 1e6, 1),
        "start_seconds": round(start_seconds, 3),
        "sample_ms": [round(float(value), 3) for value in sample],
    }


def bare_session_run(edge: Path) -> float:
    """Median milliseconds of the model alone, on the same file, for one history of full length.

    Raises:
        UnavailableError: no release is committed there.
    """
    installed = tuning.open_installer(edge, edge_settings.load(edge)).bundle()
    if installed is None:
        raise UnavailableError(f"{edge} has committed no release")
    bundle = installed.directory
    card = json.loads((bundle / "card.json").read_text("utf-8"))["submodels"]["recommend"]
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # it would say of every graph that reads private items, too, that it does
    session = ort.InferenceSession(bundle / "recommend" / "model.onnx", options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    history = rng.integers(1, card["items"] + 1, (1, card["history_length"]), dtype=np.int64)
    asked = {"history": history, "k": np.array([100], np.int64)}
    times = []
    for _ in range(_BARE_RUNS):
        began = time.perf_counter()
        session.run(None, asked)
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times))


def resident_bytes(pid: int) -> int:
    """Memory of a process that is really in use, from the kernel."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    return 0
