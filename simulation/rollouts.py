"""A good release and a bad one on their way through the rings: what happened, when, and where everybody ended."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from protocol.errors import FederationError
from simulation.federation import Federation, Site, served_by

Rollout = dict[str, Any]
"""As `hanse-center rollout status --json` tells it."""

_LOOK_SECONDS = 0.2
_ROLLOUT_SECONDS = 900.0
_SWAP_SECONDS = 120.0


def promote(federation: Federation, sites: Sequence[Site], *, say: Callable[[str], None]) -> dict[str, Any]:
    """Release the newest campaign and follow it until every site answers from it.

    Raises:
        FederationError: it was not promoted; says why.
    """
    release: dict[str, Any] = json.loads(federation.command("hanse-center", "release", "--json"))
    rollout = _follow(federation, release["version"], say=say, until=_offered_to_all)
    if rollout["state"] not in {"running", "finished"}:
        raise FederationError(f"release {release['version']} is {rollout['state']}: {rollout['why']}")
    served_by(sites, {site.name: release["version"] for site in sites}, seconds=_SWAP_SECONDS)
    last = [step["at_ms"] for step in rollout["steps"] if step["kind"] == "stage signed"][-1]
    seconds = round(time.time() - last / 1000, 3)
    rollout = _follow(federation, release["version"], say=say)
    if rollout["state"] != "finished":
        raise FederationError(f"release {release['version']} is {rollout['state']}: {rollout['why']}")
    return {**release, "last_stage_seconds": seconds, "rollout": _story(rollout)}


def drill(
    federation: Federation, sites: Sequence[Site], *, canaries: Sequence[str], good: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Release untrained weights past the gate: the canaries notice, and the center takes the release back by itself.

    Args:
        canaries: the sites of that ring.
        good: the release that everybody serves before.

    Raises:
        FederationError: the bad release was not taken back, or did not stop at the canaries.
    """
    reason = "drill: untrained weights, to see the canaries stop them"
    words = ("release", "--round", "0", "--waive-gate", reason, "--json")
    bad: dict[str, Any] = json.loads(federation.command("hanse-center", *words))
    rollout = _follow(federation, bad["version"], say=say)
    if rollout["state"] != "reverted" or rollout["place"] != "canary":
        raise FederationError(f"the bad release {bad['version']} is {rollout['state']} at ring {rollout['place']}")
    expected = {site.name: rollout["successor"] if site.name in canaries else good for site in sites}
    served_by(sites, expected, seconds=_SWAP_SECONDS)
    signed = next(step["at_ms"] for step in rollout["steps"] if step["kind"] == "stage signed")
    return {
        "version": bad["version"],
        "canaries": sorted(canaries),
        "others": sorted(site.name for site in sites if site.name not in canaries),
        "successor": rollout["successor"],
        "why": rollout["why"],
        "seconds": round(time.time() - signed / 1000, 3),
        "rollout": _story(rollout),
    }


def _is_over(rollout: Rollout) -> bool:
    ended = rollout["state"] in {"finished", "refused", "aborted", "paused"}
    return ended or (rollout["state"] == "reverted" and rollout["published"])


def _offered_to_all(rollout: Rollout) -> bool:
    at_last_stage = rollout["stage"] == len(rollout["stages"]) - 1
    return _is_over(rollout) or (at_last_stage and rollout["published"])


def _follow(
    federation: Federation, version: int, *, say: Callable[[str], None], until: Callable[[Rollout], bool] = _is_over
) -> Rollout:
    deadline = time.monotonic() + _ROLLOUT_SECONDS
    while time.monotonic() < deadline:
        rollout = federation.rollout(version)
        say(f"release {version}: {rollout['state']}" + (f", ring {rollout['place']}" if rollout["place"] else ""))
        if until(rollout):
            return rollout
        for child in federation.children.values():
            child.check()
        time.sleep(_LOOK_SECONDS)
    raise FederationError(f"release {version} is {rollout['state']} after {_ROLLOUT_SECONDS:g} s: {rollout['why']}")


def _story(rollout: Rollout) -> list[dict[str, Any]]:
    """What happened, with seconds since the candidate was signed."""
    began = rollout["steps"][0]["at_ms"]
    return [
        {
            "seconds": round((step["at_ms"] - began) / 1000, 1),
            "what": step["kind"],
            "facts": {name: value for name, value in step.items() if name not in {"at_ms", "kind"}},
        }
        for step in rollout["steps"]
    ]
