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

from protocol.errors import UnavailableError
from simulation.bench.cohort import Cohort

_PROCESSES = Path("/proc")
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
    before = idle()
    answer = cohort.masked_update(cohort.first, values)
    most = peak()
    return {
        "parameters": parameters,
        "peers": peers,
        "before_bytes": before,
        "peak_bytes": most,
        "message_bytes": len(answer),
        "ratio": (most - before) / (4 * parameters),
    }


def idle(process: int | None = None) -> int:
    """Resident bytes of a process now, ours by default; its peak counts from here on."""
    if not _PROCESSES.exists():
        return peak(process)
    (_of(process) / "clear_refs").write_text(_FORGET_PEAK, "ascii")
    return _line("VmRSS", process)


def peak(process: int | None = None) -> int:
    """The most bytes since `idle`; elsewhere than on Linux since our start, which is the same if it was lower.

    Raises:
        UnavailableError: this system does not tell it of other processes.
    """
    if _PROCESSES.exists():
        return _line("VmHWM", process)
    if process is not None:
        raise UnavailableError("the memory of another process is read from /proc, which this system does not have")
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest


def _line(name: str, process: int | None) -> int:
    lines = (_of(process) / "status").read_text("ascii").splitlines()
    return 1024 * int(dict(line.split(":", 1) for line in lines)[name].split()[0])


def _of(process: int | None) -> Path:
    return _PROCESSES / ("self" if process is None else str(process))


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))  # noqa: T201 - to the process that started us
