"""Corrections are near, common, and only where a word is long enough to be recognised."""

from hypothesis import given
from hypothesis import strategies as st

from edge.search.vocabulary import Vocabulary, edits_allowed

KNOWN = Vocabulary(
    [("shower", 9), ("flower", 20), ("head", 4), ("heads", 1), ("dishwasher", 3), ("power", 5), ("12v", 3)]
)


def near(word, vocabulary=KNOWN, most=5):
    return [one.word for one in vocabulary.near(word, most=most)]


def test_a_letter_wrong_missing_too_many_or_swapped():
    assert near("shawer") == near("shwer") == near("showwer") == near("shwoer") == ["shower"]


def test_two_letters_of_a_long_word_and_none_of_a_short_one():
    assert near("dishwsahr") == ["dishwasher"]
    assert near("hed") == []
    assert near("heda") == ["head"]
    assert near("sohwre") == [], "six letters may hold one mistake"


def test_a_first_letter_is_seldom_wrong():
    assert near("hlower") == ["flower"]
    assert near("slower") == ["shower", "flower"], "though flowers are more common"


def test_numbers_are_not_corrected():
    assert near("13v") == near("12v") == []
    assert "12v" not in KNOWN


def test_words_that_were_run_together():
    assert KNOWN.split("showerhead") == ("shower", "head")
    assert KNOWN.split("powerflower") == ("power", "flower")
    assert KNOWN.split("showerrod") is None
    assert Vocabulary(()).split("showerhead") is None
    assert near("shower", Vocabulary(())) == []


def osa(one, other):
    """Optimal string alignment as the textbook has it."""
    table = {(i, 0): i for i in range(len(one) + 1)} | {(0, j): j for j in range(len(other) + 1)}
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            wrong = table[i - 1, j - 1] + (one[i - 1] != other[j - 1])
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, wrong)
            if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
                table[i, j] = min(table[i, j], table[i - 2, j - 2] + 1)
    return table[len(one), len(other)]


letters = st.text(st.sampled_from("abcä茶"), min_size=1, max_size=12)


@given(letters, st.sets(letters, max_size=30))
def test_nearness_is_that_of_the_textbook(typed, others):
    found = Vocabulary([(word, 1) for word in sorted(others)]).near(typed, most=100)
    allowed = edits_allowed(typed)
    assert {(one.word, one.distance) for one in found} == {
        (word, osa(typed, word)) for word in others if 0 < osa(typed, word) <= allowed
    }
