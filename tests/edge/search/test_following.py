"""The index follows the shop, and nothing that happens to its folder loses more than a little time."""

import os
import signal
import subprocess
import sys
import time

import pytest

from edge.records.events import Item
from edge.records.store import Store
from edge.search.answers import Ask, Gap
from edge.search.documents import Stems
from edge.search.following import Follower
from edge.search.versions import Versions


def found(search, text):
    return [hit.item for hit in search.search(Ask(text=text)).items]


def follow(search):
    search._service.follow_items()
    search.follower.step()


def test_what_is_listed_changed_or_taken_off_is_searched_at_once(searched):
    store = searched._service.store
    store.put_items([Item(item="t1", title="Rooibos", category="tea"), Item(item="t9", title="White tea")])
    follow(searched)
    assert found(searched, "rooibos") == ["t1"]
    assert found(searched, "white") == ["t9"]
    assert "t1" not in found(searched, "green")
    store.remove_items(["t9"])
    follow(searched)
    assert found(searched, "white") == []


def test_a_started_search_follows_by_itself(teas, serve, open_search):
    search = open_search(serve(teas), ready=False)
    search.start()
    wait_until(lambda: search.follower.view is not None and search.follower.view.whole)
    teas.put_items([Item(item="t9", title="White tea")])
    search._service.follow_items()
    wait_until(lambda: found(search, "white") == ["t9"])


def wait_until(holds, *, seconds=30):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_the_index_is_there_again_after_a_restart(searched, open_search):
    service = searched._service
    reader = searched.follower.view.reader
    searched.close()
    service.store.put_items([Item(item="t9", title="White tea")])
    service.follow_items()
    again = open_search(service, ready=False)
    again.follower._open()
    assert again.follower.view.whole
    assert again.follower.view.reader.items == reader.items == 6, "opened, not built"
    follow(again)
    assert found(again, "white") == ["t9"]


@pytest.mark.parametrize("damage", ["pointer", "meta", "segments", "folder", "rubbish", "format"])
def test_a_damaged_index_is_built_anew(searched, open_search, tmp_path, damage):
    service = searched._service
    searched.close()
    folder = tmp_path / "search"
    (number,) = [path for path in folder.iterdir() if path.is_dir()]
    match damage:
        case "pointer":
            (folder / "current.json").write_bytes(b"{")
        case "format":
            pointer = folder / "current.json"
            pointer.write_bytes(pointer.read_bytes().replace(b'"format":', b'"format":9'))
        case "meta":
            (number / "meta.json").write_text("{}")
        case "segments":
            for path in number.glob("*.term"):
                path.write_bytes(path.read_bytes()[:-10])
        case "folder":
            for path in number.iterdir():
                path.unlink()
        case "rubbish":
            for path in number.iterdir():
                path.write_bytes(b"\0" * 100)
    again = open_search(service)
    assert found(again, "kettle") == ["t3"]
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1


def test_an_index_that_breaks_while_it_is_served_is_built_anew(searched):
    view = searched.follower.view

    class Broken:
        def __getattr__(self, _):
            raise ValueError("An IO error occurred: 'input/output error'")

    searched.follower.view = type(view)(
        reader=type(view.reader)(Broken(), view.reader.stems, view.reader.vocabulary), source=view.source, whole=True
    )
    searched._clock.now += 60
    answer = searched.search(Ask(text="kettle"))
    assert (answer.items, answer.gaps) == ([], (Gap.INDEX_MISSING,))
    searched.follower.step()
    assert found(searched, "kettle") == ["t3"]


def test_another_language_is_another_index_and_the_old_one_serves_meanwhile(searched, open_search):
    service = searched._service
    searched.close()
    again = open_search(service, language="none", ready=False)
    again.follower._open()
    assert found(again, "kettles") == ["t3"], "the old index cuts off endings"
    again.follower.step()
    assert again.follower.view.source.language == "none"
    assert found(again, "cup") == ["t4"], "the last word may be the beginning of another"
    assert found(again, "cup tea")[0] != "t4"


def test_a_rebuild_on_demand_serves_all_the_while(searched):
    before = searched.follower.view
    searched.follower.rebuild()
    assert searched.follower.building
    assert found(searched, "kettle") == ["t3"]
    searched.follower.step()
    assert searched.follower.view is not before
    assert not searched.follower.building
    assert found(searched, "kettle") == ["t3"]


def test_the_first_build_can_be_searched_before_it_is_whole(teas, serve, open_search, monkeypatch):
    monkeypatch.setattr("edge.search.following._FIRST_ENTRIES", 2)
    search = open_search(serve(teas), ready=False)
    seen = []
    whole = type(search.follower)._until_ended

    def watching(self, entries):
        for number, entry in enumerate(whole(self, entries)):
            if number == 4:
                seen.append(search.search(Ask(text="green tea")))
            yield entry

    monkeypatch.setattr(type(search.follower), "_until_ended", watching)
    search.follower.step()
    assert seen[0].gaps == (Gap.INDEX_PARTIAL,)
    assert seen[0].items[0].item == "t1"
    assert search.search(Ask(text="green tea")).gaps == ()


_BUILD = """
import sys, time
from pathlib import Path
from edge.records.store import Store
from edge.search.following import Follower
with Store.open(Path(sys.argv[1]) / "store.db") as store:
    folder = Path(sys.argv[1]) / "search"
    follower = Follower(folder, store, language="english", catalogue=lambda: None, clock=time.monotonic)
    print("begin", flush=True)
    while True:
        follower.step()
        follower.rebuild()
"""


@pytest.mark.parametrize("wait", [0.0, 0.05, 0.15, 0.3, 0.6])
def test_killed_anywhere_the_next_start_has_an_index(tmp_path, wait):
    with Store.open(tmp_path / "store.db") as store:
        store.put_items(Item(item=f"i{n}", title=f"thing number {n}") for n in range(2_000))
        with subprocess.Popen([sys.executable, "-c", _BUILD, str(tmp_path)], stdout=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"begin\n"
            time.sleep(wait)  # not waiting for anything: the moment of death is the point
            os.kill(child.pid, signal.SIGKILL)
        follower = Follower(
            tmp_path / "search", store, language="english", catalogue=lambda: None, clock=time.monotonic
        )
        follower.step()
        assert follower.view.whole
        assert follower.view.reader.items == 2_000
        folders = [path for path in (tmp_path / "search").iterdir() if path.is_dir()]
        assert len(folders) == 1


def test_killed_between_commit_and_mark_nothing_is_there_twice(searched, open_search, monkeypatch):
    service = searched._service

    def die(*_):
        raise KeyboardInterrupt

    service.store.put_items([Item(item="t1", title="Rooibos"), Item(item="t9", title="White tea")])
    monkeypatch.setattr("edge.search.following.write_mark", die)
    with pytest.raises(KeyboardInterrupt):
        follow(searched)
    monkeypatch.undo()
    searched.close()
    again = open_search(service)
    assert again.follower.view.reader.items == 7
    assert found(again, "white") == ["t9"]


def test_versions_keep_what_is_in_force_only(tmp_path):
    from edge.search.versions import Source

    versions = Versions(tmp_path)
    source = Source(language="none", catalogue="", listed=True)
    first, second = versions.begin(source), versions.begin(source)
    versions.promote(second, source)
    assert not first.directory.exists() or first.directory == second.directory
    opened, told = versions.current()
    assert (opened.directory, told) == (second.directory, source)
    versions.drop()
    assert versions.current() is None


def test_stems_are_one_for_each_word():
    for language in ("none", "english", "german", "tamil"):
        assert len(Stems(language)(["shelves", "12v", "绿茶", "käse", "x" * 64])) == 5
