"""What one shop's customers mean by a word: words that mean the same, and words that mean another.

``{"same": ["sofa", "couch", "settee"]}`` works in every direction, ``{"from": "tv", "to": ["flat screen"]}`` in one:
who asks for a tv is shown flat screens, not the other way round. Either side may have several words.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import structlog

from edge.search.slots import Slot, Way
from edge.search.words import words
from protocol.errors import BadInputError

KIND: Final = "synonyms"
"""Of the store's documents."""
MOST_WORDS: Final = 8
"""In one phrase."""
MOST_PHRASES: Final = 100
"""In one document."""
_WEIGHT = 0.9  # what was typed stands before what means the same

_log = structlog.get_logger(__name__)
Stemming = Callable[[Iterable[str]], list[str]]
Phrase = tuple[str, ...]


class Synonyms:
    """All of them, by the stems that they stand for. Never changed."""

    def __init__(self, meant: Mapping[Phrase, Sequence[Phrase]]) -> None:
        self._meant = {phrase: tuple(Way(other, _WEIGHT) for other in others) for phrase, others in meant.items()}
        self._longest = max(map(len, meant), default=0)

    @classmethod
    def of(cls, documents: Mapping[str, Any], stems: Stemming) -> "Synonyms":
        """Those an operator has set; a document that cannot be understood is left out."""
        meant: dict[Phrase, list[Phrase]] = {}
        for name, body in documents.items():
            try:
                for phrase, other in _pairs(body, stems):
                    meant.setdefault(phrase, []).append(other)
            except BadInputError as error:
                _log.warning("synonyms left out", name=name, why=error.line())
        return cls(meant)

    def __bool__(self) -> bool:
        return bool(self._meant)

    def widen(self, slots: Sequence[Slot]) -> list[Slot]:
        """The same question with other ways to fill its slots; the longest phrase that means something counts."""
        widened, at = [], 0
        while at < len(slots):
            length = next((n for n in range(self._longest, 0, -1) if self._ways(slots[at : at + n], n)), 1)
            together = slots[at : at + length]
            widened.append(_joined(together).or_else(self._ways(together, length)))
            at += length
        return widened

    def _ways(self, slots: Sequence[Slot], length: int) -> tuple[Way, ...]:
        phrase = tuple(stem for slot in slots for stem in slot.ways[0].stems)
        return self._meant.get(phrase, ()) if len(slots) == length else ()


NO_SYNONYMS: Final = Synonyms({})


def check(body: Any) -> None:
    """Whether synonyms can be set like this.

    Raises:
        BadInputError: neither ``{"same": [...]}`` nor ``{"from": ..., "to": [...]}``, too many, or not words.
    """
    for _ in _pairs(body, list):
        pass


def _pairs(body: Any, stems: Stemming) -> Iterator[tuple[Phrase, Phrase]]:
    """What stands for what."""
    match body:
        case {"same": list(same), **rest} if not rest and 1 < len(same) <= MOST_PHRASES:
            phrases = [_phrase(text, stems) for text in same]
            yield from ((one, other) for one in phrases for other in phrases if one != other)
        case {"from": from_, "to": list(to), **rest} if not rest and 0 < len(to) <= MOST_PHRASES:
            phrase = _phrase(from_, stems)
            yield from ((phrase, _phrase(text, stems)) for text in to)
        case _:
            raise BadInputError(
                "these are no synonyms",
                advice=f'give {{"same": [2 to {MOST_PHRASES} texts]}} or {{"from": text, "to": [texts]}}',
            )


def _phrase(text: Any, stems: Stemming) -> Phrase:
    found = [word.text for word in words(text)] if isinstance(text, str) else []
    if not 0 < len(found) <= MOST_WORDS:
        raise BadInputError(f"{str(text)[:40]!r} is no text of 1 to {MOST_WORDS} words")
    return tuple(stems(found))


def _joined(slots: Sequence[Slot]) -> Slot:
    if len(slots) == 1:
        return slots[0]
    stems = tuple(stem for slot in slots for stem in slot.ways[0].stems)
    return Slot(" ".join(slot.typed for slot in slots), (Way(stems),))
