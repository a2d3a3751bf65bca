"""From `hanse-center rollback` to the last edge's first answer of the older model."""

import json
import time
from collections.abc import Sequence
from typing import Any

from protocol.errors import UnavailableError
from simulation.bench.growth import Advance
from simulation.bench.load import Customer
from simulation.bench.shops import Shops
from simulation.federation import Site

_SECONDS = 60.0
_POLL_SECONDS = 0.05
_HISTORY = 10


def measure(shops: Shops, sites: Sequence[Site], *, advance: Advance) -> dict[str, Any]:
    """Roll back, and ask every edge again and again until it answers under the new number of the older files.

    Returns:
        wall seconds from the start of the command, which is a process of its own, until it has ended, and until the
        first such answer of each edge.
    """
    advance(f"rollback of {len(sites)} edges")
    history = shops.histories(1, length=_HISTORY)[0]
    customers = {site.name: Customer(site) for site in sites}
    before = sorted({customer.ask(history).release or 0 for customer in customers.values()})
    seconds: dict[str, float] = {}
    began = time.monotonic()
    version = int(json.loads(shops.federation.command("hanse-center", "rollback", "--json"))["successor"])
    done = time.monotonic() - began
    while len(seconds) < len(sites):
        if time.monotonic() - began > _SECONDS:
            raise UnavailableError(f"only {sorted(seconds)} answer from release {version}")
        for name, customer in customers.items():
            if name not in seconds and customer.ask(history).release == version:
                seconds[name] = time.monotonic() - began
        time.sleep(_POLL_SECONDS)
    for customer in customers.values():
        customer.leave()
    return {
        "edges": len(sites),
        "releases_before": before,
        "version": version,
        "command_seconds": done,
        "edge_seconds": seconds,
        "seconds": max(seconds.values()),
    }
