"""Valid messages, changed: bytes, JSON values, and what a signature is put under."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from protocol import canonical
from protocol.errors import MalformedMessageError

Rng = np.random.Generator
T = TypeVar("T")
_LENGTHS = (0, 1, 2, 0x7F, 0xFF, 0x100, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_MOST_CHANGES = 3
_LONGEST_INSERT = 64
_FRONT = 80
_DEEPEST = 1100
_STRANGE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    255,
    2**31,
    2**53 - 1,
    2**53,
    2**64,
    -(2**63),
    10**400,
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.1,
    1e308,
    5e-324,
    2.0**60,
    "",
    " ",
    "a",
    "A" * 64,
    "00",
    "00" * 32,
    "zz",
    "\x00",
    "é",
    "../x",
    "x" * 300,
    [],
    {},
    [[]],
    [None],
    {"": None},
    ["bergen"],
    ["bergen", "bruges", "luebeck", "visby"],
)


def pick(rng: Rng, among: Sequence[T]) -> T:
    return among[int(rng.integers(len(among)))]


def happens(rng: Rng, *, one_in: int) -> bool:
    return int(rng.integers(one_in)) == 0


def changed_bytes(data: bytes, rng: Rng, *, others: Sequence[bytes] = ()) -> bytes:
    """The same bytes with one to three changes of any kind, cut short, prolonged, or crossed with another message."""
    body = bytearray(data)
    for _ in range(int(rng.integers(1, _MOST_CHANGES + 1))):
        change: Callable[[bytearray, Rng], None] = pick(rng, _CHANGES)
        change(body, rng)
    if others and happens(rng, one_in=20):
        other = pick(rng, others)
        cut = int(rng.integers(len(body) + 1))
        return bytes(body[:cut]) + other[min(cut, len(other)) :]
    return bytes(body)


def _place(body: bytearray, rng: Rng) -> int:
    """Somewhere; more often near the front, where counts and names stand, or at the end."""
    if not body:
        return 0
    if happens(rng, one_in=20):
        return len(body) - 1
    return int(rng.integers(min(len(body), _FRONT) if happens(rng, one_in=2) else len(body)))


def _flip(body: bytearray, rng: Rng) -> None:
    if body:
        body[_place(body, rng)] ^= 1 << int(rng.integers(8))


def _set(body: bytearray, rng: Rng) -> None:
    if body:
        body[_place(body, rng)] = int(rng.integers(256))


def _cut(body: bytearray, rng: Rng) -> None:
    del body[_place(body, rng) :]


def _drop(body: bytearray, rng: Rng) -> None:
    at = _place(body, rng)
    del body[at : at + int(rng.integers(1, _LONGEST_INSERT))]


def _insert(body: bytearray, rng: Rng) -> None:
    at = _place(body, rng)
    body[at:at] = rng.bytes(int(rng.integers(1, _LONGEST_INSERT)))


def _append(body: bytearray, rng: Rng) -> None:
    body += rng.bytes(int(rng.integers(1, 5)))


def _repeat(body: bytearray, rng: Rng) -> None:
    at = _place(body, rng)
    part = body[at : at + int(rng.integers(1, _LONGEST_INSERT))]
    body[at:at] = part


def _length(body: bytearray, rng: Rng) -> None:
    """A count where one may stand, as ours are written."""
    at = _place(body, rng)
    body[at : at + 4] = int(pick(rng, _LENGTHS)).to_bytes(4, "little")


def _swap(body: bytearray, rng: Rng) -> None:
    size = int(rng.integers(1, _LONGEST_INSERT))
    one, two = sorted((_place(body, rng), _place(body, rng)))
    if one + size <= two and two + size <= len(body):
        body[one : one + size], body[two : two + size] = body[two : two + size], body[one : one + size]


_CHANGES: tuple[Callable[[bytearray, Rng], None], ...] = (
    _flip,
    _flip,
    _set,
    _cut,
    _drop,
    _insert,
    _append,
    _repeat,
    _length,
    _swap,
)


def changed_value(value: Any, rng: Rng) -> Any:
    """A JSON value with something in it changed, given away, added or renamed; the original stays as it is."""
    whole = [json.loads(json.dumps(value))]
    places = list(_places(whole))
    for _ in range(int(rng.integers(1, _MOST_CHANGES))):
        holder, key = pick(rng, places)
        if (isinstance(holder, list) and key < len(holder)) or (isinstance(holder, dict) and key in holder):
            _change(holder, key, rng)
    return whole[0] if whole else None


def _places(holder: Any) -> list[tuple[Any, Any]]:
    keys = range(len(holder)) if isinstance(holder, list) else list(holder)
    found = [(holder, key) for key in keys]
    for key in keys:
        if isinstance(holder[key], list | dict):
            found += _places(holder[key])
    return found


def _change(holder: Any, key: Any, rng: Rng) -> None:
    if happens(rng, one_in=10):
        del holder[key]
    elif happens(rng, one_in=10):
        _double(holder, key, rng)
    elif happens(rng, one_in=2):
        holder[key] = pick(rng, _STRANGE)
    else:
        holder[key] = _otherwise(holder[key], rng)


def _double(holder: Any, key: Any, rng: Rng) -> None:
    if isinstance(holder, dict):
        holder[pick(rng, ("more", "", "edge", "Edge", "signature", key + " "))] = holder[key]
    else:
        holder.insert(key, holder[key])


def _otherwise(value: Any, rng: Rng) -> Any:
    """Almost the same: another way to write it, or a neighbour."""
    if isinstance(value, bool) or value is None:
        return int(bool(value))
    if isinstance(value, int):
        return pick(rng, [value + 1, value - 1, -value, float(min(value, 2**60)), str(value), value == 1])
    if isinstance(value, float):
        value = value if math.isfinite(value) else 0.0
        near = [value * 2, -value, int(value), str(value), float(np.nextafter(value, 9e9))]
        return pick(rng, near)
    if isinstance(value, str):
        at = int(rng.integers(len(value) + 1))
        ways = (value.upper(), " " + value, value[:at] + " " + value[at:], value[:at], value + "0", value[::-1])
        return pick(rng, ways)
    if isinstance(value, list):
        return pick(rng, [value[::-1], value[1:], value * 2, {}, value[:1]])
    return pick(rng, [[value], list(value), dict(list(value.items())[1:])])


def written(value: Any, rng: Rng) -> bytes:
    """A value as JSON: mostly in its canonical form, now and then in another, rarely one inside a thousand others."""
    try:
        data = canonical.encode(value)
    except MalformedMessageError:
        return b"{}"
    if happens(rng, one_in=50):
        return json.dumps(value).encode()
    if happens(rng, one_in=50):
        at = int(rng.integers(len(data) + 1))
        return data[:at] + pick(rng, (b" ", b"\n", b"\xef\xbb\xbf", b"\\u0061", b",", b"\x00")) + data[at:]
    if happens(rng, one_in=100):
        depth = int(rng.integers(1, _DEEPEST))
        return b"[" * depth + pick(rng, (b"", data)) + b"]" * depth
    return data
