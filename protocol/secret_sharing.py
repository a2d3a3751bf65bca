"""Split a seed so that any t edges can rebuild it and fewer learn nothing (Shamir, SPEC 5).

A secret is the value at 0 of a polynomial of degree t - 1 over the integers modulo a prime; share number x is its value
at x. All numbers are 32 bytes, little-endian, below the prime: one value, one encoding.

Source:
    A. Shamir, How to share a secret, CACM 1979. https://doi.org/10.1145/359168.359176
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import Self

from protocol.errors import MalformedMessageError

PRIME = 2**256 - 189  # the largest prime of 256 bits
SHARE_BYTES = 32


def split(secret: bytes, *, threshold: int, shares: int, coefficients: bytes) -> list[bytes]:
    """The shares numbered 1 to `shares`, in this order.

    Args:
        secret: 32 bytes, as a number below `PRIME`: all but 189 of 2**256 are.
        threshold: t, how many shares rebuild the secret, 1 to `shares`.
        shares: how many to make.
        coefficients: 32 * (t - 1) uniformly random bytes, used for this secret only.

    Raises:
        ValueError: a secret that cannot be split, a threshold out of range, or coefficients for another threshold.
    """
    if not 1 <= threshold <= shares:
        raise ValueError(f"{threshold} of {shares} shares")
    if len(coefficients) != SHARE_BYTES * (threshold - 1):
        raise ValueError(f"{len(coefficients)} bytes of coefficients for a threshold of {threshold}")
    if len(secret) != SHARE_BYTES or _number(secret) >= PRIME:
        raise ValueError("not a secret of 32 bytes below the prime")
    # Reduced coefficients differ from uniform ones by less than 2**-248: nobody can tell.
    ends = range(len(coefficients), 0, -SHARE_BYTES)
    falling = [_number(coefficients[end - SHARE_BYTES : end]) for end in ends]
    falling.append(_number(secret))
    return [_at(x, falling).to_bytes(SHARE_BYTES, "little") for x in range(1, shares + 1)]


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _at(x: int, falling: Sequence[int]) -> int:
    """The polynomial's value at a small x, highest coefficient first; one reduction at the end is cheaper than many."""
    value = 0
    for coefficient in falling:
        value = value * x + coefficient
    return value % PRIME


@dataclass(frozen=True, slots=True)
class Recombination:
    """How the shares of one set of edges make up a secret: computed once, used for many secrets.

    Attributes:
        weights: Lagrange's weights at 0, one a share, in the order of the numbers.
    """

    weights: tuple[int, ...]

    @classmethod
    def at(cls, numbers: Sequence[int]) -> Self:
        """For the shares with these numbers, distinct and from 1 on, in this order.

        Raises:
            ValueError: a number repeats or is not the number of a share.
        """
        if not numbers or len(set(numbers)) != len(numbers) or not all(1 <= x < PRIME for x in numbers):
            raise ValueError(f"not distinct numbers of shares: {list(numbers)}")
        return cls(tuple(_weight(x, numbers) for x in numbers))

    def combine(self, shares: Sequence[bytes]) -> bytes:
        """The 32 bytes that these shares stand for; wrong shares give wrong bytes, so check them against a commitment.

        Args:
            shares: 32 bytes for each number, in the order of the numbers.

        Raises:
            MalformedMessageError: a share is not a number below `PRIME` in 32 bytes.
            ValueError: not one share for each number.
        """
        if len(shares) != len(self.weights):
            raise ValueError(f"{len(shares)} shares for {len(self.weights)} numbers")
        if any(len(share) != SHARE_BYTES for share in shares):
            raise MalformedMessageError("a share that is not 32 bytes long")
        values = [int.from_bytes(share, "little") for share in shares]
        if max(values) >= PRIME:
            raise MalformedMessageError("a share that is not below the prime")
        secret: int = sum(map(mul, self.weights, values)) % PRIME
        return secret.to_bytes(SHARE_BYTES, "little")


def _weight(x: int, numbers: Sequence[int]) -> int:
    """The product of ``other / (other - x)`` over all other numbers."""
    others = [other for other in numbers if other != x]
    below = math.prod(other - x for other in others)
    return math.prod(others) * pow(below, -1, PRIME) % PRIME
