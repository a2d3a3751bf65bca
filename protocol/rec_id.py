"""The name of one answer: from it anybody tells the release, and nobody the site or the user (SPEC 9.12)."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from struct import Struct

from protocol.errors import BadInputError

RANDOM_BYTES = 8
PREFIX_BYTES = 4

_HEAD = Struct(f">I{PREFIX_BYTES}s")
_LENGTH = _HEAD.size + RANDOM_BYTES
_MOST = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecId:
    """What an answer's name says.

    Attributes:
        version: of the release that answered; 0: before the first.
        sha256_prefix: first 4 bytes of the bundle's digest, hexadecimal.
    """

    version: int
    sha256_prefix: str


def make(*, version: int, sha256: str, drawn: bytes) -> str:
    """22 characters that are safe in a URL.

    Args:
        version: of the release that answers; 0 before the first.
        sha256: the bundle's digest, hexadecimal; empty before the first.
        drawn: 8 random bytes.
    """
    if len(drawn) != RANDOM_BYTES or not 0 <= version <= _MOST:
        raise ValueError(f"a rec_id is made of a version below 2^32 and {RANDOM_BYTES} random bytes")
    prefix = bytes.fromhex(sha256)[:PREFIX_BYTES].ljust(PREFIX_BYTES, b"\0")
    return urlsafe_b64encode(_HEAD.pack(version, prefix) + drawn).rstrip(b"=").decode("ascii")


def parse(text: str) -> RecId:
    """Read an answer's name.

    Raises:
        BadInputError: no edge has made it.
    """
    try:
        raw = urlsafe_b64decode(text.encode("ascii") + b"==")
    except (UnicodeEncodeError, binascii.Error):
        raw = b""
    if len(raw) != _LENGTH or urlsafe_b64encode(raw).rstrip(b"=").decode("ascii") != text:
        raise BadInputError(f"{text!r} is not a rec_id", advice="take it from an answer's field rec_id")
    version, prefix = _HEAD.unpack(raw[: _HEAD.size])
    return RecId(version=version, sha256_prefix=prefix.hex())
