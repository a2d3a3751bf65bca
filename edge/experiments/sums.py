"""What one arm has brought, in a form that adds up: over visitors, over days, over sites.

Everything that statistics say is computed from these few whole numbers and from nothing else, so that a federation can
add them in a secure sum later and the same code reads the total. A unit's value is cut at a cap before it counts, so
one unit moves a sum by a known amount at most (docs/decisions/0021).
"""

from dataclasses import dataclass
from typing import Final, Self

STEPS: Final = 50_000
"""A value at its cap counts so many steps: 16 bits a unit, 32 bits its square; 2 million units stay below 2**53."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSums:
    """One metric of one arm.

    Attributes:
        units: users or sessions that were exposed.
        total: sum of their values, in steps.
        squares: sum of the squares of their values, in steps squared.
        hits: units whose value is above 0.
    """

    units: int = 0
    total: int = 0
    squares: int = 0
    hits: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(
            units=self.units + other.units,
            total=self.total + other.total,
            squares=self.squares + other.squares,
            hits=self.hits + other.hits,
        )

    @property
    def mean(self) -> float:
        """In steps; 0 without units."""
        return self.total / self.units if self.units else 0.0

    @property
    def variance(self) -> float:
        """Of one unit's value, unbiased, in steps squared; 0 below two units."""
        if self.units <= 1:
            return 0.0
        # Whole numbers up to the division: a difference of two large floats would lose what matters.
        return (self.units * self.squares - self.total**2) / (self.units * (self.units - 1))
