"""Clocks that are fair to both sides: one core, taken in turns, medians of processor time."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median


@contextmanager
def one_core() -> Iterator[None]:
    """Stay on one core, and keep children there, where the system knows how."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def in_turns(sides: Mapping[str, Callable[[], object]], *, repetitions: int) -> dict[str, float]:
    """The median seconds of each side, after one turn that does not count; each turn runs every side once.

    Processor time of the whole process: neighbours on the machine stretch the wall clock, but not this one.
    """
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repetitions + 1):
        for name, work in sides.items():
            began = time.process_time()
            work()
            seconds = time.process_time() - began
            if turn:
                taken[name].append(seconds)
    return {name: median(seconds) for name, seconds in taken.items()}
