"""Releases whose files are random bytes: as large as wanted, and nothing in them is shared by chance."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from protocol.blocks import BLOCK_BYTES
from protocol.bundle import CARD, FileDigest
from protocol.card import BundleCard
from protocol.identity import FederationId


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomRelease:
    """One release of several submodels of one file each.

    Attributes:
        seeds: of each submodel's content; equal seeds make equal files.
        blocks: of each file; every one is full.
    """

    seeds: Mapping[str, int]
    blocks: int

    @property
    def total_bytes(self) -> int:
        """Of the submodels; the card comes on top."""
        return len(self.seeds) * self.blocks * BLOCK_BYTES

    def write(self, folder: Path, *, federation: FederationId, version: int) -> Path:
        """Make the directory that a center publishes."""
        files = {}
        for name, seed in self.seeds.items():
            data = np.random.default_rng(seed).bytes(self.blocks * BLOCK_BYTES)
            path = f"{name}/model.bin"
            (folder / name).mkdir(parents=True)
            (folder / path).write_bytes(data)
            files[path] = FileDigest.of(data)
        card = BundleCard(
            version=version,
            federation=federation,
            created_ms=1,
            catalogue_version=1,
            catalogue_sha256=FileDigest.of(b"no catalogue").sha256,
            submodels={name: {} for name in self.seeds},
            files=files,
        )
        (folder / CARD).write_bytes(card.to_bytes())
        return folder

    def pieces(self) -> list[bytes]:
        """The same bytes in pieces of a block each."""
        whole = b"".join(np.random.default_rng(seed).bytes(self.blocks * BLOCK_BYTES) for seed in self.seeds.values())
        return [whole[start : start + BLOCK_BYTES] for start in range(0, len(whole), BLOCK_BYTES)]
