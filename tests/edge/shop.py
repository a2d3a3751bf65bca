"""A shop with twelve shared items, one private one, and a real (tiny) ONNX bundle."""

import gzip
import itertools
from hashlib import sha256
from pathlib import Path

import numpy as np
import orjson
import pytest
from onnx import TensorProto, checker, helper, save

from edge.records.events import Event, EventType, Item
from edge.records.store import Store
from edge.releases.catalogue import Catalogue
from edge.serving.release import Loaded, Release
from edge.serving.service import Service
from protocol.bundle import FileDigest
from protocol.card import BundleCard, CatalogueCard
from protocol.identity import FederationId

NOW_MS = 1_795_000_000_000
DAY_MS = 86_400_000
ITEMS = [f"i{row}" for row in range(1, 13)]
SIZE = 4


def digest(path):
    return FileDigest.of(path.read_bytes())


class Clock:
    """Seconds that only rise when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def rng():
    return np.random.default_rng(20_261_121)


@pytest.fixture
def catalogue_directory(tmp_path):
    directory = tmp_path / "catalogue"
    directory.mkdir()
    lines = [
        {"item": name, "title": f"Item {name}", "category": "tea" if row % 2 else "fish", "brand": "own", "price": 1.5}
        for row, name in enumerate(ITEMS, start=1)
    ]
    data = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    (directory / "catalogue.jsonl.gz").write_bytes(gzip.compress(data, mtime=0))
    card = CatalogueCard(
        version=1,
        items=len(ITEMS),
        bytes_unpacked=len(data),
        files={"catalogue.jsonl.gz": digest(directory / "catalogue.jsonl.gz")},
    )
    (directory / "card.json").write_bytes(card.to_bytes())
    return directory


@pytest.fixture
def catalogue(catalogue_directory):
    return Catalogue.load(catalogue_directory)


def write_model(folder: Path, vectors: np.ndarray, *, strangers: bool = False) -> None:
    """The state is the mean of the history's vectors; vectors are external data, as in a real bundle.

    Args:
        strangers: whether a history may hold items that the catalogue lacks.
    """
    rows, size = vectors.shape
    table = TensorProto(
        name="vectors", data_type=TensorProto.FLOAT16, dims=vectors.shape, data_location=TensorProto.EXTERNAL
    )
    for key, value in {"location": "item_vectors.bin", "offset": "0", "length": str(rows * size * 2)}.items():
        entry = table.external_data.add()
        entry.key, entry.value = key, value
    nothing = helper.make_tensor("nothing", TensorProto.FLOAT, (rows,), [-1e9, *[0.0] * (rows - 1)])
    axes = helper.make_tensor("axes", TensorProto.INT64, (1,), [1])
    nodes = [
        helper.make_node("Cast", ["vectors"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["wide", "history"], ["shared"]),
        helper.make_node("Add", ["shared", "strangers"], ["seen"]),
        helper.make_node("ReduceMean", ["seen", "axes"], ["state"], keepdims=0),
        helper.make_node("Transpose", ["wide"], ["across"], perm=[1, 0]),
        helper.make_node("MatMul", ["state", "across"], ["plain"]),
        helper.make_node("Add", ["plain", "nothing"], ["all"]),
        helper.make_node("TopK", ["all", "k"], ["scores", "items"]),
    ]
    none = helper.make_tensor("strangers", TensorProto.FLOAT, (1, 1, 1), [0.0])
    optional = [helper.make_tensor_value_info("strangers", TensorProto.FLOAT, ["b", "t", "d"])] if strangers else []
    graph = helper.make_graph(
        nodes,
        "toy",
        [
            helper.make_tensor_value_info("history", TensorProto.INT64, ["batch", "time"]),
            helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
            *optional,
        ],
        [
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["batch", size]),
            helper.make_tensor_value_info("items", TensorProto.INT64, ["batch", "found"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", "found"]),
        ],
        [table, nothing, axes, none],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    save(model, folder / "model.onnx")
    checker.check_model(folder / "model.onnx")


@pytest.fixture
def make_bundle(tmp_path, catalogue):
    """Make a bundle whose vectors put every item nearest to its neighbours by number.

    Given words, it is one that reads items which the catalogue lacks: float[BUCKETS + 1, 4].
    """

    def make(version=3, *, vectors=None, popularity=None, words=None):
        folder = tmp_path / f"bundle-{version}" / "recommend"
        folder.mkdir(parents=True)
        if vectors is None:
            angle = np.linspace(0, np.pi, len(ITEMS) + 1)
            vectors = np.stack([np.cos(angle), np.sin(angle), *[np.zeros_like(angle)] * (SIZE - 2)], axis=1)
            vectors[0] = 0
        vectors = vectors.astype("<f2")
        vectors.tofile(folder / "item_vectors.bin")
        np.zeros(len(ITEMS) + 1, "<f4").tofile(folder / "item_bias.bin")
        counts = np.arange(len(ITEMS) + 1) if popularity is None else popularity
        counts.astype("<f4").tofile(folder / "popularity.bin")
        if words is not None:
            words.astype("<f2").tofile(folder / "tokens.bin")
        write_model(folder, vectors, strangers=words is not None)
        settings = {"history_length": 5, "embedding_size": SIZE, "items": len(ITEMS), "candidates": 40}
        card = BundleCard(
            version=version,
            federation=FederationId("hanse"),
            created_ms=NOW_MS,
            catalogue_version=1,
            catalogue_sha256=catalogue.sha256,
            submodels={"recommend": settings},
            files={f"recommend/{path.name}": digest(path) for path in sorted(folder.iterdir())},
        )
        (folder.parent / "card.json").write_bytes(card.to_bytes())
        return folder.parent

    return make


@pytest.fixture
def load_release(make_bundle, catalogue):
    def load(version=3, **parts):
        directory = make_bundle(version, **parts)
        return Release.load(directory, catalogue, version=version, sha256=sha256(bytes([version])).hexdigest())

    return load


def purchase(user, item, *, day=0, type=EventType.PURCHASE):  # noqa: A002
    return Event(
        event_id=f"{user}-{item}-{day}-{type}",
        type=type,
        user=user,
        item=item,
        time_ms=NOW_MS - 100 * DAY_MS + day * DAY_MS,
    )


@pytest.fixture
def buy():
    return purchase


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store.db") as opened:
        yield opened


@pytest.fixture
def stocked(store):
    """The site sells all shared items and a private one, "own-pie"; ada has a habit of i2, everybody buys i7."""
    shared = [(name, "tea" if row % 2 else "fish") for row, name in enumerate(ITEMS, start=1)]
    store.put_items(
        [
            *(Item(item=name, title=f"Item {name}", category=category) for name, category in shared),
            Item(item="own-pie", title="Our own pie", category="pie"),
        ]
    )
    habit = [purchase("ada", "i2", day=day) for day in range(0, 40, 10)]
    crowd = [purchase(f"u{number}", "i7", day=number) for number in range(9)]
    store.add_events([*habit, *crowd, purchase("u1", "own-pie", day=20)])
    return store


@pytest.fixture
def make_service(stocked):
    made = []

    def make(release=None, weights=None):
        numbers = itertools.count(1)
        loaded = Loaded.of(stocked, release, weights)
        service = Service(
            stocked, loaded, draw=lambda count: next(numbers).to_bytes(count, "big"), now_ms=lambda: NOW_MS
        )
        made.append(service)
        return service

    yield make
    for service in made:
        service.close()
