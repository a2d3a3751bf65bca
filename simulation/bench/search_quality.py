"""How good the order of the words alone is: Home Depot's searches, judged by people, over all titles.

Retrieval over every product, the questions with at least two judgements; what nobody judged counts as irrelevant. Plain
BM25 on stemmed titles is measured beside it, by the same library. The data may be used for research and are not copied.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from tantivy import Occur, Query

from edge.records.events import Item
from edge.search.documents import SCHEMA, Entry, Stems
from edge.search.index import Index, Reader
from edge.search.matching import match
from protocol.errors import BadInputError

FILE: Final = "judgements.parquet"
TOP, DEEP = 10, 100
RELEVANT: Final = 2.33
"""A judgement from here on counts as found, for recall; judgements go from 1 to 3."""
_FEWEST: Final = 2

Judged = Mapping[int, float]
"""Product -> how relevant it is."""


def measure(data: Path) -> dict[str, Any]:
    """Both orders on the data in a folder.

    Raises:
        BadInputError: there are none.
    """
    titles, judged = read(data)
    with TemporaryDirectory() as folder:
        index = Index.create(Path(folder), Stems("english"))
        index.put((Entry(key=key, item=Item(item="x", title=title)) for key, title in titles.items()), fresh=True)
        index.learn_words()
        report: dict[str, Any] = {"products": len(titles), "questions": len(judged)}
        sides: dict[str, Callable[[str, Reader], list[int]]] = {
            "plain": _plain,
            "search": lambda text, reader: match(text, reader, most=DEEP).keys,
        }
        for name, ask in sides.items():
            began = time.process_time()
            figures = [_judge(ask(text, index.reader), wanted) for text, wanted in judged.items()]
            report[f"{name}_ms"] = 1_000 * (time.process_time() - began) / len(judged)
            gains = [gain for gain, _ in figures if gain is not None]
            found = [share for _, share in figures if share is not None]
            report[f"{name}_ndcg@10"], report[f"{name}_recall@100"] = float(np.mean(gains)), float(np.mean(found))
    return report


def read(data: Path) -> tuple[dict[int, str], dict[str, dict[int, float]]]:
    """Titles by product, and the judgements of each question that has at least two.

    Raises:
        BadInputError: the folder has no such file.
    """
    path = data / FILE
    if not path.exists():
        raise BadInputError(f"{path} is missing", advice="name the folder of the Home Depot judgements")
    columns = pq.read_table(path, columns=["product_uid", "product_title", "search_term", "relevance"]).to_pydict()
    titles: dict[int, str] = dict(zip(columns["product_uid"], columns["product_title"], strict=True))
    judged: dict[str, dict[int, float]] = {}
    for key, text, relevance in zip(columns["product_uid"], columns["search_term"], columns["relevance"], strict=True):
        judged.setdefault(text, {})[key] = float(relevance)
    return titles, {text: wanted for text, wanted in judged.items() if len(wanted) >= _FEWEST}


def _plain(text: str, reader: Reader) -> list[int]:
    """Any of the stems, BM25 on the title, and nothing else."""
    stems = dict.fromkeys(reader.stems(_plain_words(text)))
    if not stems:
        return []
    either = [(Occur.Should, Query.term_query(SCHEMA, "title", stem)) for stem in stems]
    found = reader.searcher.search(Query.boolean_query(either), DEEP, count=False)
    return reader.keys([address for _, address in found.hits])


def _plain_words(text: str) -> Iterator[str]:
    yield from "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()


def _judge(found: Sequence[int], wanted: Judged) -> tuple[float | None, float | None]:
    """NDCG@10 with gains of 2^(relevance - 1) - 1, and recall@100; None where nothing could be gained or found."""
    gains = [_gain(wanted[key]) if key in wanted else 0.0 for key in found[:TOP]]
    ideal = _discounted(sorted(map(_gain, wanted.values()), reverse=True)[:TOP])
    relevant = {key for key, relevance in wanted.items() if relevance >= RELEVANT}
    share = len(relevant.intersection(found)) / len(relevant) if relevant else None
    return (_discounted(gains) / ideal if ideal else None), share


def _gain(relevance: float) -> float:
    return float(2 ** (relevance - 1) - 1)


def _discounted(gains: Sequence[float]) -> float:
    return float(sum(gain / np.log2(rank + 2) for rank, gain in enumerate(gains)))
