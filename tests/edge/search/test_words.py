"""What is written in another way is the same word, and no text is too strange to have words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.search.words import LONGEST_WORD, all_words, folded, pieces, words


def found(text):
    return set(all_words(words(text)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CAFÉ", "cafe"),
        ("Straße", "STRASSE"),
        ("Smørrebrød", "smorrebrod"),
        ("Łódź", "lodz"),
        ("\uff54\uff45\uff41", "tea"),
        ("ﬁsh", "fish"),
        ("İstanbul", "istanbul"),
        ("men's", "mens"),
        ("½", "1/2"),
        ("1,5", "1.5"),
        ("é", "é"),
        ("ﾃｨｰ", "ティー"),
    ],
)
def test_these_are_one_word(one, other):
    assert folded(words(one)) == folded(words(other))


@pytest.mark.parametrize(
    ("title", "typed"),
    [
        ("Käse", "kaese"),
        ("Käse", "kase"),
        ("Kaese", "käse"),
        ("Blåbær", "blaabaer"),
        ("12 V", "12v"),
        ("12v", "12 v"),
        ("12V-Drill", "12v"),
        ("T-Shirt", "tshirt"),
        ("tshirt", "t-shirt"),
        ("PowerShot", "power shot"),
        ("PowerShot", "powershot"),
        ("2x4", "2 x 4"),
        ("2 \u00d7 4 \u00d7 8", "4"),
        ("绿茶", "茶"),
        ("日本の緑茶", "緑茶"),
        ("LED灯泡", "灯泡"),
        ("LED灯泡", "led"),
        ("한국어책", "국어"),
        ("SC-141", "sc141"),
        ("B&Q", "bq"),
    ],
)
def test_a_title_is_found_by_what_is_typed(title, typed):
    """Some way to write every word that is typed stands in the title; a lone x between numbers is no word."""
    there = found(title)
    ways = [{(word.text,), *word.others} for word in words(typed) if word.text != "x"]
    assert all(any(set(way) <= there for way in each) for each in ways)


def test_an_article_number_is_not_taken_apart():
    assert found("DCD771C2") == {"dcd771c2"}


def test_numbers_keep_their_fractions():
    assert found("5/8 inch") == {"5/8", "inch"}
    assert found("3.5 kg") == {"3.5", "kg", "3.5kg"}


@given(st.text(max_size=60))
def test_every_text_has_words_without_case_spaces_or_excess(text):
    for word in words(text):
        for each in (word.text, *(part for other in word.others for part in other)):
            assert each
            assert len(each) <= LONGEST_WORD
            assert not any(letter.isspace() for letter in each)
            assert each == each.casefold() or not each.isascii()


@given(st.text(max_size=60))
def test_folding_again_changes_nothing_of_latin_text(text):
    plain = folded(words("".join(letter for letter in text if letter.isascii())))
    assert folded(words(plain)) == plain


@given(st.text(max_size=60))
def test_pieces_lie_in_the_text(text):
    for start, end, found_words in pieces(text):
        assert 0 <= start < end <= len(text)
        assert isinstance(found_words, tuple)
