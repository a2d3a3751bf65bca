"""What `hanse-center status` shows: sites, rings, campaigns, rounds, releases, and whether the doors answer."""

import socket
import ssl
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from center.keys import CenterKeys
from center.registry import Registry
from center.releases import rollout_view
from center.releases.rollouts import Rollouts
from center.settings import CenterSettings
from center.sites import admission, rings
from protocol.errors import BadInputError
from protocol.identity import federation_id

_TIMEOUT_SECONDS = 3.0
_RELEASES_SHOWN = 5


def look(directory: Path, settings: CenterSettings) -> dict[str, Any]:
    """Everything at one glance, ready for JSON."""
    with closing(Registry(directory / "registry.db")) as registry:
        return _look(directory, settings, registry)


def _look(directory: Path, settings: CenterSettings, registry: Registry) -> dict[str, Any]:
    federation, keys = federation_id(settings.federation), CenterKeys.load(directory)
    roster = admission.read_roster(directory, federation=federation, keys=keys)
    policy = rings.read_rings(directory, federation=federation, keys=keys)
    rollouts = [rollout_view.describe(rollout) for rollout in Rollouts(registry).every()]
    bundle, catalogue = registry.release("bundle"), registry.release("catalogue")
    gateway, broker = _gateway_answers(directory, settings), _broker_listens(settings)
    return {
        "federation": settings.federation,
        "serving": gateway and broker,
        "gateway": gateway,
        "broker": broker,
        "joined": [member.edge for member in registry.sites()],
        "edges": registry.statuses(),
        "roster": {"version": roster.version, "sites": [m.edge for m in roster.members]} if roster else None,
        "rings": {ring.value: list(sites) for ring, sites in rings.members_by_ring(policy, roster).items()},
        "catalogue": {"version": catalogue[0], **catalogue[1]} if catalogue else None,
        "release": {"version": bundle[0], **bundle[1]} if bundle else None,
        "rollout": rollouts[0] if rollouts else None,
        "releases": [
            {name: row[name] for name in ("release", "sha256", "state", "place", "why")}
            for row in rollouts[:_RELEASES_SHOWN]
        ],
        "campaign": _campaign(registry),
    }


def _campaign(registry: Registry) -> dict[str, Any] | None:
    try:
        row = registry.campaign()
    except BadInputError:
        return None
    rounds = [
        {
            "round": r.round,
            "purpose": r.purpose,
            "cohort": list(r.cohort),
            "seconds": r.seconds,
            "outcome": r.outcome,
            **r.figures,
        }
        for r in registry.rounds(row.id)
    ]
    return {"id": row.id, "state": row.state, "why": row.why, "asked": row.rounds, "rounds": rounds}


def _gateway_answers(directory: Path, settings: CenterSettings) -> bool:
    context = ssl.create_default_context(cafile=str(directory / "trust" / "ca.crt"))
    with suppress(httpx.HTTPError), httpx.Client(verify=context, timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
        return client.get(f"https://{settings.gateway.host}:{settings.gateway.port}/health").is_success
    return False


def _broker_listens(settings: CenterSettings) -> bool:
    with (
        suppress(OSError),
        socket.create_connection((settings.broker.host, settings.broker.port), timeout=_TIMEOUT_SECONDS),
    ):
        return True
    return False


def _runs(status: Mapping[str, Any] | None) -> str:
    if status is None:
        return "never heard of"
    if not status.get("online"):
        return "offline"
    trial = " on trial" if status.get("trial") else ""
    back = f", went back from {status['went_back']}" if status.get("went_back") else ""
    return f"online with release {status.get('release') or 'none'}{trial}{back}, software {status.get('version')}"


def show(seen: dict[str, Any], console: Console) -> None:
    """The same for people."""
    doors = ", ".join(f"{name} {'answers' if seen[name] else 'is away'}" for name in ("gateway", "broker"))
    console.print(f"federation {seen['federation']}: {doors}")
    admitted = set(seen["roster"]["sites"]) if seen["roster"] else set()
    ring_of = {site: ring for ring, sites in seen["rings"].items() for site in sites}
    for site in seen["joined"]:
        standing = f"ring {ring_of[site]}" if site in admitted else "has joined, waits for hanse-center admit"
        console.print(f"  {site}: {standing}; {_runs(seen['edges'].get(site))}")
    console.print(f"catalogue: {seen['catalogue']['version'] if seen['catalogue'] else 'none yet'}")
    console.print(rollout_view.line(seen["rollout"]) if seen["rollout"] else "release: none yet")
    if len(seen["releases"]) > 1:
        rollout_view.show(seen["releases"], console)
    campaign = seen["campaign"]
    if campaign is None:
        return
    console.print(f"campaign {campaign['id']}: {campaign['state']} {campaign['why']}")
    table = Table("round", "purpose", "edges", "in the sum", "seconds", "loss", "NDCG@10", "outcome")
    for row in campaign["rounds"]:
        figures = [f"{row[name]:.4f}" if name in row else "" for name in ("loss", "ndcg")]
        table.add_row(
            str(row["round"]),
            row["purpose"],
            str(len(row["cohort"])),
            f"{row['survivors']:.0f}" if "survivors" in row else "",
            f"{row['seconds']:.1f}",
            *figures,
            row["outcome"],
        )
    console.print(table)
