"""Fitted weights on disk: what each voice counts, on how many examples that was fitted, and what it was worth."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from edge import durable
from protocol import canonical
from protocol.errors import BadInputError, MalformedMessageError

_FORMAT = 1


class Fitted(NamedTuple):
    """What a file holds.

    Attributes:
        weights: by name of the voice.
        examples: on so many they were fitted.
        ndcg_before: NDCG@10 of the defaults on examples held out from the fit.
        ndcg_after: the same of the weights.
    """

    weights: Mapping[str, float]
    examples: int
    ndcg_before: float
    ndcg_after: float


def save(path: Path, fitted: Fitted, *, of: str) -> None:
    """Write a file, whole or not at all.

    Args:
        of: what the examples are, as the file says it.

    Raises:
        NoSpaceError: the disk is full.
    """
    figures = {of: fitted.examples, "ndcg_before": fitted.ndcg_before, "ndcg_after": fitted.ndcg_after}
    durable.write(path, canonical.encode({"format": _FORMAT, "weights": dict(fitted.weights), **figures}))


def read(path: Path, *, of: str, voices: Collection[str]) -> Fitted:
    """Weights saved before.

    Raises:
        BadInputError: there are none, they cannot be understood, or they are of voices that nobody has.
    """
    try:
        match canonical.decode(path.read_bytes()):
            case {
                "format": 1,
                "weights": dict(weights),
                "ndcg_before": int() | float() as before,
                "ndcg_after": int() | float() as after,
                **figures,
            } if set(weights) <= set(voices):
                numbers = {str(name): float(value) for name, value in weights.items()}
                return Fitted(numbers, _count(figures[of]), float(before), float(after))
    except (OSError, MalformedMessageError, KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"{path} holds no weights: {error}") from error
    raise BadInputError(f"{path} holds no weights of format {_FORMAT}")


def _count(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("the number of examples is none")
    return value
