"""What came of exposures: the events of each unit after its first one, summed up by arm, in the database itself.

Nothing is kept beside the events, so late events count, an event that was sent twice counts once, and who is erased is
gone from the sums too. Once an experiment is over and its last window has closed, only the sums stay.
"""

import sqlite3
from collections.abc import Mapping
from typing import Final

from edge.experiments.design import Kind, Metric
from edge.experiments.experiment import Experiment
from edge.experiments.sums import STEPS, ArmSums

Sums = Mapping[str, Mapping[str, ArmSums]]
"""By arm and metric."""

# The conditions repeat those of the index events_history, which SQLite uses only where it can see that.
_AFTER = """
    FROM events {join} WHERE events.user = exposures.user AND events.type <= 4 AND events.item IS NOT NULL
    AND events.type = {type} AND events.time_ms >= exposures.first_ms AND events.time_ms < exposures.first_ms + :window
    AND (exposures.session = '' OR events.session = exposures.session)"""
_PRICED = "JOIN items ON items.id = events.item"
_VALUE: Final = {
    Kind.CONVERSION: f"EXISTS (SELECT 1 {_AFTER.format(join='', type=4)})",
    Kind.REVENUE: f"""coalesce((SELECT sum(coalesce(events.quantity, 1) * coalesce(items.price, 0))
        {_AFTER.format(join=_PRICED, type=4)}), 0)""",
    Kind.CLICKS: f"(SELECT count(*) {_AFTER.format(join='', type=2)}) * 1.0 / exposures.count",
}
_SUMS = """
    SELECT arm, count(*), sum(steps), sum(steps * steps), sum(steps > 0) FROM (
        SELECT arm, CAST(round(min({value}, :cap) * :scale) AS INTEGER) AS steps
        FROM exposures WHERE experiment = :experiment
    ) GROUP BY arm"""
_KEPT = "SELECT arm, metric, units, total, squares, hits FROM arm_sums WHERE experiment = ?"
_KEEP = "INSERT INTO arm_sums (experiment, arm, metric, units, total, squares, hits) VALUES (?, ?, ?, ?, ?, ?, ?)"


def step(metric: Metric) -> float:
    """What one step of a metric's sums is worth."""
    return 1.0 if metric.kind is Kind.CONVERSION else metric.ceiling / STEPS


def sums(db: sqlite3.Connection, experiment: Experiment) -> Sums:
    """As of now; every arm and metric is there."""
    kept = db.execute(_KEPT, (experiment.name,)).fetchall()
    found = {(arm, metric): _sums(row) for arm, metric, *row in kept}
    if not kept:
        found = {
            (arm, metric.name): _sums(row)
            for metric in experiment.design.metrics
            for arm, *row in _summed(db, experiment.name, metric)
        }
    return {
        arm.name: {metric.name: found.get((arm.name, metric.name), ArmSums()) for metric in experiment.design.metrics}
        for arm in experiment.design.arms
    }


def close(db: sqlite3.Connection, experiment: Experiment) -> None:
    """Keep the sums alone, and forget who was exposed; within a transaction."""
    rows = [
        (experiment.name, arm, metric, one.units, one.total, one.squares, one.hits)
        for arm, metrics in sums(db, experiment).items()
        for metric, one in metrics.items()
    ]
    db.execute("DELETE FROM arm_sums WHERE experiment = ?", (experiment.name,))
    db.executemany(_KEEP, rows)
    db.execute("DELETE FROM exposures WHERE experiment = ?", (experiment.name,))


def closed(db: sqlite3.Connection, experiment: str) -> bool:
    """Have its sums been kept?"""
    return db.execute("SELECT 1 FROM arm_sums WHERE experiment = ? LIMIT 1", (experiment,)).fetchone() is not None


def remove(db: sqlite3.Connection, experiment: str) -> None:
    """Forget all that came of an experiment; within a transaction."""
    db.execute("DELETE FROM arm_sums WHERE experiment = ?", (experiment,))
    db.execute("DELETE FROM exposures WHERE experiment = ?", (experiment,))


def _summed(db: sqlite3.Connection, experiment: str, metric: Metric) -> list[tuple[str, int, int, int, int]]:
    cursor = db.execute(
        _SUMS.format(value=_VALUE[metric.kind]),
        {
            "experiment": experiment,
            "window": metric.days * 86_400_000,
            "cap": metric.ceiling,
            "scale": 1 / step(metric),
        },
    )
    return cursor.fetchall()


def _sums(row: list[int]) -> ArmSums:
    units, total, squares, hits = row
    return ArmSums(units=units, total=total, squares=squares, hits=hits)
