"""`/v1/search` over HTTP against the library it is built on, called in one process: words alone, and with meaning.

A search with meaning and for a user asks two models, one for the words and one for the user: so does what it is
measured against.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.content import buckets_of
from simulation.bench.growth import Advance
from simulation.bench.serving import caller, titles
from simulation.bench.serving.bare import open_session
from simulation.bench.serving.caller import Server
from simulation.bench.serving.server import SERVER_CORE, here
from simulation.bench.serving.shop import Shop

_TOP = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is asked.

    Attributes:
        rounds: every side once a round; the first does not count.
        questions: of one client in each.
    """

    rounds: int = 5
    questions: int = 200


def steps(plan: Plan) -> int:
    """How often `measure` will call ``advance``."""
    return plan.rounds


def measure(shop: Shop, plan: Plan, *, scratch: Path, advance: Advance) -> dict[str, Any]:
    """Medians of one client's waiting, and of the library's work.

    Returns:
        milliseconds of both kinds of question on both sides, and the two ratios.
    """
    (scratch / "tantivy").mkdir()
    library = titles.bare(shop.titles, scratch / "tantivy")
    towers, model = open_session(str(shop.towers)), open_session(str(shop.model))
    server = Server(port=shop.port, key=shop.key)
    waited: dict[str, list[float]] = {"tantivy": [], "words": [], "tantivy_and_models": [], "meaning": []}
    asked = np.array([_TOP], np.int64)
    rng = np.random.default_rng(0)

    def with_models(text: str) -> None:
        library(text)
        towers.run(None, {"history": _words(text), "k": asked})
        model.run(None, {"history": rng.integers(1, shop.size.items + 1, (1, shop.size.history)), "k": asked})

    with server.connected() as line:
        for turn in range(plan.rounds + 1):
            texts = titles.questions(shop.titles, plan.questions, np.random.default_rng(turn))
            plain = [server.request("/v1/search", {"query": text, "semantic": "off"}) for text in texts]
            personal = [
                server.request("/v1/search", {"query": text, "user": shop.user(turn * plan.questions + number)})
                for number, text in enumerate(texts)
            ]
            once = {
                "tantivy": _called(library, texts),
                "words": _asked(line, plain),
                "tantivy_and_models": _called(with_models, texts),
                "meaning": _asked(line, personal),
            }
            if turn:
                advance("searches")
                for name, seconds in once.items():
                    waited[name] += seconds
    middle = {name: 1000 * median(seconds) for name, seconds in waited.items()}
    return {f"{name}_p50_ms": value for name, value in middle.items()} | {
        "search_p50_ratio": middle["words"] / middle["tantivy"],
        "search_semantic_p50_ratio": middle["meaning"] / middle["tantivy_and_models"],
    }


def _words(text: str) -> NDArray[np.int64]:
    """int64[1, t], as the towers take a question."""
    return np.array([[bucket + 1 for bucket in buckets_of((text, "", ""))]], np.int64)


def _called(ask: Callable[[str], object], texts: list[str]) -> list[float]:
    """Seconds of each, on the server's core."""
    seconds = []
    with here(SERVER_CORE):
        for text in texts:
            began = time.perf_counter()
            ask(text)
            seconds.append(time.perf_counter() - began)
    return seconds


def _asked(line: Any, requests: list[bytes]) -> list[float]:
    with here():
        return caller.one_by_one(line, requests)
