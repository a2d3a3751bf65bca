"""What customers notice when an edge installs a release and swaps to it under load."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from protocol.errors import UnavailableError
from simulation.bench.growth import Advance
from simulation.bench.load import Load, Request
from simulation.bench.shops import Shops
from simulation.federation import Site

_SECONDS = 120.0
_POLL_SECONDS = 0.05
_HISTORY = 50
_HISTORIES = 500
_SLOW = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The load.

    Attributes:
        clients: with one connection each.
        seconds: before the release, as long again without one, and at least as long from its command on.
        warm_up_seconds: at first, which count nowhere.
    """

    clients: int = 4
    per_second: float = 50.0
    seconds: float = 60.0
    warm_up_seconds: float = 5.0


def measure(shops: Shops, site: Site, campaign: str, plan: Plan, *, advance: Advance) -> dict[str, Any]:
    """Release while the edge is asked, until it has answered from the new release for a while.

    A request failed if it got no answer or an error. It was slow if it took more than twice the 99th percentile of as
    many requests under the same load before.

    Returns:
        both counts from the release on; and of as many requests before it, none of which any release can have slowed,
        how many were slow by the same measure: what this machine does by itself.
    """
    advance("swap under load")
    load = Load(
        site=site,
        histories=shops.histories(_HISTORIES, length=_HISTORY),
        clients=plan.clients,
        per_second=plan.per_second,
    )
    with load.running():
        time.sleep(plan.warm_up_seconds)
        first = len(load.requests)
        time.sleep(2 * plan.seconds)
        quiet = len(load.requests)
        began = time.monotonic()
        version = shops.release(campaign)
        released = time.monotonic()
        _wait_for(load, version, since=quiet)
        time.sleep(max(0.0, plan.seconds - (time.monotonic() - released)))
    during = load.requests[quiet:]
    calm = load.requests[first:quiet]
    half = min(len(during), len(calm) // 2)
    before, beside = calm[: len(calm) - half], calm[len(calm) - half :]
    p99 = float(np.quantile([request.seconds for request in before], 0.99))
    swapped = next(request for request in during if request.release == version)
    failed = sum(request.release is None for request in during)
    late = slow(during, p99)
    return {
        "version": version,
        "clients": plan.clients,
        "per_second": plan.per_second,
        "requests_before": len(before),
        "requests": len(during),
        "p50_before_ms": 1000 * float(np.median([request.seconds for request in before])),
        "p99_before_ms": 1000 * p99,
        "p99_ms": 1000 * float(np.quantile([request.seconds for request in during], 0.99)),
        "slowest_ms": 1000 * max(request.seconds for request in during),
        "failed": failed,
        "slow": late,
        "slow_without_a_release": slow(beside, p99),
        "requests_without_a_release": len(beside),
        "swapped_after_seconds": swapped.at - began,
        "failed_or_slow": failed + late,
    }


def slow(requests: Sequence[Request], p99: float) -> int:
    """How many took more than twice `p99` seconds; those that failed are counted elsewhere."""
    return sum(request.release is not None and request.seconds > _SLOW * p99 for request in requests)


def _wait_for(load: Load, version: int, *, since: int) -> None:
    deadline = time.monotonic() + _SECONDS
    while not any(request.release == version for request in load.requests[since:]):
        if time.monotonic() > deadline:
            raise UnavailableError(f"{load.site.name} does not answer from release {version} after {_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)
