"""Releases that arms name, ready beside the one that serves: the one before it in a trial, or that of the other slot.

An arm's release costs the memory of its vectors, and nothing where it is the one that serves. It must number the same
shared items; one of another catalogue is not at hand.
"""

import asyncio
from collections.abc import Callable, Collection

import structlog

from edge.serving.fusion import FusionWeights
from edge.serving.release import Loaded, Release
from edge.serving.service import Service
from protocol.errors import FederationError

Load = Callable[[int], tuple[Release, FusionWeights | None] | None]
"""An installed release by its version; None: it is not installed."""
_log = structlog.get_logger(__name__)


class Releases:
    """What arms may answer from."""

    def __init__(self, service: Service, load: Load) -> None:
        self._service = service
        self._load = load
        self._kept: dict[int, tuple[Release, FusionWeights | None]] = {}
        self._ready: dict[int, Loaded] = {}
        self._base: Loaded | None = None
        self._derived: set[int] = set()
        self._failed: set[int] = set()

    def at_hand(self, version: int) -> Loaded | None:
        """All that an answer from this release needs; None: it cannot answer now."""
        for known in (self._service.loaded, self._service.standby):
            if known is not None and known.release is not None and known.release.version == version:
                return known
        return self._ready.get(version)

    async def follow(self, wanted: Collection[int]) -> None:
        """Make ready what is wanted and installed, and let go of the rest. The work is done in a thread."""
        served = self._service.loaded
        for version in sorted(set(wanted) - set(self._kept)):
            found = None if self.at_hand(version) else await asyncio.to_thread(self._loaded, version)
            if found is not None:
                self._kept[version] = found
        self._kept = {version: kept for version, kept in self._kept.items() if version in wanted}
        if self._base is not served or self._derived != set(self._kept):
            self._ready = await asyncio.to_thread(_beside, served, dict(self._kept))
            self._base, self._derived = served, set(self._kept)

    def _loaded(self, version: int) -> tuple[Release, FusionWeights | None] | None:
        try:
            return self._load(version)
        except FederationError as error:
            if version not in self._failed:
                _log.warning("the release of an arm cannot be loaded", release=version, why=error.line())
            self._failed.add(version)
            return None


def _beside(served: Loaded, kept: dict[int, tuple[Release, FusionWeights | None]]) -> dict[int, Loaded]:
    """Each on the shelf of the one that serves, where it numbers the same items."""
    beside = {version: served.with_release(*parts) for version, parts in kept.items()}
    return {version: loaded for version, loaded in beside.items() if loaded is not None}
