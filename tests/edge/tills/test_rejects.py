import json
import os

import pytest

from edge.erasing import erase_at_rest
from edge.records.store import Store
from edge.settings import EdgeSettings
from edge.tills.messages import Refused
from edge.tills.rejects import FILE_NAME, LONGEST, Rejects
from protocol.errors import NoSpaceError

NOW = 1_795_000_000_000


@pytest.fixture
def rejects(tmp_path):
    return Rejects(tmp_path / "tills-rejects.jsonl")


def keep(rejects, *said, why="no event"):
    rejects.keep([Refused(said=one, why=why) for one in said], topic="shop/events", now_ms=NOW)


def said(path):
    return [json.loads(line)["said"] for line in path.read_bytes().splitlines()] if path.exists() else []


def test_a_person_finds_what_was_said_when_and_why(rejects):
    keep(rejects, '{"type": "bought"}', why="type: Input should be 'view'")
    assert json.loads(rejects.path.read_text()) == {
        "time": "2026-11-18T11:06:40+00:00",
        "topic": "shop/events",
        "why": "type: Input should be 'view'",
        "said": '{"type": "bought"}',
    }
    assert rejects.path.stat().st_mode & 0o777 == 0o600


def test_whatever_was_said_is_one_line_of_the_file(rejects):
    strange = ["two\nlines", "\u2028", "\\xff", "nul\x00", "\ud800"]
    keep(rejects, *strange)
    assert said(rejects.path) == strange


def test_the_file_does_not_grow_for_ever(tmp_path):
    rejects = Rejects(tmp_path / "r.jsonl", most_bytes=10_000)
    for number in range(1_000):
        keep(rejects, f"message {number}")
    older = tmp_path / "r-older.jsonl"
    assert 0 < rejects.path.stat().st_size <= 10_000
    assert older.stat().st_size <= 10_000
    newest = [*said(older), *said(rejects.path)]
    assert newest == [f"message {number}" for number in range(1_000 - len(newest), 1_000)]


def test_of_a_giant_the_beginning_is_kept_and_its_length(rejects):
    keep(rejects, "x" * (LONGEST + 5))
    entry = json.loads(rejects.path.read_text())
    assert len(entry["said"]) == LONGEST
    assert entry["cut"] == LONGEST + 5


def test_who_is_erased_is_erased_here_too(rejects):
    others = ['{"user": "evan", "item": "eva"}'.replace('"eva"', '"pie"'), "17", '{"user": null, "session": "s2"}']
    hers = ['{"user": "eva", "item": 1}', '[{"session": "s1"}]', "{ damaged eva", '{"user": 4711}']
    keep(rejects, *others, *hers)
    rejects.forget(["eva", "s1", "4711"])
    assert said(rejects.path) == others
    assert rejects.path.stat().st_mode & 0o777 == 0o600


def test_both_halves_forget(tmp_path):
    rejects = Rejects(tmp_path / "r.jsonl", most_bytes=300)
    for user in ("eva", "ben", "eva", "cora"):
        keep(rejects, json.dumps({"user": user}))
    rejects.forget(["eva"])
    assert b"eva" not in rejects.path.read_bytes() + (tmp_path / "r-older.jsonl").read_bytes()


def test_erasing_somebody_while_the_edge_rests_reaches_the_rejects(tmp_path):
    Store.open(tmp_path / "store.db").close()
    rejects = Rejects(tmp_path / FILE_NAME)
    keep(rejects, '{"user": "eva"}', '{"user": "ben"}')
    settings = EdgeSettings.parse('[site]\nname = "luebeck"', source="a test")
    assert not erase_at_rest(tmp_path, settings, user="eva", session=None).known  # known here and nowhere else
    assert said(rejects.path) == ['{"user": "ben"}']


def test_forgetting_where_there_is_no_file_makes_none(rejects):
    rejects.forget(["eva"])
    assert not rejects.path.exists()


def test_a_line_that_a_crash_has_cut_stays_a_line_of_its_own(rejects):
    keep(rejects, "one")
    os.truncate(rejects.path, rejects.path.stat().st_size - 8)
    keep(rejects, "two")
    assert json.loads(rejects.path.read_bytes().splitlines()[1])["said"] == "two"


def test_a_disk_that_takes_nothing_is_said(tmp_path):
    rejects = Rejects(tmp_path / "no-folder" / "r.jsonl")
    with pytest.raises(NoSpaceError, match="cannot be written"):
        keep(rejects, "one")
