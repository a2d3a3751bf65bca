"""Texts come back as they were put, whatever was put in between."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.texts import Index, Labels, Texts, Vocabulary

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.lists(TEXT), st.lists(st.tuples(st.integers(0, 99), TEXT), max_size=30))
def test_every_text_comes_back(first, changes):
    texts, plain = Texts(first), list(first)
    for number, text in changes:
        if number < len(plain):
            texts[number] = plain[number] = text
        else:
            texts.append(text)
            plain.append(text)
    assert list(texts) == plain
    assert [texts[number] for number in range(len(texts))] == plain
    assert texts[1:] == plain[1:]


def test_a_title_that_changes_every_second_does_not_fill_the_memory():
    texts = Texts(["tea", "coffee" * 100])
    for second in range(20_000):
        texts[0] = f"tea at {second:,} s"
    assert list(texts) == ["tea at 19,999 s", "coffee" * 100]
    assert texts.nbytes < 200_000


@pytest.mark.parametrize("number", [-1, 2])
def test_there_is_no_text_beside_them(number):
    with pytest.raises(IndexError):
        Texts(["tea", "coffee"])[number]


def test_new_texts_are_empty_until_they_are_set():
    texts = Texts(["tea"])
    texts.lengthen(3)
    texts[2] = "cocoa"
    assert list(texts) == ["tea", "", "cocoa"]


def test_every_item_is_found_among_many_however_they_came():
    names = [f"item {number}" for number in range(5_000)]
    texts = Texts(["", *names[:2_000]])
    index = Index(texts)
    for name in names[2_000:]:
        texts.append(name)
        index.extend(len(texts) - 1)
    assert index.find_all([*names, "item 5000"]).tolist() == [*range(1, 5_001), 0]
    assert [index.find(name) for name in names] == list(range(1, 5_001))
    assert index.find("item 5000") is None
    assert index.get("nobody", 0) == 0
    assert len(index) == 5_000
    assert sorted(index) == sorted(names)
    assert index.nbytes < 5_000 * 12 + 1_024 * 100


def test_a_name_that_stands_there_twice_is_told():
    assert Index(Texts(["", "tea", "pie", "tea"])).twin() == "tea"
    assert Index(Texts(["", "tea", "pie"])).twin() is None


def test_alike_texts_are_kept_once():
    labels = Labels(["", "tea", "fish", "tea"])
    assert list(labels) == ["", "tea", "fish", "tea"]
    assert labels[1:3] == ["tea", "fish"]
    assert labels.names == ("", "tea", "fish")
    assert labels.codes.tolist() == np.array([0, 1, 2, 1]).tolist()
    assert Labels.of(labels) is labels


def test_an_unknown_category_has_no_code():
    vocabulary = Vocabulary()
    assert [vocabulary.code(text) for text in ("tea", "fish", "tea", "")] == [1, 2, 1, 0]
    assert vocabulary.find(["fish", "cars", ""]) == [2]
