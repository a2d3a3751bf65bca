"""Experiments for people: one heading and one line a metric and arm."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

HEADINGS: Final = ("metric", "arm", "units", "mean", "against control", "95 % at every look", "verdict")
_VERDICTS: Final = {
    "higher": "higher",
    "lower": "lower",
    "open": "nothing shown yet",
    "too_few": "too few units",
    "broken": "do not read: the arms have other sizes than they should",
}


def heading(report: Mapping[str, Any]) -> str:
    """What one experiment is and how it stands."""
    where = ", ".join(report["scenarios"]) or "everywhere"
    parts = [f"{report['name']}: {report['state']}, {where}, by {report['unit']}"]
    if report["start"]:
        parts.append(f"from {report['start']}")
    if report["end"]:
        parts.append(f"to {report['end']}")
    if report["waits_for"]:
        parts.append(f"waits for {', '.join(report['waits_for'])}, which is not here")
    return "; ".join(parts)


def rows(report: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Under `HEADINGS`, grouped by metric."""
    metrics = [metric["name"] for metric in report["arms"][0]["metrics"]]
    for number, name in enumerate(metrics):
        for arm in report["arms"]:
            yield (name, arm["name"], f"{arm['units']:,}", *_figures(arm["metrics"][number]))


def _figures(metric: Mapping[str, Any]) -> tuple[str, str, str, str]:
    share = metric["kind"] == "conversion"
    mean = "" if metric["mean"] is None else _number(metric["mean"], share=share)
    against = metric["against_control"]
    if against is None:
        return mean, "", "", "control"
    said = against["comparison"]
    if said is None:
        return mean, "", "", _VERDICTS[against["verdict"]]
    lift = "" if said["lift"] is None else f" ({said['lift']:+.1%})"
    low, high = (_number(said["always"][end], share=share, sign=True) for end in ("low", "high"))
    return (
        mean,
        _number(said["difference"], share=share, sign=True) + lift,
        f"{low} to {high}",
        _VERDICTS[against["verdict"]],
    )


def _number(value: float, *, share: bool, sign: bool = False) -> str:
    plus = "+" if sign else ""
    return f"{value:{plus}.2%}" if share else f"{value:{plus}.4g}"
