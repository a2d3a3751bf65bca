"""What the index knows of an item: its fields, and how an item becomes a document.

Words are cut and folded here (`edge.search.words`), stemmed, and handed over with spaces between them, so that the same
rule holds for titles and for questions. The index holds no text to read back: titles lie in memory.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import tantivy

from edge.records.events import Item
from edge.search.words import all_words, folded, words

FORMAT: Final = 1
"""Counts up when the fields or the way words are cut change: an index of another format is built anew."""
_STEPS = str.maketrans({".": "\u2024", "\\": "\u29f5"})  # look-alikes that mean nothing in a path
_MOST_VALUES = 100  # of the attributes of one item, that can be found
_LONGEST_VALUE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An item under the key that the index gives back.

    Attributes:
        key: the store's; of an item that only the catalogue knows, minus its row.
    """

    key: int
    item: Item


class Stems:
    """Words -> what is left of them without their endings."""

    def __init__(self, language: str) -> None:
        """Cut off the endings of a `edge.search.languages.Language`."""
        builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace())
        if language != "none":
            builder = builder.filter(tantivy.Filter.stemmer(language))
        self._analyzer = builder.build()

    def __call__(self, words: Iterable[str]) -> list[str]:
        """One stem a word, in the order of the words."""
        return self._analyzer.analyze(" ".join(words))


def _schema() -> tantivy.Schema:
    """The fields.

    ``title`` and ``about`` (brand, category, attributes, id) hold stems, ``word`` whole words to complete and to
    correct by, ``exact`` the whole title and the id. The rest is for filters, facets and orders.
    """
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("key", indexed=True, fast=True)
    builder.add_text_field("title", tokenizer_name="whitespace", index_option="position")
    builder.add_text_field("about", tokenizer_name="whitespace", index_option="freq")
    builder.add_text_field("word", tokenizer_name="whitespace", index_option="basic")
    builder.add_text_field("exact", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("category", tokenizer_name="raw", index_option="basic", fast=True)
    builder.add_text_field("brand", tokenizer_name="raw", index_option="basic", fast=True)
    builder.add_float_field("price", indexed=True, fast=True)
    builder.add_integer_field("added", fast=True)
    builder.add_json_field("attributes", tokenizer_name="raw", index_option="basic", fast=True)
    return builder.build()


SCHEMA: Final = _schema()


def document(entry: Entry, stems: Stems) -> tantivy.Document:
    """What is written into the index of one item."""
    item, values = entry.item, attribute_values(entry.item.attributes)
    texts = [value for each in values.values() for value in each if isinstance(value, str)]
    title_words, id_words = words(item.title), words(item.item)
    title = all_words(title_words)
    about = [word for text in (item.brand, item.category, *texts) for word in all_words(words(text))]
    about += all_words(id_words)
    made = tantivy.Document()
    made.add_integer("key", entry.key)
    made.add_text("title", " ".join(stems(title)))
    made.add_text("about", " ".join(stems(about)))
    made.add_text("word", " ".join({*title, *about}))
    made.add_text("exact", folded(title_words))
    made.add_text("exact", folded(id_words))
    for name, text in (("category", item.category), ("brand", item.brand)):
        if text:
            made.add_text(name, text)
    if item.price is not None:
        made.add_float("price", item.price)
    made.add_integer("added", item.added_ms or 0)
    if values:
        made.add_json("attributes", {attribute_path(name): list(each) for name, each in values.items()})
    return made


def attribute_values(attributes: Mapping[str, Any]) -> dict[str, Sequence[bool | float | str]]:
    """By name what can be filtered by and counted: texts, flags, and numbers, all of them as fractions."""
    found: dict[str, Sequence[bool | float | str]] = {}
    room = _MOST_VALUES
    for name, value in attributes.items():
        values = tuple(_scalars(value))[:room]
        if values and name:
            found[name] = values
            room -= len(values)
    return found


def attribute_path(name: str) -> str:
    """A name as the index writes it, where a dot would be a step into an object."""
    return name.translate(_STEPS)


def _scalars(value: Any) -> Iterator[bool | float | str]:
    for one in value if isinstance(value, list) else (value,):
        if isinstance(one, bool):
            yield one
        elif isinstance(one, str):
            yield one.encode("utf-8", "replace").decode()[:_LONGEST_VALUE]
        elif isinstance(one, int | float) and math.isfinite(one) and abs(one) < 2**53:
            yield float(one)
