"""From an answer to the release, its bundle, its rounds and their cohorts, and back (SPEC 9.12-9.13)."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from center.registry import Registry, RoundRow
from center.releases.rollouts import Rollouts
from protocol import rec_id
from protocol.errors import BadInputError
from protocol.release import Kind

_NAMED = re.compile(r"(release|round|campaign|site)/(.+)")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_REC_ID_LENGTH = 22


def trace(what: str, *, registry: Registry) -> dict[str, Any]:
    """Everything that hangs together with it.

    Args:
        what: a rec_id, a bundle's digest, a release's number, a campaign or a site; or with the kind before it, as in
            ``round/12``.

    Returns:
        What it was taken for, and the releases that it belongs to, the newest first; ready for JSON.

    Raises:
        BadInputError: nothing of that name is known.
    """
    cards = registry.releases(Kind.BUNDLE)
    kind, name = _kind_of(what, registry)
    chosen = {version for version in cards if _belongs(kind, name, version, cards[version], registry)}
    found: dict[str, Any] = {"kind": kind, "name": name}
    if kind == "rec_id":
        answer = rec_id.parse(name)
        if answer.version == 0:
            return {**found, "releases": [], "note": "answered before the first release"}
    if kind == "round":
        found["round"] = _round(next(row for row in registry.rounds() if row.round == int(name)))
    if not chosen and kind in {"rec_id", "release", "digest"}:
        raise BadInputError(
            f"{what!r} belongs to no release of this center", advice="hanse-center rollout status --all"
        )
    releases = [_release(version, cards, registry) for version in sorted(chosen, reverse=True)]
    return {**found, "releases": releases}


def _kind_of(what: str, registry: Registry) -> tuple[str, str]:
    if named := _NAMED.fullmatch(what):
        kind, name = named[1], named[2]
        known = {
            "release": name.isdecimal(),
            "round": name.isdecimal() and any(row.round == int(name) for row in registry.rounds()),
            "campaign": any(row.campaign == name for row in registry.rounds()),
            "site": any(name in row.cohort for row in registry.rounds()),
        }
        if not known[kind]:
            raise BadInputError(f"there is no {kind} {name}", advice="hanse-center status lists them")
        return kind, name
    if what.isdecimal():
        return "release", what
    if _DIGEST.fullmatch(what):
        return "digest", what
    rows = registry.rounds()
    if any(row.campaign == what for row in rows):
        return "campaign", what
    if any(what in row.cohort for row in rows):
        return "site", what
    if len(what) != _REC_ID_LENGTH:
        raise BadInputError(
            f"{what!r} is no rec_id, digest, release, campaign or site of this center",
            advice="a round is written round/12",
        )
    rec_id.parse(what)
    return "rec_id", what


def _belongs(kind: str, name: str, version: int, card: Mapping[str, Any], registry: Registry) -> bool:
    match kind:
        case "release":
            return version == int(name)
        case "digest":
            return bool(card["sha256"] == name)
        case "rec_id":
            answer = rec_id.parse(name)
            return version == answer.version and str(card["sha256"]).startswith(answer.sha256_prefix)
        case "campaign":
            return name in {card.get("campaign"), f"release-{version}"}
        case "round":
            return any(
                row.round == int(name) for row in (*_learnt_in(card, registry), *_measured_in(version, registry))
            )
        case _:
            return any(name in row.cohort for row in _learnt_in(card, registry))


def _release(version: int, cards: Mapping[int, Mapping[str, Any]], registry: Registry) -> dict[str, Any]:
    card = cards[version]
    rollout = Rollouts(registry).find(version)
    same = [other for other in cards if cards[other]["sha256"] == card["sha256"] and other != version]
    return {
        "release": version,
        "sha256": card["sha256"],
        "campaign": card.get("campaign"),
        "training_rounds": card.get("rounds"),
        "learnt_in": [_round(row) for row in _learnt_in(card, registry)],
        "measured_in": [_round(row) for row in _measured_in(version, registry)],
        "same_files": sorted(same),
        "state": rollout.state.value if rollout else "",
        "place": rollout.reached.place.value if rollout and rollout.reached else "",
        "steps": [
            {"at_ms": step.at_ms, "kind": step.kind, **step.facts} for step in (rollout.history if rollout else ())
        ],
    }


def _learnt_in(card: Mapping[str, Any], registry: Registry) -> list[RoundRow]:
    """The rounds whose sums are in a release's weights."""
    campaign = card.get("campaign")
    rows = registry.rounds(str(campaign)) if campaign else ()
    return [row for row in rows if row.outcome == "summed" and row.figures.get("step", 0) <= card["rounds"]]


def _measured_in(version: int, registry: Registry) -> Iterable[RoundRow]:
    return [row for row in registry.rounds(f"release-{version}") if row.outcome == "summed"]


def _round(row: RoundRow) -> dict[str, Any]:
    return {
        "round": row.round,
        "campaign": row.campaign,
        "purpose": row.purpose,
        "outcome": row.outcome,
        "cohort": list(row.cohort),
    }
