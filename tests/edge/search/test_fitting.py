"""What shoppers choose after searching decides what counts; before there is enough of it, the voices vote."""

import time

import numpy as np
import pytest

from edge.records.events import Event, EventType, Item
from edge.search import fitting
from edge.search.fitting import fit_here, fit_search
from edge.search.fusing import VOICES, SearchWeights, Slate
from edge.search.voices import Voices
from protocol.errors import BadInputError

BEGIN = 1_794_000_000_000


@pytest.fixture
def crowd(store, serve, open_search, rng):
    """Everybody searches for tea and clicks what sells best, which is not what the words put first."""
    store.put_items(Item(item=f"i{n}", title=f"tea{' tea' * (n % 3)} {'x ' * (n % 5)}number{n}") for n in range(30))
    events = []
    for user in range(150):
        liked = int(min(rng.geometric(0.5), 30)) - 1
        for step, (kind, text) in enumerate(
            [(EventType.SEARCH, "tea"), (EventType.CLICK, None), (EventType.PURCHASE, None)]
        ):
            events.append(
                Event(
                    event_id=f"{user}-{step}",
                    type=kind,
                    user=f"u{user}",
                    item=None if text else f"i{29 - liked}",
                    time_ms=BEGIN + user * 60_000 + step,
                    query=text,
                )
            )
    store.add_events(events)
    return open_search(serve(store))


def fitted(search, rng):
    service = search._service
    voices = Voices(service, clock=time.monotonic)
    try:
        return fit_search(service.store, service.loaded, search.follower.view, voices, most=1_000, rng=rng)
    finally:
        voices.close()


def test_what_sells_counts_where_people_choose_what_sells(crowd, rng):
    weights = fitted(crowd, rng)
    assert weights.searches == 150
    assert weights.ndcg_after > weights.ndcg_before + 0.1
    assert weights.weights["sold"] > 1


def test_with_few_searches_the_voices_vote(crowd, rng, monkeypatch):
    monkeypatch.setattr(fitting, "FEWEST_SEARCHES", 151)
    assert fitted(crowd, rng) is None


def test_weights_are_fitted_beside_the_process_that_serves(crowd, tmp_path, rng):
    service = crowd._service
    weights = fit_here(tmp_path / "search", service.store, service.loaded, rng=rng)
    assert weights.searches == 150
    weights.save(tmp_path / "fusion" / "search.json")
    assert SearchWeights.read(tmp_path / "fusion" / "search.json") == weights
    assert fit_here(tmp_path / "nowhere", service.store, service.loaded, rng=rng) is None


@pytest.mark.parametrize("data", [b"", b"{}", b'{"format":2}', b'{"format":1,"weights":{"colour":1}}'])
def test_a_file_that_holds_no_weights_is_refused(tmp_path, data):
    (tmp_path / "w.json").write_bytes(data)
    with pytest.raises(BadInputError, match="no weights"):
        SearchWeights.read(tmp_path / "w.json")


def rows(*lines):
    return iter([(1, kind, item, query, time_ms) for kind, item, query, time_ms in lines])


def test_a_search_is_answered_by_what_is_chosen_soon_and_before_the_next():
    found = list(
        fitting._of_one(
            rows(
                (1, 7, None, 0),
                (5, None, "tea", 10),
                (1, 8, None, 20),
                (2, 9, None, 30),
                (5, None, "cups", 40),
                (5, None, "pots", 50),
                (4, 4, None, 50 + 600_001),
                (5, None, "kettle", 700_000),
                (4, 5, None, 700_001),
            )
        )
    )
    assert [(text, sorted(chosen)) for text, _, chosen in found] == [("tea", [9]), ("kettle", [5])]
    assert [item for item, _, _ in found[0][1]] == [7], "what was known when the search was made"


def test_votes_are_those_of_reciprocal_ranks():
    nan = np.nan
    slate = Slate(
        places=np.array([3, 1, 2]),
        words=np.array([2.0, 1.0, 0.0], np.float32),
        complete=1,
        meaning=np.array([nan, 0.1, 0.9], np.float32),
        taste=np.array([0.3, 0.2, 0.1], np.float32),
        sold=np.zeros(3, np.float32),
    )
    expected = [1 / 61 + 0.5 / 61, 1 / 62 + 1 / 62 + 0.5 / 62, 1 / 61 + 0.5 / 63]
    assert slate.votes() == pytest.approx(expected, rel=1e-5)
    voices = slate.voices()
    assert voices.shape == (3, len(VOICES))
    assert voices[:, 0].tolist() == [1.0, 0.5, 0.0]
    assert voices[:, 1].tolist() == [1, 0, 0]
    assert voices[:, 2] == pytest.approx([0, -1, 1], abs=1e-5)
    assert not voices[:, 4].any()
