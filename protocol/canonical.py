"""Canonical JSON: one value, one encoding, so that a signature or a digest means one thing (SPEC 1.1)."""

import json
from typing import Any

from protocol.errors import MalformedMessageError

LARGEST_INTEGER = 2**53 - 1
"""What every reader of JSON holds exactly (RFC 7493, 2.2), and every database."""


def encode(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, no NaN or infinity.

    Raises:
        MalformedMessageError: JSON has no such value.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise MalformedMessageError(f"cannot be written as JSON: {error}") from error


def decode(data: bytes) -> Any:
    """Decode, refusing anything `encode` would not have written.

    Raises:
        MalformedMessageError: not JSON, or JSON written in another way (spaces, order, repeated keys).
    """
    try:
        value = json.loads(data, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError(f"not JSON: {error}") from error
    if encode(value) != data:
        raise MalformedMessageError("JSON, but not in its canonical form")
    return value


def _integer(text: str) -> int:
    value = int(text) if len(text) <= len(str(-LARGEST_INTEGER)) else LARGEST_INTEGER + 1
    if abs(value) > LARGEST_INTEGER:
        raise ValueError(f"a number of more than {LARGEST_INTEGER.bit_length()} bits")
    return value
