import threading

import pytest

from edge.releases.content_keys import ContentKeys
from protocol.errors import RollbackError
from protocol.sealing import ContentKey


def key(number, fill=None):
    return ContentKey(number=number, secret=bytes([fill or number]) * 32)


def test_the_newest_counts_and_earlier_ones_are_kept():
    keys = ContentKeys()
    assert (keys.newest, keys.number) == (None, 0)
    keys.add(key(1))
    keys.add(key(2))
    assert keys.newest == key(2)
    assert keys.of(key(1).key_id + b"message", seconds=0) == key(1)
    assert keys.of(key(2).key_id + b"message", seconds=0) == key(2)


def test_the_same_key_again_is_harmless():
    keys = ContentKeys()
    keys.add(key(1))
    keys.add(key(1))
    assert keys.number == 1


@pytest.mark.parametrize("other", [key(1), key(2, fill=9)])
def test_an_older_key_or_another_of_the_same_number_is_refused(other):
    keys = ContentKeys()
    keys.add(key(2))
    with pytest.raises(RollbackError, match="does not come after content key 2"):
        keys.add(other)
    assert keys.newest == key(2)


def test_a_key_that_comes_late_is_waited_for():
    keys = ContentKeys()
    late = threading.Timer(0.05, lambda: keys.add(key(3)))
    late.start()
    assert keys.of(key(3).key_id, seconds=5) == key(3)
    late.join()


def test_a_key_that_never_comes_is_none():
    keys = ContentKeys()
    assert keys.of(b"whatever", seconds=0.01) is None
    assert keys.wait_for_any(seconds=0.01) is None
