"""How the cost of one round grows with the number of sites and of parameters, by arithmetic."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from simulation.bench.cohort import Cohort

Advance = Callable[[str], None]
BITS = (32, 24, 20, 16)


def most_dropouts(edges: int) -> int:
    """floor((n - 1) / 3): how many may fall silent before a cohort comes to no sum."""
    return (edges - 1) // 3


def cost(edges: int, *, parameters: int, repetitions: int = 3) -> dict[str, Any]:
    """One edge's work and upload, and the center's work with as many dropouts as a round can bear."""
    cohort = Cohort.of(edges, parameters=parameters)
    values = cohort.values()
    sizes: list[int] = []
    mask = _median_seconds(lambda: sizes.append(len(cohort.masked_update(cohort.first, values))), repetitions)
    opened = unmasking(edges, dropped=most_dropouts(edges), parameters=parameters, repetitions=repetitions)
    return {
        "sites": edges,
        "parameters": parameters,
        "mask_seconds": mask,
        "upload_bytes": sizes[0],
        "dropped": opened["dropped"],
        "masks_removed": opened["masks_removed"],
        "unmask_seconds": opened["seconds"],
    }


def unmasking(edges: int, *, dropped: int, parameters: int, repetitions: int = 3) -> dict[str, Any]:
    """The center's last step: rebuild every seed from honest shares, check it, take its mask off.

    Returns:
        processor seconds on one core, and how many masks were left to remove.
    """
    before = Cohort.of(edges, parameters=parameters).about_to_open(dropped=dropped)
    seconds = _median_seconds(before.close_phase, repetitions)
    after = before.close_phase()
    if after.total.any() or after.liars:
        raise AssertionError("the masks did not vanish")
    return {
        "sites": edges,
        "dropped": dropped,
        "parameters": parameters,
        "masks_removed": (edges - dropped) * (dropped + 1),
        "seconds": seconds,
    }


def upload_bytes_per_parameter(edges: int, *, parameters: int) -> dict[int, float]:
    """Length of a real `MaskedUpdate`, with keys and shares, by width of its words."""
    found = {}
    for bits in BITS:
        cohort = Cohort.of(edges, parameters=parameters, bits=bits)
        found[bits] = len(cohort.masked_update(cohort.first, cohort.values())) / parameters
    return found


def growth(
    *, sites: tuple[int, ...], parameters: tuple[int, ...], advance: Advance, few: int = 100_000, company: int = 10
) -> dict[str, list[dict[str, Any]]]:
    """Costs by number of sites and by number of parameters.

    Args:
        few: parameters while the number of sites grows.
        company: sites while the number of parameters grows.
    """
    by_sites, by_parameters = [], []
    for edges in sites:
        advance(f"{edges} sites")
        by_sites.append(cost(edges, parameters=few))
    for length in parameters:
        advance(f"{length:,} parameters")
        by_parameters.append(cost(company, parameters=length))
    return {"by_sites": by_sites, "by_parameters": by_parameters}


def _median_seconds(work: Callable[[], object], repetitions: int) -> float:
    taken = []
    for _ in range(repetitions):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return median(taken)
