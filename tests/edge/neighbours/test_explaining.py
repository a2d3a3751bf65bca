"""Why an item was recommended: what is named did move it, by as much as is said."""

import asyncio
import gzip
import itertools
import time
from hashlib import sha256

import numpy as np
import orjson
import pytest

from center.releases.export import export
from edge.neighbours.explaining import Explaining
from edge.neighbours.neighbours import Neighbours
from edge.neighbours.occlusion import without
from edge.neighbours.parts import Kind, parts_of
from edge.records.events import EventType, Item
from edge.releases.catalogue import Catalogue
from edge.serving.degradation import Reason, Rung
from edge.serving.query import Query
from edge.serving.ranker import ModelFailedError
from edge.serving.release import Loaded, Release
from edge.serving.service import Service, UnknownItemError
from protocol.bundle import FileDigest
from protocol.card import BundleCard, CatalogueCard
from protocol.content import token_table
from protocol.identity import FederationId
from protocol.models import weights as model_weights
from protocol.models.weights import SequenceConfig

NOW_MS = 1_795_000_000_000
FOREVER = float("inf")
ITEMS, SIZE, LENGTH = 60, 16, 12
NAMES = [f"i{row}" for row in range(1, ITEMS + 1)]
CATEGORIES = ["tea", "fish", "bread", "soap"]


def digest(path):
    return FileDigest.of(path.read_bytes())


@pytest.fixture
def exported(tmp_path, rng):
    """A release as the center makes it, of weights nobody trained."""
    rows = [
        {"item": name, "title": f"Item {name}", "category": CATEGORIES[row % 4], "brand": f"b{row % 6}", "price": row}
        for row, name in enumerate(NAMES, start=1)
    ]
    data = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    folder = tmp_path / "catalogue"
    folder.mkdir()
    (folder / "catalogue.jsonl.gz").write_bytes(gzip.compress(data, mtime=0))
    listed = {"catalogue.jsonl.gz": digest(folder / "catalogue.jsonl.gz")}
    card = CatalogueCard(version=1, items=ITEMS, bytes_unpacked=len(data), files=listed)
    (folder / "card.json").write_bytes(card.to_bytes())
    catalogue = Catalogue.load(folder)
    popularity = np.append(0, np.geomspace(500, 1, ITEMS)).round()
    config = SequenceConfig(items=ITEMS, embedding_size=SIZE, history_length=LENGTH)
    weights = model_weights.initial(config, popularity=popularity, min_support=20, rng=rng)
    moved = model_weights.flatten(weights.tensors)
    weights = weights.moved(moved + rng.normal(0, 0.3, len(moved)).astype(np.float32))
    tokens = token_table([(row["title"], row["brand"], row["category"]) for row in rows])
    bundle = tmp_path / "bundle"
    (bundle / "recommend").mkdir(parents=True)
    for path, content in export(weights, tokens, popularity).files.items():
        (bundle / path).write_bytes(content)
    card = BundleCard(
        version=5,
        federation=FederationId("hanse"),
        created_ms=NOW_MS,
        catalogue_version=1,
        catalogue_sha256=catalogue.sha256,
        submodels={"recommend": {"history_length": LENGTH, "embedding_size": SIZE, "items": ITEMS, "candidates": 40}},
        files={f"recommend/{path.name}": digest(path) for path in sorted((bundle / "recommend").iterdir())},
    )
    (bundle / "card.json").write_bytes(card.to_bytes())
    return Release.load(bundle, catalogue, version=5, sha256=sha256(b"5").hexdigest())


class Counter:
    """A shop that explains itself."""

    def __init__(self, store, half_lives, release):
        self.neighbours = Neighbours(store, half_lives, now_ms=lambda: NOW_MS)
        self.neighbours.follow()
        self.clock = time.monotonic
        numbers = itertools.count(1)
        self.service = Service(
            store,
            Loaded.of(store, release),
            draw=lambda count: next(numbers).to_bytes(count, "big"),
            now_ms=lambda: NOW_MS,
            neighbours=self.neighbours,
            clock=lambda: self.clock(),  # noqa: PLW0108 - tests put another in its place
        )
        self.explaining = Explaining(self.service, self.neighbours)

    def explain(self, *items, limit=1_000, **who):
        return asyncio.run(self.explaining.explain(Query(**who), items, limit=limit))

    def past(self, **who):
        return self.service.past(self.service.loaded, Query(**who))

    def panel(self, past, places):
        ranked = asyncio.run(self.explaining._best(self.service.loaded, past, until=FOREVER))
        return self.explaining._panel(self.service.loaded, past, places, ranked, until=FOREVER)

    def score(self, panel, past, place):
        """What the service says, were these the candidates."""
        return float(self.service.score(self.service.loaded, past, panel.places)[panel.at([place])[0]])


@pytest.fixture
def busy(store, diary, rng):
    """A shop whose users have bought and looked at many things, some of them private to it."""
    store.put_items([Item(item=f"own{n}", title=f"Our own {n}", category="tea") for n in range(4)])
    store.put_items([Item(item=name) for name in NAMES])
    kinds = ["view", "click", "add_to_cart", "purchase"]
    for number in range(12):
        names = rng.choice([*NAMES, "own0", "own1"], 25)
        days = np.sort(rng.integers(-60, 0, 25))
        store.add_events(
            [
                diary.event(f"u{number}", str(name), minute=int(day) * 1440 + at, kind=kinds[rng.integers(4)])
                for at, (name, day) in enumerate(zip(names, days, strict=True))
            ]
        )
    return store


@pytest.fixture
def opened():
    """Shops to be closed at the end."""
    made = []
    yield made.append
    for counter in made:
        counter.service.close()


@pytest.fixture
def counter(busy, half_lives, exported, opened):
    made = Counter(busy, half_lives, exported)
    opened(made)
    return made


@pytest.fixture
def silent(busy, half_lives, opened):
    """The same before the first release."""
    made = Counter(busy, half_lives, None)
    opened(made)
    return made


@pytest.mark.parametrize("which", ["counter", "silent"])
def test_without_the_named_events_the_item_scores_as_much_less_as_was_said(request, which, rng):
    counter = request.getfixturevalue(which)
    shelf = counter.service.loaded.shelf
    checked = 0
    for user in ("u0", "u3", "u7"):
        items = [str(item) for item in rng.choice([*NAMES, "own0", "own2"], 3, replace=False)]
        past, places = counter.past(user=user), [shelf.place(item) for item in items]
        panel = counter.panel(past, places)
        explained = counter.explain(*items, user=user).items
        for place, told in zip(places, explained, strict=True):
            whole = counter.score(panel, past, place)
            assert told.score == pytest.approx(whole, abs=1e-4)
            named = [why for why in told.because if why.kind is Kind.EVENT]
            for why in named[:6]:
                gone = (past.time_ms == why.time_ms) & (past.item == shelf.place(why.item))
                less = counter.score(panel, without(past, gone), place)
                assert whole - less == pytest.approx(why.effect, abs=1e-4)
                checked += 1
            for part in parts_of(past, [place], shelf):
                if part.kind is not Kind.EVENT:
                    less = counter.score(panel, without(past, part.gone), place)
                    said = sum(why.effect for why in told.because if why.kind is part.kind)
                    assert whole - less == pytest.approx(said, abs=1e-4)
                    checked += 1
    assert checked > 15


def test_the_first_reason_moves_the_item_more_than_a_random_event_does(counter, rng):
    """The deletion curve: what is named first matters most."""
    named, random = [], []
    shelf = counter.service.loaded.shelf
    for number in range(12):
        user, item = f"u{number}", str(rng.choice(NAMES))
        past, place = counter.past(user=user), shelf.place(item)
        panel = counter.panel(past, [place])
        whole = counter.score(panel, past, place)
        because = counter.explain(item, user=user).items[0].because
        first = max((why for why in because if why.kind is Kind.EVENT), key=lambda why: why.effect)
        gone = (past.time_ms == first.time_ms) & (past.item == shelf.place(first.item))
        named.append(whole - counter.score(panel, without(past, gone), place))
        some = np.zeros(len(past.item), np.bool_)
        some[rng.integers(len(some))] = True
        random.append(whole - counter.score(panel, without(past, some), place))
    assert np.mean(named) > np.mean(random) + 0.1


@pytest.mark.parametrize("which", ["counter", "silent"])
def test_the_voices_add_up_to_how_far_the_item_stands_above_the_average(request, which):
    counter = request.getfixturevalue(which)
    past = counter.past(user="u2")
    for told in counter.explain("i3", "i30", user="u2").items:
        panel = counter.panel(past, [counter.service.loaded.shelf.place(item) for item in ("i3", "i30")])
        scores = counter.service.score(counter.service.loaded, past, panel.places)
        assert told.above == pytest.approx(told.score - float(scores.mean()), abs=1e-3)
        assert sum(why.effect for why in told.voices) == pytest.approx(told.above, abs=1e-3)


def test_what_is_explained_is_what_was_recommended(silent):
    answer = silent.service.ask(silent.service.loaded, Query(user="u1", limit=5))
    told = silent.explain(*[item.item for item in answer.items], user="u1")
    assert [item.score for item in told.items] == pytest.approx([item.score for item in answer.items], abs=1e-4)
    assert told.rung is answer.rung is Rung.HABITS


def test_reasons_are_sentences_a_shopper_understands(store, diary, half_lives, opened):
    store.put_items(
        [
            Item(item="tea", title="Green tea", category="drinks", brand="Assam", price=4.0),
            Item(item="mug", title="Blue mug", category="drinks", brand="Assam", price=4.5),
            Item(item="cup", title="Red cup", category="drinks", price=90.0),
            Item(item="soap", title="Soap"),
        ]
    )
    for number in range(9):
        store.add_events(diary.basket(f"crowd{number}", ["tea", "mug"], minute=-number))
    for day in range(3):
        store.add_events([diary.event("ada", "tea", minute=-1440 * day)])
    store.add_events(
        [diary.event("ada", "cup", minute=-9, kind="add_to_cart"), diary.event("ada", "soap", kind="view")]
    )
    counter = Counter(store, half_lives, None)
    opened(counter)
    tea, mug = counter.explain("tea", "mug", user="ada").items
    texts = [why.text for why in (*tea.because, *tea.voices)]
    assert "You bought it 3 times." in texts
    assert "You bought “Green tea” on 2026-11-18." in texts
    assert "It sells well here." in texts
    company = next(why for why in mug.voices if why.kind is Kind.COMPANION)
    assert company.text == "It is often bought or viewed together with “Green tea”."
    assert (company.item, company.effect > 0) == ("tea", True)
    reasons = {why.text for why in counter.explain("mug", user="ada").items[0].because}
    assert "You chose 4 other things in the category “drinks”." in reasons
    assert "You chose 3 other things of the brand “Assam”." in reasons
    cart = counter.explain("cup", user="ada").items[0].because
    assert "You put into the cart: “Red cup” on 2026-11-18." in {why.text for why in cart}
    assert {why.type for why in cart if why.kind is Kind.EVENT} >= {EventType.ADD_TO_CART}


def test_a_given_history_has_no_dates(counter):
    (told,) = counter.explain("i9", history=["i1", "i2", "i9"]).items
    named = [why for why in told.because if why.kind is Kind.EVENT]
    assert named
    assert all(why.time_ms is None and " on 20" not in why.text for why in named)


def test_a_stranger_is_told_what_sells(counter):
    told = counter.explain("i1", user="stranger")
    assert told.rung is Rung.POPULARITY
    assert [why.kind for why in told.items[0].voices] == [Kind.POPULARITY]
    assert told.items[0].because == []


def test_a_stranger_from_somewhere_is_told_what_sells_there(store, diary, half_lives, opened):
    for number in range(60):
        rain = {"region": "Bergen"}
        store.add_events([diary.event(f"b{number}", "umbrella", minute=-number, context=rain)])
        store.add_events([diary.event(f"c{number}", "hat", minute=-number, context={"region": "Cadiz"})])
    counter = Counter(store, half_lives, None)
    opened(counter)
    told = counter.explain("umbrella", "hat", history=[], context=rain)
    assert told.rung is Rung.CONTEXT
    umbrella, hat = told.items
    assert umbrella.score > hat.score
    assert umbrella.because[0].text == "It is wanted 2.0 times as often in the region Bergen as elsewhere."
    assert hat.because[0].text == "It is wanted less often in the region Bergen than elsewhere."
    assert hat.because[0].effect < 0


def test_when_the_model_breaks_the_other_voices_explain(counter, monkeypatch):
    def broken(*_args, **_how):
        raise ModelFailedError("broken")

    monkeypatch.setattr(counter.service.loaded.release.ranker, "rank_many", broken)
    told = counter.explain("i1", user="u1")
    assert told.reasons == (Reason.MODEL_ERROR,)
    assert told.rung is Rung.HABITS
    assert told.items[0].voices


def test_when_the_model_takes_too_long_the_other_voices_explain(counter, monkeypatch):
    """Twenty times as long as an answer may take; here every run takes half a second of the clock."""
    runs, rank_many = itertools.count(), counter.service.loaded.release.ranker.rank_many
    begun = time.monotonic()
    passed = [begun]

    def slow(*args, **how):
        next(runs)
        passed[0] += 0.5
        return rank_many(*args, **how)

    monkeypatch.setattr("edge.neighbours.occlusion.MOST_POSITIONS", 1)
    monkeypatch.setattr(counter.service.loaded.release.ranker, "rank_many", slow)
    counter.clock = lambda: passed[0]
    told = counter.explain("i1", user="u1")
    assert told.reasons == (Reason.MODEL_SLOW,)
    assert told.rung is Rung.HABITS
    assert told.items[0].voices
    assert next(runs) == 4  # two seconds


def test_nobody_can_explain_an_item_that_nobody_knows(counter):
    with pytest.raises(UnknownItemError, match="unheard-of"):
        counter.explain("unheard-of", user="u1")
