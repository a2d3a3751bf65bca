"""What a search costs beside a bare query of the library that it is built on, in one process and in CPU time.

Titles are drawn like those of a hardware shop: a brand, words that follow Zipf's law, and a few attributes (colours,
sizes, counts) that stand in very many titles. Questions are one to four words of one title.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_bytes
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import tantivy

from center.releases.export_search import TowerWeights
from edge.records.events import Item
from edge.records.store import Store
from edge.search.answers import Ask
from edge.search.searching import Search
from edge.serving.release import Loaded
from edge.serving.service import Service
from protocol.content import BUCKETS

ITEMS: Final = 50_000
_VOCABULARY: Final = 20_000
_BRANDS: Final = 500
_CATEGORIES: Final = 40
_ATTRIBUTES: Final = (
    *("white", "black", "chrome", "steel", "red", "blue", "green", "oak", "brushed", "small", "large", "indoor"),
    *("outdoor", "12 in", "24 in", "36 in", "2 pack", "4 pack", "5 gal", "1 gal", "12 v", "18 v", "60 w", "2 x 4"),
    *("left", "right", "heavy duty", "matte", "satin", "gloss"),
)
_ROUNDS: Final = 3


def titles(count: int, rng: np.random.Generator) -> list[str]:
    """So many, 8 words each in the mean."""
    words = [_word(number) for number in range(_VOCABULARY)]
    chance = 1 / np.arange(5, _VOCABULARY + 5)
    lengths = rng.integers(2, 8, count)
    drawn = iter(rng.choice(_VOCABULARY, int(lengths.sum()), p=chance / chance.sum()).tolist())
    brands, attributes = rng.integers(_BRANDS, size=count).tolist(), rng.integers(len(_ATTRIBUTES), size=(count, 3))
    kept = rng.integers(1, 4, count).tolist()
    return [
        " ".join(
            [
                _word(_VOCABULARY + brand).capitalize(),
                *(words[next(drawn)] for _ in range(length)),
                *(_ATTRIBUTES[number] for number in some[:few]),
            ]
        )
        for brand, length, some, few in zip(brands, lengths.tolist(), attributes.tolist(), kept, strict=True)
    ]


def questions(of: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """One to four words of one title each, in any order."""
    found = []
    for number in rng.integers(len(of), size=count).tolist():
        words = of[number].split()
        asked = rng.permutation(len(words))[: rng.integers(1, 5)].tolist()
        found.append(" ".join(words[at] for at in asked).lower())
    return found


def items(of: Sequence[str], rng: np.random.Generator) -> Iterator[Item]:
    """Items ``i1``, ``i2``, ... with these titles."""
    for number, title in enumerate(of, start=1):
        yield Item(
            item=f"i{number}",
            title=title,
            category=f"category {int(rng.integers(_CATEGORIES))}",
            brand=title.split(maxsplit=1)[0],
            price=round(float(rng.lognormal(2.0, 1.0)), 2),
        )


def towers(rng: np.random.Generator, *, size: int = 64) -> TowerWeights:
    """Two towers that nobody trained; they cost what trained ones cost."""
    tokens = rng.standard_normal((BUCKETS, size)).astype(np.float32)
    return TowerWeights(tokens=tokens, question=np.eye(size, dtype=np.float32), item=np.eye(size, dtype=np.float32))


def bare(of: Sequence[str], directory: Path) -> Callable[[str], list[int]]:
    """The library's own tutorial: titles in, parse a question, search the ten best, read which they are."""
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("title")
    builder.add_unsigned_field("id", stored=True)
    index = tantivy.Index(builder.build(), path=str(directory))
    writer = index.writer(128 << 20, 1)
    for number, title in enumerate(of, start=1):
        document = tantivy.Document()
        document.add_text("title", title)
        document.add_unsigned("id", number)
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()

    def ask(text: str) -> list[int]:
        found = searcher.search(index.parse_query(text, ["title"]), 10)
        return [searcher.doc(address)["id"][0] for _, address in found.hits]

    return ask


@contextmanager
def search(of: Sequence[str], directory: Path, rng: np.random.Generator) -> Iterator[Search]:
    """A shop without a release, whose index is there."""
    with Store.open(directory / "store.db", durability="normal") as store:
        store.put_items(items(of, rng))
        service = Service(store, Loaded.of(store, None), draw=token_bytes, now_ms=lambda: 0)
        found = Search.open(directory / "search", service, language="english", draw=token_bytes, clock=time.monotonic)
        try:
            found.follower.step()
            found.look_again()
            yield found
        finally:
            found.close()
            service.close()


def measure(*, count: int = ITEMS, asked: int = 1_000, seed: int = 0) -> dict[str, Any]:
    """CPU time of both, question by question and turn by turn, in µs; no HTTP on either side."""
    rng = np.random.default_rng(seed)
    drawn = titles(count, rng)
    texts = questions(drawn, asked, rng)
    with TemporaryDirectory() as folder:
        (Path(folder) / "bare").mkdir()
        plain = bare(drawn, Path(folder) / "bare")
        with search(drawn, Path(folder), rng) as ours:
            sides: dict[str, Callable[[str], object]] = {
                "bare": plain,
                "search": lambda text: ours.search(Ask(text=text)),
                "suggest": ours.suggest,
            }
            spent = {name: np.full(asked, np.inf) for name in sides}
            for _ in range(_ROUNDS):
                for number, text in enumerate(texts):
                    for name, ask in sides.items():
                        began = time.thread_time()
                        ask(text)
                        spent[name][number] = min(spent[name][number], time.thread_time() - began)
    report: dict[str, Any] = {"items": count, "questions": asked}
    for name, seconds in spent.items():
        report[f"{name}_p50_us"], report[f"{name}_p99_us"] = (float(1e6 * q) for q in np.quantile(seconds, [0.5, 0.99]))
    report["search_p50_ratio"] = report["search_p50_us"] / report["bare_p50_us"]
    return report


def _word(number: int) -> str:
    """A word that no other number has."""
    consonants, vowels, word = "bdfgklmnprstvz", "aeiou", ""
    number += len(consonants) * len(vowels)
    while number:
        number, letter = divmod(number, len(consonants) * len(vowels))
        word += consonants[letter // len(vowels)] + vowels[letter % len(vowels)]
    return word
