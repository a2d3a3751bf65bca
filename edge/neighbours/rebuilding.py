"""`hanse-edge rebuild books`: makes the derived books anew, beside a running edge or without one."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from edge import settings
from edge.neighbours.following import make_anew
from edge.neighbours.sums import HalfLives
from edge.records.store import Store


def run(directory: Path, *, quiet: bool) -> dict[str, Any]:
    """Count all events anew; returns how many and how long it took.

    Args:
        quiet: no progress on standard error.

    Raises:
        BadInputError: the folder is no edge, or its store is damaged.
        NoSpaceError: the disk is full; the old books are as they were.
    """
    loaded, began = settings.load(directory), time.monotonic()
    console = Console(stderr=True)
    with (
        Store.open(directory / "store.db", durability=loaded.store.durability) as store,
        Progress(
            TextColumn("counting events"),
            BarColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,  # an error is one line, with nothing above it
            disable=quiet or not console.is_terminal,
        ) as bar,
    ):
        task = bar.add_task("", total=store.event_count())
        events = make_anew(
            store,
            HalfLives.of(loaded.neighbours),
            progress=lambda done: bar.update(task, completed=done),
        )
    return {"events": events, "seconds": round(time.monotonic() - began, 1)}
