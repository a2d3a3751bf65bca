"""Feeds every decoder with almost valid messages: ``python -m simulation.fuzzing --minutes 10 --seed 1``.

A finding is an input that a decoder takes though its own encoding is another, or that raises anything but a
`FederationError`. Findings are printed with their bytes, and the exit code is 1.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from protocol.errors import FederationError
from simulation.fuzzing.mutations import Rng, pick
from simulation.fuzzing.targets import Target, all_targets

_BATCH = 50
_POOL = 64
_MOST_FINDINGS = 20


@dataclass
class Trial:
    """One target and how it has fared.

    Attributes:
        pool: inputs to go on from: the samples, and some that were taken.
        findings: by what happened and where, one input each.
    """

    target: Target
    pool: list[bytes]
    tried: int = 0
    taken: int = 0
    seconds: float = 0.0
    findings: dict[str, bytes] = field(default_factory=dict)

    def run(self, rng: Rng, *, count: int) -> None:
        began = time.perf_counter()
        for _ in range(count):
            self._try(self.target.change(pick(rng, self.pool), rng), rng)
        self.seconds += time.perf_counter() - began

    def _try(self, data: bytes, rng: Rng) -> None:
        self.tried += 1
        try:
            again = self.target.take(data)
        except FederationError:
            return
        except Exception as error:  # noqa: BLE001 - whatever else comes out of a decoder is what we look for
            where = traceback.extract_tb(error.__traceback__)[-1]
            self._find(f"{type(error).__name__} in {where.filename}:{where.lineno}: {error}"[:200], data)
            return
        if again is not None and again != data:
            self._find("taken, but written otherwise", data)
            return
        self.taken += 1
        if len(self.pool) < _POOL:
            self.pool.append(data)
        elif rng.random() < 1 / _POOL:
            self.pool[int(rng.integers(len(self.target.samples), _POOL))] = data

    def _find(self, what: str, data: bytes) -> None:
        if len(self.findings) < _MOST_FINDINGS and what not in self.findings:
            self.findings[what] = data

    def line(self) -> str:
        return f"{self.target.name:30} {self.tried:>10,} tried {self.taken:>9,} taken {self.seconds:7.1f} s"


def fuzz(*, seconds: float, seed: int, only: str = "") -> list[Trial]:
    """Try all targets in turn, each for the same share of the time.

    Args:
        only: part of the names of the targets to try.
    """
    rng = np.random.default_rng(seed)
    trials = [Trial(target, list(target.samples)) for target in all_targets() if only in target.name]
    for trial in trials:
        for sample in trial.target.samples:  # what is valid has to be taken, or nothing is tried at all
            again = trial.target.take(sample)
            assert again is None or again == sample, trial.target.name
    end = time.monotonic() + seconds
    while trials and time.monotonic() < end:
        min(trials, key=lambda trial: trial.seconds).run(rng, count=_BATCH)
    return trials


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="simulation.fuzzing", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a target's name")
    asked = parser.parse_args(argv)
    trials = fuzz(seconds=60 * asked.minutes, seed=asked.seed, only=asked.only)
    for trial in trials:
        sys.stdout.write(trial.line() + "\n")
    findings = [(trial.target.name, what, data) for trial in trials for what, data in trial.findings.items()]
    for name, what, data in findings:
        sys.stdout.write(f"FOUND {name}: {what}\n      {data.hex()}\n")
    tried, seconds = sum(trial.tried for trial in trials), sum(trial.seconds for trial in trials)
    sys.stdout.write(f"{tried:,} inputs, {len(trials)} targets, {seconds:.0f} s, {len(findings)} findings\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
