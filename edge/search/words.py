"""Text -> the words it is found by; one rule for what stands in a title and for what people type.

Letters lose case and accents (``Café`` is ``cafe``, ``Käse`` both ``kase`` and ``kaese``). What is written together in
one place and apart in another is found either way: ``12v`` and ``12 v``, ``T-Shirt`` and ``tshirt``, ``PowerShot`` and
``power shot``. Scripts without spaces are cut into overlapping pairs of characters, and single ones.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

LONGEST_WORD: Final = 64
"""Characters of a word, at most; what is longer is cut."""
_UNSPACED = (  # Thai, Lao, Burmese, Khmer; Chinese, Japanese, Korean
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    r"\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
)
_MARKS = (  # vowels and accents that are letters of their own: Hebrew, Arabic, Indic scripts, Thai
    r"\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0903\u093a-\u094f\u0980-\u0983\u09bc-\u09cd"
    r"\u0e31\u0e34-\u0e3a\u0e47-\u0e4e"
)
_CHUNK: Final = re.compile(rf"(?:\d+(?:[.,/]\d+)+|[^\W_]|[{_MARKS}]|(?<=[^\W_])[-'\u2019&](?=[^\W_]))+")
_PART: Final = re.compile(
    rf"\d+(?:[.,/]\d+)*|[{_UNSPACED}]+|(?:(?![{_UNSPACED}])[^\W\d_]|[{_MARKS}])+",
)
_CAMEL: Final = re.compile(r"(?<=[a-zà-öø-ÿ])(?=[A-ZÀ-ÖØ-Þ])")
_UNSPACED_RUN: Final = re.compile(rf"[{_UNSPACED}]")
_DIMENSIONS: Final = re.compile(r"\d+(?:[.,/]\d+)*(?:[x\u00d7]\d+(?:[.,/]\d+)*)+", re.IGNORECASE)
_TIMES: Final = re.compile(r"[xX\u00d7]")
_ACCENTS: Final = re.compile("[\u0300-\u036f]")
_PLAIN: Final = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "\u0131": "i"})
_SPELT_OUT: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})
_LONGEST_UNIT = 3  # letters after a number that are its unit: v, kg, gal
_PAIR = 2
_KEPT = 1 << 13  # pieces of text whose words are remembered: few words make up most texts
_FEW_PARTS = 2  # of letters and digits; with more it is an article number, which nobody takes apart


class Word(NamedTuple):
    """One word and the other ways to write it.

    Attributes:
        text: folded.
        others: each a way to write it in one or more words.
    """

    text: str
    others: tuple[tuple[str, ...], ...] = ()


def words(text: str) -> list[Word]:
    """The words of a text, in its order."""
    found = [word for chunk in _CHUNK.findall(_normal(text)) for word in _of_chunk(chunk)]
    for at in range(len(found) - 1):
        if found[at].text[0].isdigit():
            found[at] = _with_unit(found[at], found[at + 1])
    return found


def all_words(found: Sequence[Word]) -> list[str]:
    """Everything that these are found by: themselves, the other ways to write them, single characters of pairs."""
    others = [part for word in found for other in word.others for part in other]
    singles = [one for word in found if len(word.text) == _PAIR and _UNSPACED_RUN.match(word.text) for one in word.text]
    return [*(word.text for word in found), *others, *singles]


def folded(found: Sequence[Word]) -> str:
    """A text as it is compared: in lower case without accents, one space between words."""
    return " ".join(word.text for word in found)


def _normal(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKC", text).replace("\u2044", "/")


@lru_cache(_KEPT)
def _of_chunk(chunk: str) -> tuple[Word, ...]:
    """The words of what is written without a space."""
    if chunk.isascii() and chunk.isalpha() and not _CAMEL.search(chunk):
        return (Word(chunk.lower()[:LONGEST_WORD]),)  # nearly all there is
    if _UNSPACED_RUN.search(chunk):
        return tuple(word for part in _PART.findall(chunk) for word in _of_script(part))
    if _DIMENSIONS.fullmatch(chunk):
        numbers = tuple(_number(part) for part in _TIMES.split(chunk))
        return (Word("x".join(numbers), (numbers,)),)
    pieces = [piece.replace("'", "").replace("\u2019", "") for piece in re.split("[-&]", chunk)]
    ways = {tuple(map(_folded, pieces)), tuple(_folded(part) for piece in pieces for part in _parts(piece))}
    whole = _folded("".join(pieces))
    others = tuple(sorted(ways - {(whole,)}, key=len))
    return (Word(whole, others),) if others else (_spelling("".join(pieces)),)


def _parts(piece: str) -> list[str]:
    """Where letters and digits, or two words in one, meet."""
    parts = [part for run in _PART.findall(piece) for part in _CAMEL.split(run)]
    is_number = len(parts) > _FEW_PARTS and any(part[0].isdigit() for part in parts)
    return [piece] if is_number or not parts else parts


def _of_script(part: str) -> Iterator[Word]:
    """Overlapping pairs of what is written without spaces between words."""
    if not _UNSPACED_RUN.match(part):
        yield _spelling(part)
    elif len(part) == 1:
        yield Word(part)
    for at in range(len(part) - 1 if _UNSPACED_RUN.match(part) else 0):
        yield Word(part[at : at + _PAIR])


def _spelling(part: str) -> Word:
    """A word and, where it has umlauts, the same with them spelt out."""
    plain, lower = _folded(part), part.casefold()
    spelt = _folded(lower.translate(_SPELT_OUT))
    return Word(plain) if part.isascii() or spelt == plain else Word(plain, ((spelt,),))


def _folded(part: str) -> str:
    if part.isascii():
        return _number(part.lower())
    bare = _ACCENTS.sub("", unicodedata.normalize("NFD", part.casefold()))
    return unicodedata.normalize("NFC", bare).translate(_PLAIN)[:LONGEST_WORD]


def _number(part: str) -> str:
    return part.replace(",", ".")[:LONGEST_WORD]


def _with_unit(word: Word, after: Word) -> Word:
    """``12`` before ``v`` is ``12v``, too."""
    unit = len(after.text) <= _LONGEST_UNIT and after.text.isalpha() and after.text.isascii()
    return Word(word.text, ((word.text + after.text,),)) if unit and not word.others else word


def pieces(text: str) -> Iterator[tuple[int, int, tuple[Word, ...]]]:
    """Where each piece of a text begins and ends, and its words; pairs of unspaced characters one by one."""
    for match in _CHUNK.finditer(text):
        chunk, start = match.group(), match.start()
        if _UNSPACED_RUN.search(chunk):
            for at in range(len(chunk)):
                for width in (_PAIR, 1):
                    yield start + at, start + min(at + width, len(chunk)), (Word(_normal(chunk[at : at + width])),)
        else:
            yield start, match.end(), tuple(words(chunk))
