"""What `doctor` finds, on either side: what was looked at, what is wrong, what mends it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        problem: empty when all is well.
        fix: what to do about the problem.
    """

    check: str
    problem: str = ""
    fix: str = ""

    @property
    def well(self) -> bool:
        return not self.problem
