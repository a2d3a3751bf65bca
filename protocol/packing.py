"""Words <-> bytes: of each word only the bits of its segment travel (SPEC 4).

Each segment starts at a whole byte. Word i of a segment takes its bits from ``i * bits`` on, bit 0 being the lowest of
the first byte. Eight words fill ``bits`` bytes, whatever the width: the unit in which we work.
"""

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from protocol.errors import MalformedMessageError
from protocol.fixed_point import WORD_BITS, Layout, Segment, words_of

_LANE_BITS = 64
_CHUNK_WORDS = 1 << 15  # eight of these chunks as uint64 lanes stay in the second-level cache


def packed_size(layout: Layout) -> int:
    """How many bytes a vector of this layout takes."""
    return sum(_size(segment) for segment in layout)


def _size(segment: Segment) -> int:
    return -(-segment.length * segment.bits // 8)


def pack(words: NDArray[np.uint32], *, layout: Layout) -> bytes:
    """Write a vector; bits above the width of a segment are dropped.

    Args:
        words: uint32[d].
        layout: the announced segments.

    Raises:
        ValueError: the vector has another length than the layout.
    """
    if len(words) != words_of(layout):
        raise ValueError(f"{len(words)} words, but the layout has {words_of(layout)}")
    packed = io.BytesIO()  # hands its bytes over without a copy
    for segment, part in _parts(words, layout):
        for start in range(0, len(part), _CHUNK_WORDS):
            packed.write(_packed(part[start : start + _CHUNK_WORDS], segment.bits).data)
    return packed.getvalue()


def unpack(data: bytes, *, layout: Layout) -> NDArray[np.uint32]:
    """Read a vector, refusing anything that `pack` would not have written.

    Returns:
        uint32[d], bits above the width of a segment zero.

    Raises:
        MalformedMessageError: another length, or bits behind the last word of a segment.
    """
    if len(data) != packed_size(layout):
        raise MalformedMessageError(f"{len(data)} bytes of words, but the layout takes {packed_size(layout)}")
    words = np.empty(words_of(layout), dtype=np.uint32)
    start = 0
    for segment, part in _parts(words, layout):
        packed = np.frombuffer(data, np.uint8, count=_size(segment), offset=start)
        _check_padding(packed, segment)
        for first in range(0, segment.length, _CHUNK_WORDS):
            chunk = part[first : first + _CHUNK_WORDS]
            at = first // 8 * segment.bits
            _unpack(packed[at : at - (-len(chunk) * segment.bits // 8)], segment.bits, into=chunk)
        start += _size(segment)
    return words


def _parts(words: NDArray[np.uint32], layout: Layout) -> Iterator[tuple[Segment, NDArray[np.uint32]]]:
    start = 0
    for segment in layout:
        yield segment, words[start : start + segment.length]
        start += segment.length


def _check_padding(packed: NDArray[np.uint8], segment: Segment) -> None:
    used = segment.length * segment.bits % 8
    if used and packed[-1] >> used:
        raise MalformedMessageError(f"bits behind the last word of segment {segment.name!r}")


def _packed(words: NDArray[np.uint32], bits: int) -> NDArray[np.uint8]:
    if bits % 8 == 0:
        return _packed_in_bytes(words, bits // 8)
    groups = np.zeros((-(-len(words) // 8), 8), dtype=np.uint64)
    groups.reshape(-1)[: len(words)] = words
    groups &= np.uint64(2**bits - 1)
    lanes = np.zeros((len(groups), WORD_BITS * 8 // _LANE_BITS), dtype="<u8")
    for i in range(8):
        lane, shift = divmod(i * bits, _LANE_BITS)
        lanes[:, lane] |= groups[:, i] << np.uint64(shift)
        if shift + bits > _LANE_BITS:
            lanes[:, lane + 1] |= groups[:, i] >> np.uint64(_LANE_BITS - shift)
    return lanes.view(np.uint8)[:, :bits].reshape(-1)[: -(-len(words) * bits // 8)]


def _packed_in_bytes(words: NDArray[np.uint32], width: int) -> NDArray[np.uint8]:
    whole = words.astype("<u4", copy=False).view(np.uint8)
    packed = np.empty(len(words) * width, dtype=np.uint8)
    for byte in range(width):
        packed[byte::width] = whole[byte::4]
    return packed


def _unpack(packed: NDArray[np.uint8], bits: int, *, into: NDArray[np.uint32]) -> None:
    if bits % 8 == 0:
        _unpack_from_bytes(packed, bits // 8, into=into)
        return
    padded = np.zeros((-(-len(into) // 8), bits), dtype=np.uint8)
    padded.reshape(-1)[: len(packed)] = packed
    lanes = np.zeros((len(padded), WORD_BITS * 8 // _LANE_BITS), dtype="<u8")
    lanes.view(np.uint8)[:, :bits] = padded
    groups = np.empty((len(padded), 8), dtype=np.uint32)
    for i in range(8):
        lane, shift = divmod(i * bits, _LANE_BITS)
        word = lanes[:, lane] >> np.uint64(shift)
        if shift + bits > _LANE_BITS:
            word |= lanes[:, lane + 1] << np.uint64(_LANE_BITS - shift)
        groups[:, i] = word & np.uint64(2**bits - 1)
    into[:] = groups.reshape(-1)[: len(into)]


def _unpack_from_bytes(packed: NDArray[np.uint8], width: int, *, into: NDArray[np.uint32]) -> None:
    whole = np.zeros(len(into), dtype="<u4")
    for byte in range(width):
        whole.view(np.uint8)[byte::4] = packed[byte::width]
    into[:] = whole
