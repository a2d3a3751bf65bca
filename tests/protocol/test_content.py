import numpy as np

from protocol.content import BUCKETS, MOST_TOKENS, buckets_of, token_table


def test_buckets_are_the_same_on_every_machine_and_in_every_process():
    # Python's own hash differs between processes; two edges would train different words under one number.
    assert buckets_of(("Milk", "", "")) == [2196]  # b2sum -l 64
    assert buckets_of(("", "Milk", "")) != buckets_of(("Milk", "", ""))


def test_spelling_that_means_nothing_changes_nothing():
    assert buckets_of(("WHOLE milk, 1 L", "", "")) == buckets_of(("whole   Milk 1-l", "", ""))


def test_words_of_every_script_are_words():
    assert len(buckets_of(("молоко 牛奶 Käse", "", ""))) == 3


def test_a_novel_for_a_title_is_cut():
    assert len(buckets_of((" ".join(f"word{number}" for number in range(500)), "", ""))) == MOST_TOKENS


def test_a_bucket_is_told_from_padding():
    table = token_table([("milk", "acme", "dairy"), ("", "", "")])
    assert table.shape == (3, MOST_TOKENS)
    assert table.dtype == np.int32
    assert not table[0].any()
    assert np.count_nonzero(table[1]) == 3
    assert not table[2].any()
    assert table.max() <= BUCKETS
