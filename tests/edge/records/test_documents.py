"""What an operator set is found again, and a document that cannot be kept is refused before it does harm."""

import pytest

from edge.records import documents
from edge.records.store import Store
from protocol.errors import BadInputError


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store.db") as opened:
        yield opened


def test_what_was_set_is_there_after_a_restart(store, tmp_path):
    store.put_document("scenario", "home", {"limit": 5})
    store.put_document("scenario", "home", {"limit": 6, "name": "Tür"})
    store.put_document("promotion", "home", {"until": None})
    with Store.open(tmp_path / "store.db") as other:
        assert other.documents("scenario") == {"home": {"limit": 6, "name": "Tür"}}
        assert other.documents("experiment") == {}


def test_every_change_moves_the_mark_and_nothing_else_does(store):
    marks = [store.documents_mark()]
    store.put_document("scenario", "home", {})
    marks.append(store.documents_mark())
    assert store.drop_document("scenario", "home")
    marks.append(store.documents_mark())
    assert marks == sorted(set(marks))
    assert not store.drop_document("scenario", "home")
    assert store.documents_mark() == marks[-1]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("", {}),
        ("a\nb", {}),
        ("x" * 300, {}),
        ("big", "x" * documents.LONGEST_DOCUMENT),
        ("nan", float("nan")),
        ("odd", {1, 2}),
        ("surrogate", "\ud800"),
    ],
)
def test_a_document_that_cannot_be_kept_is_refused(store, name, body):
    before = store.documents_mark()
    with pytest.raises(BadInputError):
        store.put_document("scenario", name, body)
    assert (store.documents("scenario"), store.documents_mark()) == ({}, before)


def test_there_is_an_end_to_documents(store, monkeypatch):
    monkeypatch.setattr(documents, "MOST_DOCUMENTS", 3)
    for name in "abc":
        store.put_document("scenario", name, {})
    store.put_document("scenario", "a", {"again": True})
    with pytest.raises(BadInputError, match="3 of kind scenario already"):
        store.put_document("scenario", "d", {})
    assert list(store.documents("scenario")) == ["a", "b", "c"]
