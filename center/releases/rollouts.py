"""Rollouts in the registry: each step durable before anything is done about it, and told to the audit log with it."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from center.registry import Registry
from center.releases.rollout import Rollout, State, Step
from center.releases.stages import Stage
from protocol.errors import BadInputError
from protocol.release import Place


class Rollouts:
    """All rollouts of a federation, by version."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def active(self) -> Rollout | None:
        """The one that something is still to come of."""
        return self._first("WHERE active")

    def newest(self) -> Rollout | None:
        return self._first("")

    def in_force(self) -> Rollout | None:
        """The newest that everybody has been offered and nobody has taken back."""
        finished = self._select("WHERE state = ?", State.FINISHED.value)
        return next((one for one in finished if one.stages[-1].place is Place.ALL), None)

    def newest_finished(self) -> Rollout | None:
        """The newest that has come to its end, at whatever ring."""
        return self._first("WHERE state = ?", State.FINISHED.value)

    def find(self, version: int) -> Rollout | None:
        return self._first("WHERE version = ?", version)

    def get(self, version: int) -> Rollout:
        """The rollout of a release.

        Raises:
            BadInputError: there is none.
        """
        found = self.find(version)
        if found is None:
            raise BadInputError(f"there is no release {version}", advice="hanse-center rollout status --all lists them")
        return found

    def every(self) -> list[Rollout]:
        """The newest first."""
        return self._select("")

    def in_use(self) -> set[int]:
        """Releases that a site may be told to take, now or when one is taken back."""
        heads = [one for one in (self.active(), self.newest(), self.in_force()) if one is not None]
        return {version for one in heads for version in (one.version, one.successor, one.previous) if version}

    def begin(self, rollout: Rollout) -> None:
        """Write a new one down.

        Raises:
            BadInputError: another one is on its way.
        """
        with self._registry.transaction() as db:
            self.check_idle()
            self._insert(db, rollout)

    def check_idle(self) -> None:
        """Raise BadInputError if a release is on its way: one at a time."""
        for version, state in self._registry.read("SELECT version, state FROM rollouts WHERE active"):
            raise BadInputError(f"release {version} is {state}", advice="wait, or hanse-center rollout abort")

    def save(self, rollout: Rollout, *, was: Rollout, replacing: Rollout | None = None) -> None:
        """Write down where a rollout stands now.

        Args:
            was: as it was read; whoever moved it meanwhile was first.
            replacing: the release that takes its place; written down in the same transaction.

        Raises:
            BadInputError: it has been moved meanwhile.
        """
        with self._registry.transaction() as db:
            changed = db.execute(
                "UPDATE rollouts SET state = ?, active = ?, record = ? WHERE version = ? AND record = ?",
                (rollout.state.value, int(rollout.active), _record(rollout), was.version, _record(was)),
            ).rowcount
            if not changed:
                raise BadInputError(f"release {was.version} has been moved on meanwhile", advice="look, and try again")
            self._note(db, rollout, begin=len(was.history))
            if replacing is not None:
                self._insert(db, replacing)

    def _insert(self, db: Any, rollout: Rollout) -> None:
        db.execute(
            "INSERT INTO rollouts (version, state, active, record) VALUES (?, ?, ?, ?)",
            (rollout.version, rollout.state.value, int(rollout.active), _record(rollout)),
        )
        self._note(db, rollout, begin=0)

    def _note(self, db: Any, rollout: Rollout, *, begin: int) -> None:
        for place, step in enumerate(rollout.history[begin:], start=begin):
            facts = dict(step.facts)
            db.execute(
                "INSERT INTO steps (version, place, at_ms, kind, facts) VALUES (?, ?, ?, ?, ?)",
                (rollout.version, place, step.at_ms, step.kind, json.dumps(facts)),
            )
            self._registry.note(db, step.kind, release=rollout.version, sha256=rollout.sha256, **facts)

    def _first(self, where: str, *values: Any) -> Rollout | None:
        return next(iter(self._select(where, *values)), None)

    def _select(self, where: str, *values: Any) -> list[Rollout]:
        rows = self._registry.read(f"SELECT record FROM rollouts {where} ORDER BY version DESC", *values)  # noqa: S608 - no input in it
        return [self._read(json.loads(row[0])) for row in rows]

    def _read(self, record: Mapping[str, Any]) -> Rollout:
        query = "SELECT at_ms, kind, facts FROM steps WHERE version = ? ORDER BY place"
        rows = self._registry.read(query, record["version"])
        return Rollout(
            **{
                **record,
                "state": State(record["state"]),
                "after_approval": State(record["after_approval"]),
                "stages": tuple(
                    Stage(place=Place(one["place"]), reach=one["reach"], sites=one["sites"]) for one in record["stages"]
                ),
                "history": tuple(Step(at_ms=at, kind=kind, facts=json.loads(facts)) for at, kind, facts in rows),
            }
        )


def _record(rollout: Rollout) -> str:
    record = {field.name: getattr(rollout, field.name) for field in fields(rollout) if field.name != "history"}
    return json.dumps({**record, "stages": [asdict(stage) for stage in rollout.stages]}, sort_keys=True)


@contextmanager
def moving(directory: Path) -> Iterator[None]:
    """For one that moves a rollout or signs what it says; others wait. The kernel ends it with this process."""
    with (directory / "rollout.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
