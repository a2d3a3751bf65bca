"""A title as HTML, with the words that were looked for in ``<mark>``. What the shop wrote is escaped, always."""

from collections.abc import Sequence
from html import escape

from edge.search.documents import Stems
from edge.search.words import Word, all_words, pieces


def highlight(title: str, wanted: frozenset[str], stems: Stems) -> str:
    """Mark each piece of a title that holds one of these stems."""
    parts, at = [], 0
    for start, end, found in pieces(title):
        if start >= at and _fits(found, wanted, stems):
            parts += [escape(title[at:start]), "<mark>", escape(title[start:end]), "</mark>"]
            at = end
    return "".join([*parts, escape(title[at:])]).replace("</mark><mark>", "")


def _fits(found: Sequence[Word], wanted: frozenset[str], stems: Stems) -> bool:
    return not wanted.isdisjoint(stems(all_words(found)))
