"""Long work beside the event loop lets go of the interpreter, and gives back what it switched off."""

import gc
import threading
import time

import pytest

from edge.breaths import in_breaths, without_collections


def test_rows_come_in_order_and_whole():
    assert list(in_breaths(range(1000))) == list(range(1000))
    assert list(in_breaths([])) == []


def test_others_get_their_turn_while_rows_are_read(monkeypatch):
    """A sleeping thread holds nothing: whoever waits for the interpreter gets it there."""
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    beside = threading.Thread(target=lambda: list(in_breaths(range(1024))))
    beside.start()
    beside.join()
    assert len(pauses) == 4
    assert all(0 < pause <= 0.01 for pause in pauses)


def test_a_start_that_keeps_nobody_waiting_does_not_pause(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("slept"))
    assert len(list(in_breaths(range(1024)))) == 1024


def test_collections_come_back_whatever_happens():
    with without_collections():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), without_collections():
        raise KeyError("x")
    assert gc.isenabled()
