"""`/v1/recommendations` against the model alone: how long one client waits, and how many a core serves."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from protocol.errors import UnavailableError
from simulation.bench.growth import Advance
from simulation.bench.serving import caller
from simulation.bench.serving.bare import K, open_session
from simulation.bench.serving.caller import Server
from simulation.bench.serving.server import SERVER_CORE, Pinned, here, on_its_core
from simulation.bench.serving.shop import Shop
from simulation.processes import free_ports, program

_CATEGORIES = 20
_LIMIT = 10
_CLIENTS = 32
_SETTLE_SECONDS = 300.0
_BEHIND = re.compile(r"^hanse_edge_following_events_behind\{.*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long is measured.

    Attributes:
        rounds: of each, every side once a round.
        questions: of one client in each round.
        seconds: that 32 clients ask in each round.
    """

    rounds: int = 7
    questions: int = 150
    seconds: float = 4.0


def edge(shop: Shop, logs: Path) -> Any:
    """The shop's `hanse-edge serve`, on its core, from its first good answer on."""
    return on_its_core(
        f"edge-{shop.size.items}",
        [program("hanse-edge"), "serve", "--dir", str(shop.directory)],
        port=shop.port,
        log=logs / f"edge-{shop.size.items}.log",
        good={"user": shop.user(0), "limit": _LIMIT},
        key=shop.key,
    )


def settle(shop: Shop) -> None:
    """Wait until a shop's edge has followed all its events, built its index and fitted its fusion."""
    with httpx.Client(base_url=f"http://127.0.0.1:{shop.port}", timeout=30.0, trust_env=False) as client:
        deadline = time.monotonic() + _SETTLE_SECONDS
        while not _settled(client, shop):
            if time.monotonic() > deadline:
                raise UnavailableError("the shop's edge does not come to rest")
            time.sleep(0.2)


def _settled(client: httpx.Client, shop: Shop) -> bool:
    key = {"Authorization": f"Bearer {shop.key}"}
    told = client.post("/v1/search", json={"query": shop.titles[0]}, headers=key).json()
    behind = _BEHIND.findall(client.get("/metrics", headers=key).text)
    fitted = any((shop.directory / "fusion").glob("*.json"))
    return fitted and told["hits"] > 0 and not told["reasons"] and set(map(float, behind)) == {0.0}


def steps(plan: Plan) -> int:
    """How often `measure` will call ``advance``."""
    return 2 * plan.rounds


def measure(shop: Shop, served: Pinned, plan: Plan, *, logs: Path, advance: Advance) -> dict[str, Any]:
    """Both figures, with the filter, the history from SQLite and the rec_id that every answer has.

    Returns:
        medians in milliseconds, requests per second of processor time, and the two ratios.
    """
    (port,) = free_ports(1)
    bare = on_its_core(
        f"bare-{shop.size.items}",
        [sys.executable, "-m", "simulation.bench.serving.bare", str(shop.model), str(port)],
        port=port,
        log=logs / f"bare-{shop.size.items}.log",
    )
    with ExitStack() as parts:
        raw = parts.enter_context(bare)
        one = _one_client(shop, raw, plan, advance)
        many = _many_clients(shop, served, raw, plan, advance)
    return one | many


def questions(shop: Shop, server: Server, *, count: int, seed: int) -> list[bytes]:
    """What a shop asks: for a user, among half of the categories.

    One user after the other: nobody comes again before an edge has forgotten what it remembered of them.
    """
    rng = np.random.default_rng(seed)
    kinds = [[f"category {one}" for one in rng.permutation(40)[:_CATEGORIES]] for _ in range(5)]
    return [
        server.request(
            "/v1/recommendations",
            {"user": shop.user(seed * count + turn), "limit": _LIMIT, "filter": {"category": kinds[turn % len(kinds)]}},
        )
        for turn in range(count)
    ]


def _one_client(shop: Shop, raw: Pinned, plan: Plan, advance: Advance) -> dict[str, Any]:
    server, plain = Server(port=shop.port, key=shop.key), Server(port=raw.port)
    session = open_session(str(shop.model))
    waited: dict[str, list[float]] = {"model": [], "edge": [], "asgi": []}
    with server.connected() as line, plain.connected() as other:
        for turn in range(plan.rounds + 1):
            histories = list(_histories(shop, plan.questions, seed=turn))
            times = {
                "model": _bare_runs(session, histories),
                "edge": _asked(line, questions(shop, server, count=plan.questions, seed=turn)),
                "asgi": _asked(other, [plain.request("/", {"history": row[0].tolist()}) for row in histories]),
            }
            if turn:  # the first does not count
                advance("one client")
                for name, seconds in times.items():
                    waited[name] += seconds
    middle = {name: 1000 * median(seconds) for name, seconds in waited.items()}
    return {
        "session_run_ms": middle["model"],
        "recommend_p50_ms": middle["edge"],
        "recommend_p99_ms": 1000 * float(np.quantile(waited["edge"], 0.99)),
        "raw_asgi_p50_ms": middle["asgi"],
        "p50_ratio": middle["edge"] / middle["model"],
    }


def _histories(shop: Shop, count: int, *, seed: int) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.integers(1, shop.size.items + 1, (1, shop.size.history), dtype=np.int64)


def _bare_runs(session: Any, histories: list[NDArray[np.int64]]) -> list[float]:
    """Seconds of each `session.run`, on the server's core."""
    asked, seconds = np.array([K], np.int64), []
    with here(SERVER_CORE):
        for history in histories:
            began = time.perf_counter()
            session.run(None, {"history": history, "k": asked})
            seconds.append(time.perf_counter() - began)
    return seconds


def _asked(line: Any, requests: list[bytes]) -> list[float]:
    with here():
        return caller.one_by_one(line, requests)


def _many_clients(shop: Shop, served: Pinned, raw: Pinned, plan: Plan, advance: Advance) -> dict[str, Any]:
    server, plain = Server(port=shop.port, key=shop.key), Server(port=raw.port)
    asked = questions(shop, server, count=shop.size.users, seed=99)
    histories = [plain.request("/", {"history": row[0].tolist()}) for row in _histories(shop, 500, seed=99)]
    rates: dict[str, list[float]] = {"edge": [], "asgi": []}
    for turn in range(plan.rounds + 1):
        once = {
            "edge": _rate(server, served, asked, plan.seconds),
            "asgi": _rate(plain, raw, histories, plan.seconds),
        }
        if turn:
            advance("32 clients")
            for name, rate in once.items():
                rates[name].append(rate)
    ratios = [ours / theirs for ours, theirs in zip(rates["edge"], rates["asgi"], strict=True)]
    return {
        "requests_per_cpu_second": median(rates["edge"]),
        "raw_asgi_per_cpu_second": median(rates["asgi"]),
        "throughput_ratio": median(ratios),
    }


def _rate(server: Server, process: Pinned, requests: list[bytes], seconds: float) -> float:
    """Answers per second of the server's processor time."""
    with here():
        before = process.cpu_seconds()
        answered = caller.at_once(server, requests, clients=_CLIENTS, seconds=seconds)
        return answered / (process.cpu_seconds() - before)
