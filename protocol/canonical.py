"""Canonical JSON: one value, one encoding, so that a signature or a digest means one thing (SPEC 1.1)."""

import json
from typing import Any

from protocol.errors import MalformedMessageError


def encode(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, no NaN or infinity.

    Raises:
        MalformedMessageError: JSON has no such value.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise MalformedMessageError(f"cannot be written as JSON: {error}") from error


def decode(data: bytes) -> Any:
    """Decode, refusing anything `encode` would not have written.

    Raises:
        MalformedMessageError: not JSON, or JSON written in another way (spaces, order, repeated keys).
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError(f"not JSON: {error}") from error
    if encode(value) != data:
        raise MalformedMessageError("JSON, but not in its canonical form")
    return value
