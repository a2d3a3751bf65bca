import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import rec_id
from protocol.errors import BadInputError


@given(st.integers(0, 2**32 - 1), st.binary(min_size=32, max_size=32), st.binary(min_size=8, max_size=8))
def test_an_answer_names_its_release(version, digest, drawn):
    made = rec_id.make(version=version, sha256=digest.hex(), drawn=drawn)
    assert len(made) == 22
    assert rec_id.parse(made) == rec_id.RecId(version=version, sha256_prefix=digest[:4].hex())


def test_before_the_first_release_it_names_none():
    assert rec_id.parse(rec_id.make(version=0, sha256="", drawn=bytes(8))).version == 0


@given(st.text(max_size=30).filter(lambda text: len(text) != 22))
def test_texts_of_another_length_are_refused_in_words(text):
    with pytest.raises(BadInputError, match="is not a rec_id"):
        rec_id.parse(text)


@pytest.mark.parametrize("text", ["", "abc", "A" * 21, "A" * 21 + "B", "A" * 22 + "==", "Ä" * 22, "A" * 21 + "/"])
def test_what_no_edge_has_made_is_refused(text):
    with pytest.raises(BadInputError):
        rec_id.parse(text)


@pytest.mark.parametrize(("version", "drawn"), [(-1, bytes(8)), (2**32, bytes(8)), (1, bytes(7))])
def test_it_is_made_of_the_right_parts(version, drawn):
    with pytest.raises(ValueError, match="rec_id"):
        rec_id.make(version=version, sha256="ab" * 32, drawn=drawn)
