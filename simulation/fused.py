"""A network trained elsewhere, served exactly as an edge would serve it: exported, loaded, fused, asked."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from center.releases.export import FEWEST_CANDIDATES, SUBMODEL, export
from edge.records.store import Store
from edge.releases.catalogue import Catalogue
from edge.serving.fitting import fit_fusion
from edge.serving.query import Query
from edge.serving.release import Loaded, Release
from edge.serving.service import Service
from protocol.bundle import CARD, FileDigest
from protocol.card import BundleCard
from protocol.identity import FederationId
from protocol.models.weights import Weights
from simulation.datasets import SiteData
from simulation.quality import K, Quality
from simulation.serving import quality_of

_MOST_USERS = 600


def fused_quality(
    weights: Weights, tokens: NDArray[np.int32], popularity: NDArray[np.float64], *, edge: Path, site: SiteData
) -> Quality:
    """What this edge would have answered to its test, had this been its release.

    Args:
        popularity: float64[n + 1], counts that the release would carry.
        edge: folder of an edge that has ended; its store and catalogue are read.
    """
    catalogue = Catalogue.load(edge / "catalogue" / "1")
    with TemporaryDirectory() as scratch, Store.open(edge / "store.db") as store:
        release = _release(Path(scratch), weights, tokens, popularity, catalogue)
        fusion = fit_fusion(store, release, max_users=_MOST_USERS, rng=np.random.default_rng(1))
        service = Service(
            store,
            Loaded.of(store, release, fusion),
            draw=bytes,  # nobody looks up these answers by name
            now_ms=lambda: time.time_ns() // 1_000_000,
        )
        answers = [service.ask(service.loaded, Query(user=user, limit=K)).items for user in site.test.users]
        service.close()
    return quality_of([[one.item for one in answer] for answer in answers], site)


def _release(
    folder: Path,
    weights: Weights,
    tokens: NDArray[np.int32],
    popularity: NDArray[np.float64],
    catalogue: Catalogue,
) -> Release:
    exported = export(weights, tokens, popularity)
    for path, data in exported.files.items():
        place = folder / path
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(data)
    card = BundleCard(
        version=1,
        federation=FederationId("alone"),
        created_ms=0,
        catalogue_version=catalogue.version,
        catalogue_sha256=catalogue.sha256,
        submodels={
            SUBMODEL: {
                "history_length": weights.config.history_length,
                "embedding_size": weights.config.embedding_size,
                "items": weights.config.items,
                "candidates": FEWEST_CANDIDATES,
            }
        },
        files={path: FileDigest.of(data) for path, data in exported.files.items()},
    )
    (folder / CARD).write_bytes(card.to_bytes())
    return Release.load(folder, catalogue, version=1, sha256="")
