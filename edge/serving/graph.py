"""What an ONNX file refers to outside itself, found without loading it: a walk over protobuf's wire format.

A graph may keep tensors in other files, at any path it likes. Ours keeps one, the item vectors, in the file beside it
(SPEC 9.14); whatever else it asks for is refused before ONNX Runtime sees it. Large tensors are stepped over, not read.
"""

from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from protocol.errors import UntrustedReleaseError

MOST_BYTES: Final = 1 << 30
"""Largest graph. Protobuf itself ends at 2 GiB."""

# Message -> field -> message in it, for every road on which a tensor can be reached (onnx.proto3, IR version 13).
ROADS: Final = MappingProxyType(
    {
        "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
        "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
        "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
        "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
        "NodeProto": {5: "AttributeProto"},
        "AttributeProto": {
            5: "TensorProto",
            6: "GraphProto",
            10: "TensorProto",
            11: "GraphProto",
            22: "SparseTensorProto",
            23: "SparseTensorProto",
        },
        "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    }
)
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_DEEPEST = 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10


def external_files(graph: bytes) -> list[dict[str, str]]:
    """What each tensor that lies outside says of its place: ``location`` and, it may be, ``offset`` and ``length``.

    Raises:
        UntrustedReleaseError: too large, nested too deeply, or no ONNX file.
    """
    if len(graph) > MOST_BYTES:
        raise UntrustedReleaseError(f"a graph of {len(graph)} bytes is too large")
    try:
        return list(_external(memoryview(graph), "ModelProto", _DEEPEST))
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise UntrustedReleaseError(f"not an ONNX file: {error}") from error


def check_external(graph: bytes, *, file: str, size: int) -> None:
    """Does a graph keep at most one tensor outside, the whole of this file beside it?

    Args:
        file: the one name that may be given.
        size: the file's, in bytes.

    Raises:
        UntrustedReleaseError: it asks for another file or another part, or is no ONNX file.
    """
    outside = external_files(graph)
    for place in outside:
        if place.get("location") != file:
            raise UntrustedReleaseError(
                f"the graph asks for the file {place.get('location', '')!r}, {file} is all it may"
            )
        if place.get("offset", "0") != "0" or place.get("length", str(size)) != str(size):
            raise UntrustedReleaseError(f"the graph asks for a part of {file} that is not the whole")
    if len(outside) > 1:
        raise UntrustedReleaseError(f"{len(outside)} tensors of the graph lie in {file}, one may")


def _external(message: memoryview, kind: str, depth: int) -> Iterator[dict[str, str]]:
    if not depth:
        raise UntrustedReleaseError("the graph is nested too deeply")
    if kind == "TensorProto":
        yield from _place(message)
        return
    roads = ROADS[kind]
    for field, value in _fields(message):
        inner = roads.get(field)
        if inner is not None and isinstance(value, memoryview):
            yield from _external(value, inner, depth - 1)


def _place(tensor: memoryview) -> Iterator[dict[str, str]]:
    place: dict[str, str] = {}
    outside = False
    for field, value in _fields(tensor):
        if field == _DATA_LOCATION and value == 1:
            outside = True
        if field == _EXTERNAL_DATA and isinstance(value, memoryview):
            outside = True
            parts = {number: bytes(part).decode() for number, part in _fields(value) if isinstance(part, memoryview)}
            if parts.get(1, "") in place:
                raise ValueError("a tensor says twice where it lies")
            place[parts.get(1, "")] = parts.get(2, "")
    if outside:
        yield place


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Number and value of each field; a fixed-width one comes as 0, nobody asks for it."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield field, value
        elif wire == _BYTES:
            length, at = _varint(message, at)
            if length > len(message) - at:
                raise ValueError("it ends too early")
            yield field, message[at : at + length]
            at += length
        elif wire in {_FIXED64, _FIXED32}:
            at += 8 if wire == _FIXED64 else 4
            yield field, 0
        else:
            raise ValueError(f"unknown wire type {wire}")
    if at > len(message):
        raise ValueError("it ends too early")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _LONGEST_VARINT, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise ValueError("a number is too long")
