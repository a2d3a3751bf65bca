"""The experiments of a site as documents in its store: begun, changed, stopped and removed, each in one transaction."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from edge.experiments import outcomes
from edge.experiments.assignment import claim
from edge.experiments.design import Design
from edge.experiments.experiment import Experiment, State, from_document, revised, to_document
from edge.records import documents
from edge.records.store import Store
from protocol.errors import BadInputError

KIND: Final = "experiment"
_SALT_BYTES: Final = 16
_Draw = Callable[[int], bytes]


class UnknownExperimentError(BadInputError):
    """There is no experiment of that name."""


def read(db: sqlite3.Connection) -> dict[str, Experiment]:
    """All experiments by name, in the order of their names."""
    return {name: from_document(body) for name, body in documents.read(db, KIND).items()}


def put(store: Store, name: str, design: Design, *, run: bool, now_ms: int, draw: _Draw) -> Experiment:
    """Set an experiment, and start it if it is to run; it is on disk when this returns.

    Args:
        draw: so many random bytes, for its salt.

    Raises:
        BadInputError: the design cannot be carried out, or not any more (see `revised`), or its layer has no room.
    """
    design.check()
    with store.writing() as db:
        known = read(db)
        experiment = revised(known[name], design, now_ms=now_ms) if name in known else None
        experiment = experiment or Experiment(name=name, design=design, salt=draw(_SALT_BYTES).hex(), layer_salt="")
        others = [one for one in known.values() if one.name != name and one.design.layer == design.layer]
        if any(one.design.unit is not design.unit for one in others):
            raise BadInputError(
                f"layer {design.layer} holds experiments with another unit than {design.unit}",
                advice="name another layer",
            )
        if experiment.state is State.DRAFT:
            salt = next((one.layer_salt for one in others), "") or draw(_SALT_BYTES).hex()
            experiment = replace(experiment, layer_salt=salt)
            if run:
                experiment = replace(experiment, state=State.RUNNING, started_ms=now_ms)
        if experiment.state is State.RUNNING:
            experiment = _with_room(experiment, others, now_ms=now_ms)
        documents.put(db, KIND, name, to_document(experiment))
    return experiment


def stop(store: Store, name: str, *, now_ms: int) -> Experiment:
    """Expose nobody any more; what those exposed do is still counted until the last window closes.

    Raises:
        UnknownExperimentError: there is none of that name.
        BadInputError: it does not run.
    """
    with store.writing() as db:
        experiment = _known(db, name)
        if experiment.state_at(now_ms) is not State.RUNNING:
            raise BadInputError(f"experiment {name} does not run")
        experiment = replace(experiment, state=State.STOPPED, stopped_ms=now_ms)
        documents.put(db, KIND, name, to_document(experiment))
    return experiment


def remove(store: Store, name: str) -> None:
    """Forget an experiment and all that came of it.

    Raises:
        UnknownExperimentError: there is none of that name.
    """
    with store.writing() as db:
        _known(db, name)
        documents.drop(db, KIND, name)
        outcomes.remove(db, name)


def close_finished(store: Store, *, now_ms: int) -> list[str]:
    """Of those whose last window has closed keep the sums alone; returns their names."""
    with store.reading() as db:
        waiting = [
            one.name for one in read(db).values() if _finished(one, now_ms) and not outcomes.closed(db, one.name)
        ]
    for name in waiting:
        with store.writing() as db:
            outcomes.close(db, _known(db, name))
    return waiting


def _with_room(experiment: Experiment, others: list[Experiment], *, now_ms: int) -> Experiment:
    running = [one for one in others if one.state_at(now_ms) is State.RUNNING]
    spans = claim(
        experiment.design.buckets,
        own=experiment.spans,
        others=[span for one in running for span in one.spans],
        layer=experiment.design.layer,
    )
    return replace(experiment, spans=spans)


def _finished(experiment: Experiment, now_ms: int) -> bool:
    over = experiment.over_ms
    return experiment.state is not State.DRAFT and over is not None and now_ms >= over + experiment.design.longest_ms


def _known(db: sqlite3.Connection, name: str) -> Experiment:
    body = documents.read(db, KIND).get(name)
    if body is None:
        raise UnknownExperimentError(f"there is no experiment {name}")
    return from_document(body)
