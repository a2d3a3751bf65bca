"""A process that is told how much memory it may have does not try what would not fit, and says what it takes."""

import asyncio
import subprocess
import sys

import numpy as np
import pytest

from edge.records.events import Item
from edge.serving import filters
from edge.serving.filters import Filter
from edge.serving.memory import Memory
from edge.serving.metrics import Metrics
from edge.serving.need import Need
from edge.serving.query import Query
from edge.serving.release import Loaded

MEBI = 1 << 20


def watched(loaded, *, resident, ceiling=100 * MEBI, drop=lambda: None):
    return Memory(ceiling=ceiling, loaded=lambda: loaded, resident=resident, drop=drop)


def test_what_fits_is_let_in_and_what_does_not_is_told_in_figures(stocked):
    need = Need(graphs=10 * MEBI, tables=(8 * MEBI,), rest=1 * MEBI, items=1000)
    assert need.bytes == (30 + 8 + 16 + 3 + 16) * MEBI
    memory = watched(Loaded.of(stocked, None), resident=lambda: 27 * MEBI)
    assert memory.why_not(need) == ""
    why = watched(Loaded.of(stocked, None), resident=lambda: 28 * MEBI).why_not(need)
    assert why == "it needs about 73 MB of memory beside what serves; serving.memory_mb (100) leaves 72"


def test_a_large_table_is_not_widened_and_needs_less():
    small, large = (Need(graphs=0, tables=(size * MEBI,), rest=0, items=1).bytes for size in (32, 33))
    assert (small, large) == ((3 * 32 + 16) * MEBI, (33 + 16) * MEBI)


def test_private_items_and_another_catalogue_are_counted():
    plain = Need(graphs=0, tables=(2 * 1001 * 64,), rest=0, items=1000)
    more = Need(graphs=0, tables=(2 * 1001 * 64,), rest=0, items=1000, private=500, catalogue=10_000)
    assert more.bytes - plain.bytes == pytest.approx(500 * 4 * 64 + 1500 * 100 + 13_000, rel=0.01)


def test_near_the_ceiling_what_can_be_had_again_is_dropped_once(stocked):
    resident, dropped = [89 * MEBI], []

    def drop():
        dropped.append(resident[0])
        resident[0] = 60 * MEBI

    memory = watched(Loaded.of(stocked, None), resident=lambda: resident[0], drop=drop)
    assert not memory.look()
    assert dropped == []
    resident[0] = 90 * MEBI
    assert not memory.look()
    assert (dropped, memory.relieved) == ([90 * MEBI], 1)
    assert not memory.look()
    assert len(dropped) == 1


def test_what_cannot_be_dropped_is_said_to_be_too_much(stocked):
    memory = watched(Loaded.of(stocked, None), resident=lambda: 95 * MEBI)
    assert memory.look()


def test_free_pages_are_given_back_whenever_the_process_has_grown_by_a_tenth(stocked):
    loaded, resident, given = Loaded.of(stocked, None), [100 * MEBI], []

    def give_back():
        given.append(resident[0] // MEBI)
        resident[0] -= 10 * MEBI

    memory = Memory(ceiling=1_000 * MEBI, loaded=lambda: loaded, resident=lambda: resident[0], give_back=give_back)
    asyncio.run(memory.tidy())  # what the start has left
    asyncio.run(memory.tidy())
    resident[0] = 95 * MEBI
    asyncio.run(memory.tidy())
    assert given == [100]
    resident[0] = 120 * MEBI
    asyncio.run(memory.tidy())
    assert given == [100, 120]


def test_answers_are_the_same_after_all_caches_were_dropped(make_service, load_release, stocked):
    stocked.put_items([Item(item="i3", category="tea", attributes={"grams": 50})])
    service = make_service(load_release())
    wanted = Query(history=["i11"], filter=Filter(where="grams == 50"), limit=4)
    before = asyncio.run(service.recommend(wanted)).items
    column = service.loaded.shelf.column("grams")
    service.drop_caches()
    assert not filters._MASKS
    assert service.loaded.shelf.column("grams") is not column
    assert asyncio.run(service.recommend(wanted)).items == before != []


def test_what_the_state_costs_is_told_part_by_part(stocked, load_release):
    memory = watched(Loaded.of(stocked, load_release()), resident=lambda: 42 * MEBI)
    found = memory.footprint()
    assert found.items == 13
    assert found.users == 10
    assert found.store == sum(
        path.stat().st_size for path in stocked.path.parent.glob("store.db*") if "shm" not in path.name
    )
    assert all(found.parts[part] > 0 for part in ("catalogue", "shelf", "model"))
    assert found.parts["private"] == 0
    assert found.bytes_per_item == pytest.approx(sum(found.parts.values()) / 13)
    assert found.to_json()["resident_mb"] == 42.0


def test_prometheus_hears_of_it(stocked, load_release):
    metrics = Metrics()
    metrics.registry.register(watched(Loaded.of(stocked, load_release()), resident=lambda: 42 * MEBI))
    page = metrics.page().decode()
    assert 'hanse_edge_state_bytes{part="model"}' in page
    assert "hanse_edge_memory_ceiling_bytes 1.048576e+08" in page
    assert "hanse_edge_memory_relieved_total 0.0" in page
    for name in ("hanse_edge_state_bytes_per_item", "hanse_edge_store_bytes_per_user"):
        assert f"\n{name} " in page


_GROWTH = """
import sys
from pathlib import Path
from edge.machine import give_back, resident_bytes
from edge.records.store import Store
from edge.releases.catalogue import Catalogue
from edge.serving.release import Loaded, Release
from edge.serving.need import Need
from protocol.card import BundleCard
catalogue = Catalogue.load(Path(sys.argv[1]))
directory = Path(sys.argv[2])
with Store.open(Path(sys.argv[3])) as store:
    card = BundleCard.from_bytes((directory / "card.json").read_bytes())
    first = Loaded.of(store, Release.load(directory, catalogue, version=1, sha256="0" * 64))
    give_back()
    before = resident_bytes()
    second = first.with_release(Release.load(directory, catalogue, version=2, sha256="1" * 64))
    second.release.ranker.rank(second.shelf.places(__import__("numpy").arange(1, 2)), k=10)
    print(resident_bytes() - before, Need.of(card, items=len(catalogue), private=0, catalogue=0).bytes)
"""


def test_a_release_takes_no_more_than_it_is_said_to_need(large_release, tmp_path):
    """Measured in a process of its own: what this one has allocated before is reused, and says nothing."""
    catalogue, bundle, store = large_release
    words = [sys.executable, "-c", _GROWTH, str(catalogue), str(bundle), str(store)]
    said = subprocess.run(words, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    grown, need = map(int, said.split())
    assert grown > 10 * MEBI
    assert grown <= need < 2.5 * grown


@pytest.fixture
def large_release(tmp_path):
    """A real release of 30,000 items with the catalogue that it numbers."""
    import gzip

    import orjson

    from center.releases.export import export
    from edge.records.store import Store
    from protocol.bundle import FileDigest
    from protocol.card import BundleCard, CatalogueCard
    from protocol.identity import FederationId
    from protocol.models import weights as model_weights
    from protocol.models.weights import SequenceConfig

    items = 30_000
    catalogue, bundle = tmp_path / "catalogue", tmp_path / "bundle"
    catalogue.mkdir()
    data = b"".join(orjson.dumps({"item": f"i{number}", "title": f"Thing {number}"}) + b"\n" for number in range(items))
    packed = gzip.compress(data, mtime=0)
    (catalogue / "catalogue.jsonl.gz").write_bytes(packed)
    digest = FileDigest.of(packed)
    listed = CatalogueCard(version=1, items=items, bytes_unpacked=len(data), files={"catalogue.jsonl.gz": digest})
    (catalogue / "card.json").write_bytes(listed.to_bytes())
    config = SequenceConfig(items=items, embedding_size=128, history_length=20)
    popularity = np.append(0.0, np.ones(items))
    weights = model_weights.initial(config, popularity=popularity, min_support=1, rng=np.random.default_rng(3))
    exported = export(weights, np.zeros((items + 1, 1), np.int32), popularity)
    for path, content in exported.files.items():
        (bundle / path).parent.mkdir(parents=True, exist_ok=True)
        (bundle / path).write_bytes(content)
    card = BundleCard(
        version=1,
        federation=FederationId("hanse"),
        created_ms=1,
        catalogue_version=1,
        catalogue_sha256=digest.sha256,
        submodels={"recommend": {"history_length": 20, "embedding_size": 128, "items": items}},
        files={path: FileDigest.of(content) for path, content in exported.files.items()},
    )
    (bundle / "card.json").write_bytes(card.to_bytes())
    store = tmp_path / "store.db"
    with Store.open(store) as opened:
        opened.put_items(Item(item=f"i{number}") for number in range(100))
    return catalogue, bundle, store
