"""Books that follow the events: each is counted once, whoever dies when, and what is erased was never there."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from edge.neighbours.books import ASIDE, Books
from edge.neighbours.following import Follower, forget, make_anew
from edge.neighbours.sums import HalfLives
from edge.records import changes
from edge.records.store import Store

TOLERANCE = 2e-3  # what is fainter than 1e-3 is dropped, on either side


@pytest.fixture
def counted_anew(tmp_path, standing, follow):
    """The books of a shop that has seen these events and no others."""

    def count(events):
        with Store.open(tmp_path / "anew.db") as fresh:
            fresh.add_events(events)
            follow(into=fresh)
            return standing(fresh)

    return count


def erase(store, half_lives, user, *, now=lambda: None):
    """What `Store.erase` does, as far as the books are concerned."""
    with store.writing() as db:
        (key,) = db.execute("SELECT id FROM users WHERE name = ?", (user,)).fetchone()
        gone = [event for event in changes.events_after(db, 0, 10**6) if event.user == key]
        forget(db, gone, half_lives=half_lives)
        db.execute("DELETE FROM events WHERE user = ?", (key,))
        now()
    return gone


def test_events_that_come_one_by_one_make_the_same_books_as_all_at_once(
    store, diary, rng, follow, standing, counted_anew
):
    events = diary.visits(rng, number=150)
    for start in range(0, len(events), 7):
        store.add_events(events[start : start + 7])
        follow(most=3)
    assert standing(store).lists
    assert standing(store).differs(counted_anew(events)) < TOLERANCE


def test_an_event_is_counted_once(store, diary, follow, standing):
    store.add_events(diary.basket("ada", ["tea", "milk"]))
    follow()
    before = standing(store)
    follow()
    assert before.lists[("bought", "tea"), "milk"] == pytest.approx(1)
    assert standing(store) == before


def test_killed_in_the_middle_it_counts_no_event_twice_and_loses_none(
    tmp_path, store, diary, rng, follow, standing, half_lives
):
    store.add_events(diary.visits(rng, number=400))
    follow_slowly = textwrap.dedent("""
        import sys
        from pathlib import Path
        from edge.neighbours.books import Books
        from edge.neighbours.following import Follower
        from edge.neighbours.sums import HalfLives
        from edge.records.store import Store
        with Store.open(Path(sys.argv[1])) as store:
            follower = Follower(store, Books(HalfLives(memory_ms=60 * 86_400_000, trend_ms=86_400_000)))
            while follower.step(most=5):
                print("counted", flush=True)
    """)
    for steps in (1, 7, 20):
        process = subprocess.Popen(
            [sys.executable, "-c", follow_slowly, str(tmp_path / "store.db")], stdout=subprocess.PIPE, text=True
        )
        for _ in range(steps):
            assert process.stdout.readline() == "counted\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert Follower(store, Books(half_lives)).behind() > 0
    follow()
    survived = standing(store)
    with Store.open(tmp_path / "calm.db") as calm:
        with store.reading() as db, calm.writing() as other:
            for table in ("users", "items", "events"):
                rows = db.execute(f"SELECT * FROM {table}").fetchall()
                other.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(rows[0]))})", rows)
        follow(into=calm)
        assert survived.differs(standing(calm)) < TOLERANCE


def test_an_erased_user_was_never_there(store, diary, rng, follow, standing, counted_anew, half_lives):
    events = diary.visits(rng, number=150, users=6)
    store.add_events(events)
    follow(most=40)
    erase(store, half_lives, "u3")
    after = standing(store)
    assert after.differs(counted_anew([event for event in events if event.user != "u3"])) < TOLERANCE


def test_a_page_that_only_the_erased_user_saw_is_named_no_more(store, diary, follow, half_lives):
    store.add_events([diary.event("ada", "tea", context={"page": "/for-ada"}), diary.event("bob", "tea")])
    follow()
    erase(store, half_lives, "ada")
    with store.reading() as db:
        assert "page=/for-ada" not in Books(half_lives).names(db)
        assert db.execute("SELECT count(*) FROM neighbour_lists").fetchone() == (2,)  # bob's hour and weekday


def test_erased_before_being_counted_a_user_takes_nothing_out(store, diary, follow, standing, half_lives):
    store.add_events(diary.basket("bob", ["tea", "milk"]))
    follow()
    before = standing(store)
    store.add_events(diary.basket("ada", ["tea", "milk"]))
    erase(store, half_lives, "ada")
    follow()
    assert standing(store) == before


def delete(store, user):
    """Retention has no word with the books."""
    with store.writing() as db:
        db.execute("DELETE FROM events WHERE user = (SELECT id FROM users WHERE name = ?)", (user,))


@pytest.mark.parametrize(
    ("meddle", "left"),
    [
        pytest.param(lambda store, lives: erase(store, lives, "ada"), {"bob"}, id="erased while counted"),
        pytest.param(lambda store, lives: erase(store, lives, "bob"), {"ada"}, id="another erased meanwhile"),
        pytest.param(lambda store, _: delete(store, "ada"), {"bob"}, id="deleted while counted"),
        pytest.param(
            lambda store, lives: Follower(store, Books(lives)).step(), {"ada", "bob"}, id="counted by another process"
        ),
    ],
)
def test_what_happens_between_working_out_and_writing_is_not_written_over(
    store, diary, standing, half_lives, follow, counted_anew, meddle, left
):
    events = [*diary.basket("bob", ["tea", "milk"]), *diary.basket("ada", ["tea", "cake"])]
    store.add_events(events[:2])
    follow()
    store.add_events(events[2:])

    class Slow(Books):
        """Somebody else writes between what is worked out and what is written."""

        def entry(self, db, counted, *, sign, worth):
            made = super().entry(db, counted, sign=sign, worth=worth)
            if not met:
                met.append(True)
                thread = threading.Thread(target=meddle, args=(store, half_lives))
                thread.start()
                thread.join()
            return made

    met = []
    follower = Follower(store, Slow(half_lives))
    while follower.step(most=1):
        pass
    assert met
    assert standing(store).differs(counted_anew([event for event in events if event.user in left])) < TOLERANCE


def test_an_edge_answers_from_the_old_books_while_new_ones_are_made(store, diary, rng, follow, standing, half_lives):
    events = diary.visits(rng, number=100)
    store.add_events(events)
    follow()
    before, seen = standing(store), []
    with store.writing() as db:
        db.execute("UPDATE neighbour_items SET bought = 77")  # the old ones have gone wrong

    def progress(_):
        seen.append(standing(store).sums)

    assert make_anew(store, half_lives, progress=progress) == len(events)
    assert all(value[0] > 1 for value in seen[0].values())
    assert standing(store).differs(before) < TOLERANCE
    assert make_anew(store, half_lives) == len(events)
    with store.reading() as db:
        assert not Books(half_lives, suffix=ASIDE).exist(db)


def test_whoever_is_erased_while_new_books_are_made_is_in_neither(
    store, diary, follow, standing, counted_anew, half_lives
):
    kept = [event for number in range(30) for event in diary.basket(f"u{number}", ["tea", "milk"], minute=number)]
    store.add_events([*diary.basket("ada", ["tea", "cake"], minute=-5), *kept])
    follow()
    with store.writing() as db:
        Books(half_lives, suffix=ASIDE).begin(db)
    aside = Follower(store, Books(half_lives, suffix=ASIDE))
    aside.step(most=10)
    erase(store, half_lives, "ada")
    while aside.step():
        pass
    wanted = counted_anew(kept)
    assert standing(store).differs(wanted) < TOLERANCE
    assert standing(store, ASIDE).differs(wanted) < TOLERANCE


def test_books_of_other_half_lives_are_made_anew(store, diary, follow, standing):
    store.add_events(diary.basket("ada", ["tea", "milk"]))
    with store.writing() as db:
        Books(HalfLives(memory_ms=1_000, trend_ms=1_000)).begin(db)
    follow()
    assert standing(store).lists[("bought", "tea"), "milk"] == pytest.approx(1)


def test_events_without_an_item_are_passed_over(store, diary, follow):
    search = diary.event("ada", None, kind="search")
    store.add_events([search, *diary.basket("ada", ["tea"], kind="impression")])
    follower = follow()
    assert follower.behind() == 0
    assert follower.step() == 0
