"""`hanse-edge import`: a file into this edge's store, with a progress bar for a person who waits."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from edge import settings
from edge.records import importing
from edge.records.store import Store
from protocol.errors import BadInputError


def run(what: str, file: Path, *, directory: Path, rejects: Path | None, quiet: bool) -> dict[str, Any]:
    """Import events or items.

    Args:
        what: ``events`` or ``items``.
        rejects: where refused rows go; ``rejects-<file>.jsonl`` in the edge's folder by default.

    Returns:
        rows, added, duplicates, rejected, and where the rejects are.

    Raises:
        BadInputError: no such file, or it cannot be read.
        NoSpaceError: the disk is full.
    """
    durability = settings.load(directory).store.durability
    if not file.is_file():
        raise BadInputError(f"there is no file {file}")
    refused = rejects or directory / f"rejects-{file.stem}.jsonl"
    console = Console(stderr=True)
    with (
        Store.open(directory / "store.db", durability=durability) as store,
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,  # an error is one line, with nothing above it
            disable=quiet or not console.is_terminal,
        ) as bar,
    ):
        task = bar.add_task(f"importing {what}", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        now_ms = time.time_ns() // 1_000_000
        if what == "items":
            outcome = importing.import_items(store, file, rejects=refused, now_ms=now_ms, progress=progress)
        else:
            outcome = importing.import_events(store, file, rejects=refused, now_ms=now_ms, progress=progress)
    return {**asdict(outcome), "rejects": str(refused) if outcome.rejected else None}
