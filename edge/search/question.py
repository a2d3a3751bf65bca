"""What was typed -> slots to be filled; and what may have been meant, where nothing fills them."""

from collections.abc import Iterable, Sequence
from typing import Final

from edge.search.index import Reader
from edge.search.slots import Slot, Way
from edge.search.synonyms import NO_SYNONYMS, Synonyms
from edge.search.words import words

MOST_WORDS: Final = 16
"""Words of a question that are looked at."""
_OTHER_SPELLING = 0.7  # what is written together, or apart, counts so much
_COMPLETED = 0.6  # what begins with what was typed
_CORRECTED = {1: 0.5, 2: 0.25}  # by letters that were wrong
_MOST_COMPLETIONS = 32
_MOST_CORRECTIONS = 4
_RARE = 3  # a word that so few items hold may be a mistake of theirs


def slots_of(text: str, reader: Reader, synonyms: Synonyms = NO_SYNONYMS) -> list[Slot]:
    """What was typed, in its order, each word once."""
    typed = list(dict.fromkeys(words(text)[:MOST_WORDS]))
    stems = reader.stems([word.text for word in typed])
    slots = [
        Slot(word.text, (Way((stem,)), *(Way(tuple(reader.stems(other)), _OTHER_SPELLING) for other in word.others)))
        if word.others
        else Slot(word.text, (Way((stem,)),))
        for word, stem in zip(typed, stems, strict=True)
    ]
    return synonyms.widen(slots) if synonyms else slots


def completed(slots: Sequence[Slot], reader: Reader) -> list[Slot]:
    """The last word may be the beginning of another."""
    last = slots[-1]
    if not last.typed or " " in last.typed:
        return list(slots)
    longer = reader.searcher.terms_with_prefix("word", last.typed, limit=_MOST_COMPLETIONS)
    return [*slots[:-1], last.or_else(_ways(reader, (word for word, _ in longer), _COMPLETED))]


def corrected(slots: Sequence[Slot], reader: Reader) -> tuple[list[Slot], str | None]:
    """Words that nobody here uses may be wrong, run together, or torn apart; other words, too, if they are rare.

    Returns:
        slots that more may fill, and the question as it was probably meant; None: every word of it is known.
    """
    mended = [_mended(slot, reader) for slot in slots]
    meant = [text for _, text in mended]
    joined = _rejoined([slot for slot, _ in mended], reader)
    changed = any(text != slot.typed for slot, text in zip(slots, meant, strict=True))
    return joined, " ".join(meant) if changed else None


def _mended(slot: Slot, reader: Reader) -> tuple[Slot, str]:
    vocabulary, typed = reader.vocabulary, slot.typed
    here = vocabulary.count(typed)
    if here > _RARE or not typed.isalpha():
        return slot, typed
    near = vocabulary.near(typed, most=_MOST_CORRECTIONS)
    ways = [Way(tuple(reader.stems([one.word])), _CORRECTED[one.distance]) for one in near]
    halves = None if here else vocabulary.split(typed)
    if halves is not None:
        ways.append(Way(tuple(reader.stems(halves)), _OTHER_SPELLING))
    if here or not ways:
        return slot.or_else(ways), typed
    return slot.or_else(ways), near[0].word if near else " ".join(halves or ())


def _rejoined(slots: Sequence[Slot], reader: Reader) -> list[Slot]:
    """``sun flower`` is ``sunflower`` where that is a word."""
    found: list[Slot] = []
    for slot in slots:
        before = found[-1] if found else None
        if before is not None and before.typed + slot.typed in reader.vocabulary:
            whole = Way(tuple(reader.stems([before.typed + slot.typed])), _OTHER_SPELLING)
            apart = Way((*before.ways[0].stems, *slot.ways[0].stems))
            found[-1] = Slot(f"{before.typed} {slot.typed}", (apart, whole))
        else:
            found.append(slot)
    return found


def _ways(reader: Reader, longer: Iterable[str], weight: float) -> list[Way]:
    return [Way((stem,), weight) for stem in dict.fromkeys(reader.stems(longer))]
