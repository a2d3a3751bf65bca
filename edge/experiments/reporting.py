"""An experiment and its figures, as the API gives them."""

from collections.abc import Mapping
from typing import Any, Final

from edge.experiments.comparing import Comparison, compare, mismatch
from edge.experiments.design import Kind, Metric, plainly
from edge.experiments.experiment import Experiment
from edge.experiments.outcomes import Sums, step
from edge.experiments.sums import ArmSums
from edge.records.events import iso

BROKEN_BELOW: Final = 0.001


def report(experiment: Experiment, sums: Sums, *, now_ms: int) -> dict[str, Any]:
    """All that is known of an experiment; its salts stay here, or an arm could be chosen by choosing a name."""
    units = [_units(sums[arm.name]) for arm in experiment.design.arms]
    chance = mismatch(units, [arm.buckets for arm in experiment.design.arms])
    broken = chance < BROKEN_BELOW
    return {
        "name": experiment.name,
        "state": experiment.state_at(now_ms),
        "unit": experiment.design.unit,
        "layer": experiment.design.layer,
        "scenarios": experiment.design.scenarios,
        "start": _time(experiment.design.start_ms or experiment.started_ms),
        "end": _time(experiment.over_ms),
        "planned_units": experiment.design.planned_units,
        "sample_ratio": {"p": chance, "mismatch": broken},
        "arms": [
            {
                "name": arm.name,
                "share": arm.share,
                "what": plainly(arm.what),
                "units": number,
                "metrics": [
                    _metric(experiment, metric, sums, arm.name, broken=broken) for metric in experiment.design.metrics
                ],
            }
            for arm, number in zip(experiment.design.arms, units, strict=True)
        ],
    }


def _metric(experiment: Experiment, metric: Metric, sums: Sums, arm: str, *, broken: bool) -> dict[str, Any]:
    one, control = sums[arm][metric.name], sums[experiment.control.name][metric.name]
    worth = step(metric)
    said = compare(
        control,
        one,
        step=worth,
        share=metric.kind is Kind.CONVERSION,
        planned_units=experiment.design.planned_units,
    )
    return {
        "name": metric.name,
        "kind": metric.kind,
        "days": metric.days,
        "cap": metric.ceiling,
        "mean": one.mean * worth if one.units else None,
        "deviation": one.variance**0.5 * worth if one.units > 1 else None,
        "sums": {"units": one.units, "total": one.total, "squares": one.squares, "hits": one.hits, "step": worth},
        "against_control": None if arm == experiment.control.name else _against(said, broken=broken),
    }


def _against(said: Comparison | None, *, broken: bool) -> dict[str, Any]:
    if said is None:
        return {"verdict": "too_few", "comparison": None}
    if broken:
        verdict = "broken"
    elif said.always.low > 0 or said.always.high < 0:
        verdict = "higher" if said.always.low > 0 else "lower"
    else:
        verdict = "open"
    return {"verdict": verdict, "comparison": said}


def _units(metrics: Mapping[str, ArmSums]) -> int:
    return next(iter(metrics.values())).units


def _time(time_ms: int | None) -> str | None:
    return None if time_ms is None else iso(time_ms)
