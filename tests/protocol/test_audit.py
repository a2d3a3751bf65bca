from dataclasses import replace

import pytest

from protocol.audit import GENESIS, Entry, check_chain
from protocol.errors import MalformedMessageError, UntrustedError


def chain(length):
    entries = []
    for number in range(length):
        last = entries[-1] if entries else None
        entries.append(Entry.after(last, time_ms=number, kind="release signed", facts={"version": number}))
    return entries


def test_an_untouched_log_holds_together():
    entries = chain(5)
    assert check_chain(entries) == entries[-1].digest
    assert check_chain(entries, head=entries[2].digest) == entries[-1].digest
    assert check_chain([]) == GENESIS


@pytest.mark.parametrize("place", range(4))
def test_a_changed_entry_is_found(place):
    entries = chain(5)
    entries[place] = replace(entries[place], facts={"version": 99})
    with pytest.raises(UntrustedError, match=f"entry {place + 2} "):
        check_chain(entries)


def test_a_removed_entry_is_found():
    entries = chain(5)
    del entries[2]
    with pytest.raises(UntrustedError, match="entry 3 "):
        check_chain(entries)


def test_a_log_that_was_cut_short_is_found_by_a_digest_noted_elsewhere():
    entries = chain(5)
    with pytest.raises(UntrustedError, match="noted elsewhere"):
        check_chain(entries[:3], head=entries[4].digest)


def test_a_log_written_anew_is_found_by_a_digest_noted_elsewhere():
    noted = chain(3)[-1].digest
    other = [Entry.after(None, time_ms=0, kind="founded", facts={})]
    with pytest.raises(UntrustedError, match="noted elsewhere"):
        check_chain(other, head=noted)


def test_an_entry_survives_the_disk():
    entry = chain(2)[1]
    assert Entry.from_bytes(entry.to_bytes()) == entry


@pytest.mark.parametrize("data", [b"", b"{}", b'{"seq":1}', chain(1)[0].to_bytes().replace(b"{", b'{"also":1,', 1)])
def test_what_is_no_entry_is_refused(data):
    with pytest.raises(MalformedMessageError):
        Entry.from_bytes(data)
