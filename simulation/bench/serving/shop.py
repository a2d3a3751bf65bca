"""A shop of any size that belongs to no federation, with a release in its slot whose weights nobody trained.

Items, users and events are drawn at random, but shaped like a shop's: few items sell much, most sell little.
"""

import gzip
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from center.releases import export_search
from center.releases.export import FEWEST_CANDIDATES, SUBMODEL, export
from edge import tuning
from edge.records.events import Event, EventType, Item
from edge.records.store import Store
from edge.releases.assembly import Fetched, measure
from edge.releases.installer import Installer
from protocol.bundle import CARD, Entry, FileDigest, Manifest, bundle_digest
from protocol.card import CATALOGUE_FILE, BundleCard, CatalogueCard
from protocol.content import token_table
from protocol.identity import FederationId
from protocol.models import weights as model_weights
from protocol.models.weights import SequenceConfig
from protocol.release import Offer, Place
from simulation.bench.serving import titles
from simulation.processes import free_ports

NOW_MS = 1_790_000_000_000
"""When the last event of a shop happened: 2026-09-21."""
_FEDERATION = FederationId("alone")
_MINUTE_MS = 60_000
_STOCK = 9
_USERS_AT_ONCE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a shop is.

    Attributes:
        history: events of each user, and how many the model reads.
        embedding_size: width of the item vectors.
        meaning: the release has a submodel `search`, too.
    """

    items: int
    users: int
    history: int
    embedding_size: int = 64
    meaning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """An edge's folder.

    Attributes:
        key: its API key, for all that a shop may do.
        titles: of items ``i1`` to ``in``, in this order.
    """

    directory: Path
    port: int
    key: str
    size: Size
    titles: list[str]

    @property
    def model(self) -> Path:
        """The graph it serves."""
        return self.directory / "slots" / "a" / SUBMODEL / "model.onnx"

    @property
    def towers(self) -> Path:
        """The graph that reads what is searched for."""
        return self.directory / "slots" / "a" / export_search.SUBMODEL / "model.onnx"

    def user(self, number: int) -> str:
        return f"u{number % self.size.users}"


def open_shop(directory: Path, size: Size) -> Shop:
    """Set a shop up: `hanse-edge new`, its items and events, and a release.

    Args:
        directory: made; it must not exist.
    """
    (port,) = free_ports(1)
    words = ["new", "bench", "--dir", str(directory), "--port", str(port), "--json"]
    said = subprocess.run([sys.executable, "-m", "edge.cli", *words], check=True, capture_output=True, text=True)
    rng = np.random.default_rng(size.items)
    items = [replace(item, stock=_STOCK) for item in titles.items(titles.titles(size.items, rng), rng)]
    _install(directory, size, items, rng)
    with Store.open(directory / "store.db") as store:
        store.put_items(items)
        _fill(store, size, rng)
    key = json.loads(said.stdout)["api_key"]
    return Shop(directory=directory, port=port, key=key, size=size, titles=[item.title for item in items])


def _fill(store: Store, size: Size, rng: np.random.Generator) -> None:
    chosen = np.minimum(rng.zipf(1.2, (size.users, size.history)), size.items)
    kinds = (EventType.VIEW, EventType.CLICK, EventType.ADD_TO_CART, EventType.PURCHASE)
    kind = rng.choice(4, (size.users, size.history), p=[0.6, 0.2, 0.1, 0.1])
    began = NOW_MS - size.history * _MINUTE_MS
    for first in range(0, size.users, _USERS_AT_ONCE):
        store.add_events(
            Event(
                event_id=f"{user}-{step}",
                type=kinds[kind[user, step]],
                user=f"u{user}",
                item=f"i{chosen[user, step]}",
                time_ms=began + step * _MINUTE_MS,
            )
            for user in range(first, min(first + _USERS_AT_ONCE, size.users))
            for step in range(size.history)
        )


def _install(directory: Path, size: Size, items: list[Item], rng: np.random.Generator) -> None:
    """A catalogue and a committed bundle, as if they had come down from a center."""
    installer = Installer(directory, federation=_FEDERATION, edge_version=tuning.EDGE_VERSION)
    lines = [
        {"item": one.item, "title": one.title, "category": one.category, "brand": one.brand, "price": one.price}
        for one in items
    ]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    packed = gzip.compress(data, mtime=0)
    listed = FileDigest.of(packed)
    catalogue = CatalogueCard(version=1, items=len(items), bytes_unpacked=len(data), files={CATALOGUE_FILE: listed})
    _bring(installer, directory, {CATALOGUE_FILE: packed, CARD: catalogue.to_bytes()}, place=Place.CATALOGUE)
    files = _release(size, items, rng)
    bundle = BundleCard(
        version=1,
        federation=_FEDERATION,
        created_ms=NOW_MS,
        catalogue_version=1,
        catalogue_sha256=listed.sha256,
        submodels=_submodels(size),
        files={path: FileDigest.of(content) for path, content in files.items()},
    )
    _bring(installer, directory, {**files, CARD: bundle.to_bytes()}, place=Place.ALL)


def _release(size: Size, items: list[Item], rng: np.random.Generator) -> Mapping[str, bytes]:
    config = SequenceConfig(items=size.items, embedding_size=size.embedding_size, history_length=size.history)
    popularity = np.concatenate([[0.0], rng.pareto(1.0, size.items)])
    weights = model_weights.initial(config, popularity=popularity, min_support=1, rng=rng)
    tokens = token_table((one.title, one.brand, one.category) for one in items)
    files = export(weights, tokens, popularity).files
    return {**files, **export_search.export_search(titles.towers(rng), tokens)} if size.meaning else files


def _submodels(size: Size) -> dict[str, dict[str, int]]:
    """What the card says of them."""
    recommend = {
        "history_length": size.history,
        "embedding_size": size.embedding_size,
        "items": size.items,
        "candidates": FEWEST_CANDIDATES,
    }
    search = export_search.card(titles.towers(np.random.default_rng(0)), items=size.items)
    return {SUBMODEL: recommend} | ({export_search.SUBMODEL: search} if size.meaning else {})


def _bring(installer: Installer, directory: Path, files: Mapping[str, bytes], *, place: Place) -> None:
    """Install as after a download."""
    folder = directory / "blocks" / place / "1"
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    measured = measure(folder)
    manifest = Manifest(files={path: Entry(file=file, blocks=()) for path, file in measured.items()})
    offer = Offer(place=place, version=1, sha256=bundle_digest(measured), bytes=manifest.total_bytes, evaluation={})
    now = datetime.now(UTC)
    fetched = Fetched(directory=folder, offer=offer, manifest=manifest, expires=now + timedelta(days=1))
    if place is Place.CATALOGUE:
        installer.install_catalogue(fetched, now=now)
    else:
        installer.commit(installer.install(fetched, now=now))
