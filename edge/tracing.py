"""From an answer's name back to the release that gave it, by this edge's own audit log (SPEC 9.12, 9.13)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from protocol import rec_id
from protocol.audit import Entry
from protocol.errors import BadInputError

_BEGINNINGS = frozenset({"installed", "adopted"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What is known here of the release that gave an answer.

    Attributes:
        version: 0: no release had come yet, the answer was popularity.
        sha256: the bundle's digest, hexadecimal.
        training: campaign, rounds, digest of the weights and cohort, from the bundle's card.
        steps: what happened to it here, oldest first.
    """

    version: int
    sha256: str = ""
    training: Mapping[str, Any]
    steps: Sequence[Entry] = ()

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        steps = [{"time_ms": step.time_ms, "kind": step.kind, "facts": dict(step.facts)} for step in self.steps]
        return {"release": self.version, "sha256": self.sha256, "training": dict(self.training), "steps": steps}

    def to_text(self) -> str:
        """For people."""
        if not self.version:
            return "answered before the first release came: popularity and the user's own habits"
        lines = [f"release {self.version}, bundle {self.sha256}"]
        lines += [f"{name}: {value}" for name, value in self.training.items()]
        for step in self.steps:
            why = f": {step.facts['why']}" if "why" in step.facts else ""
            lines.append(f"{datetime.fromtimestamp(step.time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC  {step.kind}{why}")
        return "\n".join(lines)


def trace(name: str, entries: Sequence[Entry]) -> Trace:
    """Find the release that gave an answer.

    Args:
        name: the answer's ``rec_id``.
        entries: the log, which the caller has checked.

    Raises:
        BadInputError: no edge has made this name, or this edge has never had that release.
    """
    asked = rec_id.parse(name)
    if not asked.version:
        return Trace(version=0, training={})
    steps = [
        entry
        for entry in entries
        if entry.facts.get("release") == asked.version
        and str(entry.facts.get("sha256", "")).startswith(asked.sha256_prefix)
    ]
    begun = [entry for entry in steps if entry.kind in _BEGINNINGS]
    if not begun:
        raise BadInputError(
            f"this edge has never had release {asked.version} with a bundle {asked.sha256_prefix}",
            advice="ask at the site whose answer it is",
        )
    training = begun[-1].facts.get("training")
    return Trace(
        version=asked.version,
        sha256=str(begun[-1].facts["sha256"]),
        training=training if isinstance(training, dict) else {},
        steps=steps,
    )
