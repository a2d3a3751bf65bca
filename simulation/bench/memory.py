"""``python -m simulation.bench.memory``: how much memory an edge needs beside its values to mask them.

A process of its own, so that nothing else has a part in it.
"""

import gc
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from simulation.bench.cohort import Cohort

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"


def at_an_edge(*, parameters: int, peers: int) -> dict[str, Any]:
    """Measure in a child process.

    Returns:
        bytes before, the most bytes meanwhile, and their difference in units of the vector of 4-byte words.
    """
    asked = json.dumps({"parameters": parameters, "peers": peers})
    command = [sys.executable, "-m", "simulation.bench.memory", asked]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    measured: dict[str, Any] = json.loads(told)
    return measured


def measure(*, parameters: int, peers: int) -> dict[str, Any]:
    """Measure in this process: resident memory, from just before a masked update is made until its bytes are there."""
    small = Cohort.of(peers + 1, parameters=1000)
    small.masked_update(small.first, small.values())  # what is loaded at first use is not the vector's
    cohort = Cohort.of(peers + 1, parameters=parameters)
    values = cohort.values()
    gc.collect()
    before = _resident()
    _forget_peak()
    answer = cohort.masked_update(cohort.first, values)
    peak = _peak()
    return {
        "parameters": parameters,
        "peers": peers,
        "before_bytes": before,
        "peak_bytes": peak,
        "message_bytes": len(answer),
        "ratio": (peak - before) / (4 * parameters),
    }


def _resident() -> int:
    return _line("VmRSS") if _STATUS.exists() else _peak()


def _forget_peak() -> None:
    if _CLEAR.exists():
        _CLEAR.write_text(_FORGET_PEAK, "ascii")


def _peak() -> int:
    """The most since `_forget_peak`; elsewhere than on Linux since the start, which is the same if it was lower."""
    if _STATUS.exists():
        return _line("VmHWM")
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest


def _line(name: str) -> int:
    lines = dict(line.split(":", 1) for line in _STATUS.read_text("ascii").splitlines())
    return 1024 * int(lines[name].split()[0])


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))  # noqa: T201 - to the process that started us
