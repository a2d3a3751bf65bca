"""What an item is called today, not what it was called yesterday."""

from edge.records.events import Item
from edge.serving.labels import Labels
from edge.serving.shelf import Shelf


def test_a_new_title_is_told_at_once(stocked, catalogue):
    shelf, labels = Shelf.of(stocked, catalogue), Labels()
    pie = shelf.place("own-pie")
    assert labels.of(shelf, [pie, 3]) == [(pie, "own-pie", "Our own pie"), (3, "i3", "Item i3")]
    stocked.put_items([Item(item="own-pie", title="Grandma's pie")])
    shelf.follow()
    assert labels.of(shelf, [pie]) == [(pie, "own-pie", "Grandma's pie")]


def test_another_numbering_has_other_names(stocked, catalogue):
    labels = Labels()
    assert labels.of(Shelf.of(stocked, catalogue), [1]) == [(1, "i1", "Item i1")]
    assert labels.of(Shelf.of(stocked, None), [2]) == [(2, "i2", "Item i2")]
    assert labels.of(Shelf.of(stocked, None), [13]) == [(13, "own-pie", "Our own pie")]


def test_a_catalogue_of_a_million_items_does_not_fill_the_memory(stocked, catalogue, monkeypatch):
    monkeypatch.setattr("edge.serving.labels._KEPT", 3)
    shelf, labels = Shelf.of(stocked, catalogue), Labels()
    for place in [*range(1, 13), *range(1, 13)]:
        assert labels.of(shelf, [place])[0][1] == f"i{place}"
        assert len(labels._kept) <= 4
