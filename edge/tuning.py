"""Fits this site's fusion weights for the committed release, in a process of its own and at low priority."""

import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import structlog

from edge.neighbours.neighbours import Neighbours
from edge.neighbours.sums import HalfLives
from edge.records.store import Store
from edge.releases.catalogue import Catalogue
from edge.releases.installed import Installed
from edge.releases.installer import Installer
from edge.search.fitting import fit_here
from edge.search.fusing import SearchWeights
from edge.serving.fitting import fit_fusion
from edge.serving.fusion import FusionWeights
from edge.serving.release import Loaded, Release
from edge.settings import EdgeSettings
from protocol.card import BundleCard
from protocol.errors import BadInputError, UntrustedReleaseError
from protocol.identity import federation_id

_log = structlog.get_logger(__name__)
_MOST_USERS = 600
EDGE_VERSION = version("hanse")


def fit(directory: Path, settings: EdgeSettings) -> None:
    """Fit and store the weights; nothing to do before the first release.

    Raises:
        BadInputError: the store is damaged.
        UntrustedReleaseError: the committed release cannot be loaded.
    """
    installer = open_installer(directory, settings)
    bundle = installer.bundle()
    if bundle is None:
        return
    release = load_release(installer, bundle)
    with Store.open(directory / "store.db", durability=settings.store.durability) as store:
        companions = Neighbours(store, HalfLives.of(settings.neighbours), now_ms=lambda: time.time_ns() // 1_000_000)
        companions.refresh()
        rng = np.random.default_rng(bundle.offer.version)
        weights = fit_fusion(store, release, max_users=_MOST_USERS, rng=rng, companions=companions)
        searching = fit_here(directory / "search", store, Loaded.of(store, release, weights), rng=rng)
    _remove_unused(directory, installer)
    if searching is not None:
        searching.save(search_weights_file(directory, bundle))
    weights.save(weights_file(directory, bundle))
    _log.info("fusion fitted", release=bundle.offer.version, users=weights.users, ndcg=weights.ndcg_after)


def weights_file(directory: Path, bundle: Installed) -> Path:
    """Where the weights for one bundle lie, whatever number it is released under."""
    return directory / "fusion" / f"{bundle.sha256}.json"


def read_weights(directory: Path, bundle: Installed) -> FusionWeights | None:
    """The weights fitted for a release, or None before that."""
    try:
        return FusionWeights.read(weights_file(directory, bundle))
    except BadInputError:
        return None


def search_weights_file(directory: Path, bundle: Installed) -> Path:
    """The same of the search; there is none where the voices vote."""
    return directory / "fusion" / f"search-{bundle.sha256}.json"


def read_search_weights(directory: Path, bundle: Installed) -> SearchWeights | None:
    """The weights fitted for searching with a release; None: the voices vote."""
    try:
        return SearchWeights.read(search_weights_file(directory, bundle))
    except BadInputError:
        return None


def open_installer(directory: Path, settings: EdgeSettings) -> Installer:
    return Installer(directory, federation=federation_id(settings.site.federation), edge_version=EDGE_VERSION)


def load_release(installer: Installer, installed: Installed, *, like: Release | None = None) -> Release:
    """Load a bundle with the catalogue it names.

    Args:
        like: a loaded release, whose catalogue is taken if it is the same one: reading it takes about a second.

    Raises:
        UntrustedReleaseError: it, or its catalogue, is not as its card says.
        MalformedMessageError: its card cannot be read.
    """
    card = installed.read_card()
    if not isinstance(card, BundleCard):
        raise UntrustedReleaseError(f"{installed.offer.target} is no bundle")
    if like is not None and like.catalogue.sha256 == card.catalogue_sha256:
        read = like.catalogue
    else:
        try:
            read = Catalogue.load(installer.catalogue_of(card).directory)
        except BadInputError as error:
            raise UntrustedReleaseError(str(error)) from error
    return Release.load(installed.directory, read, version=installed.offer.version, sha256=installed.sha256)


def _remove_unused(directory: Path, installer: Installer) -> None:
    """Keep the weights of the two slots and no others."""
    slots = installer.slots()
    kept = {file(directory, found) for found in slots for file in (weights_file, search_weights_file)}
    for path in (directory / "fusion").glob("*.json"):
        if path not in kept:
            path.unlink(missing_ok=True)
