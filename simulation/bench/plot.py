"""The growth of costs as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_INK = "#1d3557"
_RED = "#c8553d"
_GREY = "#9aa5b1"
_MEGA = 1e6


def draw_growth(growth: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Write a figure of two panels; the ending of the name says in which format."""
    mpl.rcParams["svg.hashsalt"] = "hanse"  # the same figures give the same file
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    by_sites, by_parameters = growth["by_sites"], growth["by_parameters"]
    _panel(left, by_sites, key="sites", label=f"sites n, at {by_sites[0]['parameters']:,} parameters")
    _panel(right, by_parameters, key="parameters", label=f"parameters d, at {by_parameters[0]['sites']} sites")
    metadata = {"Date": None} if path.suffix == ".svg" else None
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata=metadata)


def _panel(axes: Axes, rows: Sequence[Mapping[str, Any]], *, key: str, label: str) -> None:
    sizes = [row[key] for row in rows]
    axes.loglog(sizes, [row["mask_seconds"] for row in rows], "o-", color=_INK, label="edge: mask and deal, s")
    axes.loglog(sizes, [row["unmask_seconds"] for row in rows], "s-", color=_RED, label="center: unmask, s")
    axes.loglog(sizes, [row["upload_bytes"] / _MEGA for row in rows], "^--", color=_GREY, label="upload of an edge, MB")
    axes.set_xlabel(label)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(frameon=False)
