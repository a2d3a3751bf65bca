"""`hanse-sim bench secure-sum`: the figures that the secure sum is held to, all measured in one run."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulation.bench import growth, masking, memory, sharing, superlink_round
from simulation.bench.timing import one_core

Advance = Callable[[str], None]
_MICRO_STEPS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        parameters: of the vector that is masked, unmasked, and of the memory that this takes.
        upload_parameters: of the update whose bytes are counted.
        threshold, shares: of Shamir's scheme.
        sites, lengths: to which costs are followed, with `few` parameters and `company` sites.
    """

    round: superlink_round.Plan
    repetitions: int = 5
    parameters: int = 10_000_000
    peers: int = 10
    upload_parameters: int = 1_000_000
    threshold: int = 34
    shares: int = 50
    unmask_sites: int = 20
    unmask_dropped: int = 6
    sites: tuple[int, ...] = (3, 5, 10, 20, 50, 100, 200)
    lengths: tuple[int, ...] = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 50_000_000)
    few: int = 100_000
    company: int = 10


FULL = Size(round=superlink_round.Plan())
QUICK = Size(
    round=superlink_round.Plan(parameters=100_000, training_seconds=2.0, repetitions=1),
    repetitions=1,
    parameters=1_000_000,
    sites=(3, 10, 30),
    lengths=(100_000, 1_000_000),
)
"""A look that takes less than a minute; its round is too short to say anything about the cost of a real one."""


def run(size: Size, *, advance: Advance) -> dict[str, Any]:
    """Measure everything, the small things on one core.

    Args:
        advance: called with what comes next, `steps` times.
    """
    with one_core():
        small = _on_one_core(size, advance)
    with tempfile.TemporaryDirectory(prefix="hanse-bench-") as folder:
        over_superlink = superlink_round.measure(size.round, directory=Path(folder) / "round", advance=advance)
    details = {**small, "round": over_superlink}
    return {
        "mask_ratio_vs_flower": details["mask"]["ratio"],
        "mask_gb_per_s": details["expansion"]["gb_per_s"],
        "shamir_ratio_vs_flower": details["shamir"]["ratio"],
        "upload_bytes_per_parameter": details["upload"]["bytes_per_parameter"]["32"],
        "unmask_seconds": details["unmask"]["seconds"],
        "round_ratio_vs_fedavg": details["round"]["ratio"],
        "edge_memory_ratio": details["memory"]["ratio"],
        "details": details,
    }


def steps(size: Size) -> int:
    """How often `run` will call ``advance``."""
    return _MICRO_STEPS + len(size.sites) + len(size.lengths) + superlink_round.steps(size.round)


def _on_one_core(size: Size, advance: Advance) -> dict[str, Any]:
    advance("quantise and mask, against Flower")
    mask = masking.against_flower(parameters=size.parameters, peers=size.peers, repetitions=size.repetitions)
    advance("mask expansion, against OpenSSL")
    expansion = masking.expansion(words=size.parameters, repetitions=size.repetitions)
    advance("Shamir, against Flower")
    shamir = sharing.against_flower(threshold=size.threshold, shares=size.shares, repetitions=size.repetitions)
    advance("upload")
    uploads = growth.upload_bytes_per_parameter(size.unmask_sites, parameters=size.upload_parameters)
    advance("unmask")
    unmask = growth.unmasking(size.unmask_sites, dropped=size.unmask_dropped, parameters=size.parameters)
    advance("memory at the edge")
    needed = memory.at_an_edge(parameters=size.parameters, peers=size.peers)
    grown = growth.growth(
        sites=size.sites, parameters=size.lengths, few=size.few, company=size.company, advance=advance
    )
    return {
        "mask": mask,
        "expansion": expansion,
        "shamir": shamir,
        "upload": {
            "sites": size.unmask_sites,
            "parameters": size.upload_parameters,
            "bytes_per_parameter": {str(bits): length for bits, length in uploads.items()},
        },
        "unmask": unmask,
        "memory": needed,
        "growth": grown,
    }
