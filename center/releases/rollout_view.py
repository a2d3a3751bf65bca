"""Rollouts and traces for people and for programs."""

from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from center.releases.rollout import Rollout


def describe(rollout: Rollout) -> dict[str, Any]:
    """A rollout as JSON."""
    return {
        "release": rollout.version,
        "sha256": rollout.sha256,
        "state": rollout.state.value,
        "why": rollout.why,
        "place": rollout.reached.place.value if rollout.reached else None,
        "reach": rollout.reached.reach if rollout.reached else 0,
        "published": rollout.signed,
        "stage": rollout.stage,
        "stages": [{"place": s.place.value, "reach": s.reach, "sites": s.sites} for s in rollout.stages],
        "previous": rollout.previous or None,
        "successor": rollout.successor or None,
        "since_ms": rollout.since_ms,
        "steps": [{"at_ms": step.at_ms, "kind": step.kind, **step.facts} for step in rollout.history],
    }


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """The same for people: one in full, several as a list."""
    if len(rows) > 1:
        table = Table("release", "state", "ring", "bundle", "why")
        for row in rows:
            table.add_row(str(row["release"]), row["state"], row["place"] or "", row["sha256"][:12], row["why"])
        console.print(table)
        return
    (row,) = rows
    console.print(line(row))
    table = Table("stage", "ring", "share of it", "sites let in", "")
    for number, stage in enumerate(row["stages"]):
        mark = "here" if number == row["stage"] else "done" if number < row["stage"] else ""
        table.add_row(str(number + 1), stage["place"], f"{stage['reach'] / 100:g} %", str(stage["sites"]), mark)
    console.print(table)
    for step in row["steps"]:
        facts = {name: value for name, value in step.items() if name not in {"at_ms", "kind"}}
        at = datetime.fromtimestamp(step["at_ms"] / 1000, UTC)
        console.print(f"  {at:%Y-%m-%d %H:%M:%S} {step['kind']} {_brief(facts)}", highlight=False)


def line(row: dict[str, Any]) -> str:
    """A rollout in one line."""
    ring = f" at ring {row['place']}" if row["place"] else ""
    why = f": {row['why']}" if row["why"] else ""
    onwards = "" if row["published"] else ", being signed"
    return f"release {row['release']} (bundle {row['sha256'][:12]}) is {row['state']}{ring}{onwards}{why}"


def show_trace(found: dict[str, Any], console: Console) -> None:
    """What hangs together, for people."""
    if note := found.get("note"):
        console.print(note)
    if row := found.get("round"):
        console.print(f"round {row['round']} ({row['purpose']}, {row['outcome']}): {', '.join(row['cohort'])}")
    if not found["releases"]:
        console.print(f"no release comes from {found['kind']} {found['name']}")
    for release in found["releases"]:
        console.print(
            f"release {release['release']}: bundle {release['sha256']}, {release['state']} {release['place']}"
        )
        if release["campaign"]:
            console.print(f"  campaign {release['campaign']}, {release['training_rounds']} training rounds")
        if release["same_files"]:
            console.print(f"  the same files as release {', '.join(map(str, release['same_files']))}")
        for kind in ("learnt_in", "measured_in"):
            for row in release[kind]:
                console.print(
                    f"  {kind.replace('_', ' ')} round {row['round']} ({row['purpose']}): {', '.join(row['cohort'])}",
                    highlight=False,
                )


def _brief(facts: dict[str, Any]) -> str:
    plain = {name: value for name, value in facts.items() if not isinstance(value, dict) and value not in {"", None}}
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in plain.items()
    )
