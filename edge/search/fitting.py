"""How much each voice counts in this site's search: fitted on what its own shoppers searched for and then chose.

A search event, and the items that the same person clicked, put into the cart or bought within ten minutes and before
searching again, are one example. Taste is asked with what the person had done before the search. The weights are those
under which the choices are most likely (`edge.serving.fitting`), and they are used only if they order the searches that
were held out better than the votes do.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from secrets import token_bytes
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.records.events import EventType
from edge.records.schema import CODE
from edge.records.store import Past, Store
from edge.search.answers import Ask
from edge.search.following import View
from edge.search.fusing import VOICES, SearchWeights, Slate
from edge.search.picking import pick
from edge.search.synonyms import NO_SYNONYMS
from edge.search.versions import Versions
from edge.search.voices import WINDOW, Voices
from edge.serving.filters import passing
from edge.serving.fitting import LINES, Example, fit, ndcg
from edge.serving.release import Loaded
from edge.serving.service import Service

FEWEST_SEARCHES: Final = 100
"""With fewer examples the voices go on voting."""
_START: Final = {"words": 3.0, "every_word": 1.0, "meaning": 1.0, "taste": 0.5, "sold": 0.2}
_HELD_OUT = 5  # one search in so many judges
_WITHIN_MS = 600_000
_MOST_SEARCHES = 2_000
_NEWEST = 500_000  # events that are looked through
_ROWS = f"""
    SELECT user, type, item, query, time_ms FROM events
    WHERE id > (SELECT coalesce(max(id), 0) - {_NEWEST} FROM events) AND type <= 5 ORDER BY user, time_ms, id"""  # noqa: S608
_SEARCH, _VIEW, _PURCHASE = CODE[EventType.SEARCH], CODE[EventType.VIEW], CODE[EventType.PURCHASE]


def fit_here(directory: Path, store: Store, loaded: Loaded, *, rng: np.random.Generator) -> SearchWeights | None:
    """Fit with the index in a folder, which another process may serve from; None: as for `fit_search`, or no index.

    Raises:
        BadInputError: the store is damaged; UnavailableError: it cannot be read.
    """
    found = Versions(directory).current()
    if found is None:
        return None
    index, source = found
    service = Service(store, loaded, draw=token_bytes, now_ms=lambda: time.time_ns() // 1_000_000)
    voices = Voices(service, clock=time.monotonic)
    try:
        view = View(reader=index.reader, source=source, whole=True)
        return fit_search(store, loaded, view, voices, most=_MOST_SEARCHES, rng=rng)
    finally:
        voices.close()
        service.close()


def fit_search(
    store: Store, loaded: Loaded, view: View, voices: Voices, *, most: int, rng: np.random.Generator
) -> SearchWeights | None:
    """Fit on at most so many searches; None: there are too few, or the votes order them as well.

    Raises:
        BadInputError: the store is damaged; UnavailableError: it cannot be read.
    """
    with store.reading() as db:
        searches = list(_searches(db))
    chosen = sorted(rng.permutation(len(searches))[:most].tolist())
    made = [made for at in chosen if (made := _example(searches[at], loaded, view, voices)) is not None]
    if len(made) < FEWEST_SEARCHES:
        return None
    start = np.array([_START[name] for name in VOICES])
    examples, voted = [example for example, _ in made], [vote for _, vote in made]
    teachers = [example for number, example in enumerate(examples) if number % _HELD_OUT]
    before, after = ndcg(voted[::_HELD_OUT], np.ones(1)), ndcg(examples[::_HELD_OUT], fit(teachers, start))
    if after <= before:
        return None
    weights = fit(examples, start)
    named = {name: round(float(weight), 6) for name, weight in zip(VOICES, weights, strict=True)}
    return SearchWeights(
        weights=named, searches=len(examples), ndcg_before=round(before, 6), ndcg_after=round(after, 6)
    )


_Search = tuple[str, Sequence[tuple[int, int, int]], frozenset[int]]
"""What was typed; what the person had done before (item, time, type); the items that were chosen then."""


def _searches(db: sqlite3.Connection) -> Iterator[_Search]:
    for _, rows in groupby(db.execute(_ROWS), key=lambda row: row[0]):
        yield from _of_one(rows)


def _of_one(rows: Iterator[Any]) -> Iterator[_Search]:
    done: list[tuple[int, int, int]] = []
    text, until, before, chosen = "", 0, 0, set[int]()
    for _, kind, item, query, time_ms in rows:
        if kind == _SEARCH:
            if chosen:
                yield text, done[max(0, before - LINES) : before], frozenset(chosen)
            text, until, before, chosen = query or "", time_ms + _WITHIN_MS, len(done), set()
        elif item is not None:
            if text and time_ms <= until and kind != _VIEW:
                chosen.add(item)
            done.append((item, time_ms, kind))
    if chosen:
        yield text, done[max(0, before - LINES) : before], frozenset(chosen)


def _example(search: _Search, loaded: Loaded, view: View, voices: Voices) -> tuple[Example, Example] | None:
    """The slate as the voices see it and as they vote on it; None: what was chosen is not on it."""
    text, done, chosen = search
    ask, allowed = Ask(text=text), passing(loaded.shelf, Ask().filter)
    picked = pick(ask, view, loaded.shelf, allowed, most=WINDOW, synonyms=NO_SYNONYMS)
    past = loaded.shelf.placed(_past(done))
    slate, _ = voices.slate(ask, loaded, picked, allowed, until=np.inf, past=past)
    wanted = np.isin(slate.places, loaded.shelf.places(np.array(sorted(chosen), np.int64)))
    if not wanted.any():
        return None
    count = len(chosen)
    return _shown(slate.voices(), wanted, count), _shown(_votes(slate), wanted, count)


def _shown(voices: NDArray[np.float64], wanted: NDArray[np.bool_], count: int) -> Example:
    return Example(voices=voices, picked=wanted, basket=count)


def _votes(slate: Slate) -> NDArray[np.float64]:
    return slate.votes().astype(np.float64)[:, None]


def _past(done: Sequence[tuple[int, int, int]]) -> Past:
    item, time_ms, kind = np.array(done, np.int64).reshape(-1, 3).T
    return Past(item=item, time_ms=time_ms, purchased=kind == _PURCHASE)
