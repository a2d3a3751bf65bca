"""A server process that stays on one core, what it spends there, and what it weighs."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from protocol.errors import UnavailableError
from simulation.processes import Child

SERVER_CORE, CLIENT_CORE = 0, 1
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_START_SECONDS = 120.0
_POLL_SECONDS = 0.01
_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


class Pinned:
    """One server."""

    def __init__(self, child: Child, *, port: int, start_seconds: float) -> None:
        self.child = child
        self.port = port
        self.start_seconds = start_seconds

    def cpu_seconds(self) -> float:
        """Processor time of this process so far, in user and system mode."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text("ascii").rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_mb(self) -> float:
        """Resident memory now, in MB of a million bytes."""
        for line in Path(f"/proc/{self.child.pid}/status").read_text("ascii").splitlines():
            if line.startswith("VmRSS:"):
                return 1024 * int(line.split()[1]) / 1e6
        raise UnavailableError(f"{self.child.name} is gone")


@contextmanager
def on_its_core(
    name: str,
    command: Sequence[str],
    *,
    port: int,
    log: Path,
    environment: Mapping[str, str] | None = None,
    good: Mapping[str, object] | None = None,
    key: str = "",
) -> Iterator[Pinned]:
    """Start a server, wait for its first good answer, end it.

    Args:
        good: body of a recommendation that must be answered well; None: any answer to `/healthz` is good.
    """
    pinned = ["taskset", "-c", str(SERVER_CORE), *command]
    began = time.monotonic()
    child = Child(name, pinned, log=log, environment=_ENVIRONMENT | dict(environment or {}))
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0, trust_env=False) as client:
            while not _answers(client, good, key):
                child.check()
                if time.monotonic() > began + _START_SECONDS:
                    raise UnavailableError(f"{name} gives no good answer", advice=f"see {log}")
                time.sleep(_POLL_SECONDS)
        yield Pinned(child, port=port, start_seconds=time.monotonic() - began)
    finally:
        child.stop()


def _answers(client: httpx.Client, good: Mapping[str, object] | None, key: str) -> bool:
    try:
        if good is None:
            return client.get("/healthz").is_success
        answer = client.post("/v1/recommendations", json=good, headers={"Authorization": f"Bearer {key}"})
        return answer.is_success and not answer.json()["degraded"]
    except httpx.TransportError:
        return False


@contextmanager
def here(core: int = CLIENT_CORE) -> Iterator[None]:
    """Keep this process on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
