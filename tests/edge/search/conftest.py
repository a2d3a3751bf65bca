"""A search over the tiny shop, whose index is brought up to date by hand."""

import itertools
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from center.releases.export_search import TowerWeights, card, export_search
from edge.records.events import Item
from edge.search.searching import Search
from edge.serving.release import Loaded, Release
from edge.serving.service import Service
from protocol.card import BundleCard
from protocol.content import BUCKETS, buckets_of, token_table

TEAS = [
    Item(item="t1", title="Green tea, loose", category="tea", brand="own", price=4.5, stock=3),
    Item(item="t2", title="Black tea Earl Grey", category="tea", brand="acme", price=6.0, attributes={"vegan": True}),
    Item(item="t3", title="Tea kettle 12V", category="kitchen", brand="acme", price=30.0, attributes={"volt": 12}),
    Item(item="t4", title="Café crème cups", category="kitchen", brand="own", price=12.0, attributes={"sets": ["a"]}),
    Item(item="t5", title="绿茶 green", category="tea", brand="龙", price=9.0, attributes={"sets": ["a", "b"]}),
    Item(item="t6", title="Shower head <chrome>", category="bath", brand="acme", attributes={"a.b": "x"}),
    Item(item="t7", title="Käse", category="food", brand="own", price=2.0, stock=0),
]


@pytest.fixture
def open_search(tmp_path, clock):
    opened = []

    def open_(service, *, language="english", ready=True, weights=None):
        numbers = itertools.count(1)
        search = Search.open(
            tmp_path / "search",
            service,
            language=language,
            draw=lambda count: next(numbers).to_bytes(count, "big"),
            clock=clock,
            weights=weights,
        )
        opened.append(search)
        if ready:
            search.follower.step()
            search.look_again()
        return search

    yield open_
    for search in opened:
        search.close()


@pytest.fixture
def teas(store):
    """The store of a site that sells the seven items above, one of them sold out."""
    store.put_items(TEAS)
    return store


@pytest.fixture
def serve(clock):
    """A service over any store."""
    made = []

    def make(store, release=None):
        numbers = itertools.count(1)
        service = Service(
            store,
            Loaded.of(store, release),
            draw=lambda count: next(numbers).to_bytes(count, "big"),
            now_ms=lambda: 1_795_000_000_000 + int(1000 * (clock.now - 1000)),
        )
        made.append(service)
        return service

    yield make
    for service in made:
        service.close()


@pytest.fixture
def searched(teas, serve, open_search):
    """The search of that site."""
    return open_search(serve(teas))


WORDS = {"couch": 0, "sofa": 0, "settee": 0, "tea": 1, "green": 1, "fish": 2, "item": 3}


@pytest.fixture
def towers():
    """Words that mean the same have the same vector; all others have one of their own."""
    rng = np.random.default_rng(5)
    tokens = 0.01 * rng.standard_normal((BUCKETS, 16)).astype(np.float32)
    for word, meaning in WORDS.items():
        for bucket in buckets_of((word, word, word)):
            tokens[bucket] = np.eye(16, dtype=np.float32)[meaning]
    eye = np.eye(16, dtype=np.float32)
    return TowerWeights(tokens=tokens, question=eye, item=eye)


@pytest.fixture
def load_towers(make_bundle, catalogue, towers):
    """A release that has the submodel `search`, too; `spoil` may change its files before they are signed for."""

    def load(version=3, *, spoil=lambda files: files, **card_fields):
        directory = make_bundle(version)
        described = zip(catalogue.titles[1:], catalogue.brands[1:], catalogue.categories[1:], strict=True)
        files = spoil(dict(export_search(towers, token_table(described))))
        for path, data in files.items():
            (directory / path).parent.mkdir(exist_ok=True)
            (directory / path).write_bytes(data)
        old = BundleCard.from_bytes((directory / "card.json").read_bytes())
        submodels = {**old.submodels, "search": {**card(towers, items=len(catalogue)), **card_fields}}
        (directory / "card.json").write_bytes(replace(old, submodels=submodels).to_bytes())
        return Release.load(directory, catalogue, version=version, sha256=sha256(bytes([version])).hexdigest())

    return load
