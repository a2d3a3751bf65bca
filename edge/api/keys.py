"""API keys: what each is for, how often it may ask, until when. The edge knows their SHA-256 only.

A key is 192 random bits, so one round of SHA-256 is enough: what makes a slow hash necessary is that people choose
passwords that can be guessed. It is looked up by its digest, in a dict. That takes as long for a key that nearly fits
as for one that does not: who would choose keys by the first bytes of their digests would have to invert SHA-256.
"""

import fcntl
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any, Self

import orjson
import structlog

from edge import durable
from edge.api.rate import TokenBucket
from protocol.errors import BadInputError, FederationError

FILE = Path("keys") / "api-keys"
_RANDOM_BYTES = 24
_DIGEST_BYTES = 32
_LONGEST_LABEL = 64
_LONGEST_KEY = 512
_FIELDS = frozenset({"sha256", "label", "scopes", "created", "expires", "rate", "burst"})
_log = structlog.get_logger(__name__)


class Permission(StrEnum):
    """What an API key may be for."""

    QUERY = "query"
    INGEST = "ingest"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """All that is kept of one key.

    Attributes:
        digest: SHA-256 of the key, 32 bytes.
        label: who it is for; stands in the access log, so it names a program and no person.
        created: UTC; None where an older version wrote the line.
        expires: UTC; None: never.
        rate: requests a second; None: no limit.
        burst: requests at once after a quiet while.
    """

    digest: bytes
    label: str
    scopes: frozenset[Permission]
    created: datetime | None = None
    expires: datetime | None = None
    rate: float | None = None
    burst: int = 1

    def __post_init__(self) -> None:
        if not self.scopes:
            raise BadInputError(f"key {self.label} would be for nothing", advice="--scope query, ingest or admin")
        if len(self.digest) != _DIGEST_BYTES:
            raise BadInputError("the hash of an API key has 64 hex digits", advice="make one with hanse-edge key")
        if not self.label or len(self.label) > _LONGEST_LABEL or not self.label.isprintable():
            raise BadInputError(f"a key's label is a line of 1 to {_LONGEST_LABEL} characters")
        if self.rate is not None and not (isfinite(self.rate) and self.rate > 0):
            raise BadInputError(f"{self.rate} requests a second is no rate", advice="give a number above 0")
        if self.burst < 1:
            raise BadInputError(f"a burst of {self.burst} lets nobody in", advice="give 1 or more")

    def to_line(self) -> bytes:
        said = {
            "sha256": self.digest.hex(),
            "label": self.label,
            "scopes": sorted(self.scopes),
            "created": self.created,
            "expires": self.expires,
            "rate": self.rate,
            "burst": self.burst,
        }
        return orjson.dumps(said, option=orjson.OPT_UTC_Z | orjson.OPT_OMIT_MICROSECONDS) + b"\n"

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Read one line; those of older versions are `hash label`, and were for queries and events.

        Raises:
            BadInputError: it is neither.
        """
        try:
            if line.startswith("{"):
                return cls(**_fields(orjson.loads(line)))
            digest, _, label = line.partition(" ")
            scopes = frozenset({Permission.QUERY, Permission.INGEST})
            label = "".join(filter(str.isprintable, " ".join(label.split())))[:_LONGEST_LABEL]  # was not checked then
            return cls(digest=bytes.fromhex(digest), label=label or "unnamed", scopes=scopes)
        except (ValueError, TypeError, KeyError) as error:
            raise BadInputError("this is no API key's line", advice="make keys with hanse-edge key") from error


def _fields(said: Mapping[str, Any]) -> dict[str, Any]:
    if set(said) != _FIELDS:
        raise ValueError("not the fields of a key")
    fields = {name: value for name, value in said.items() if name != "sha256"}
    return {
        **fields,
        "digest": bytes.fromhex(said["sha256"]),
        "scopes": frozenset(Permission(scope) for scope in said["scopes"]),
        **{name: said[name] and datetime.fromisoformat(said[name]).astimezone(UTC) for name in ("created", "expires")},
    }


def new_secret() -> str:
    """A key as its bearer knows it: 32 characters that may stand in a URL, 192 bits."""
    return secrets.token_urlsafe(_RANDOM_BYTES)


def scopes_of(names: Iterable[str]) -> frozenset[Permission]:
    """What these words mean.

    Raises:
        BadInputError: one of them means nothing.
    """
    try:
        return frozenset(Permission(name) for name in names)
    except ValueError as error:
        raise BadInputError(f"a key is not for that: {error}", advice="--scope query, ingest or admin") from error


def digest(secret: str) -> bytes:
    """What is kept of it."""
    return sha256(secret.encode()).digest()


class KeyFile:
    """The file that holds a site's keys; commands write it while the edge serves."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[ApiKey]:
        """All keys; none where there is no file.

        Raises:
            BadInputError: a line of it is no key.
        """
        try:
            lines = self._path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(f"{self._path} cannot be read: {error}") from error
        return [self._key(number, line) for number, line in enumerate(lines, start=1) if line.strip()]

    def stamp(self) -> tuple[int, int, int] | None:
        """Another one whenever the file is another."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def add(self, key: ApiKey, *, instead: bool = False) -> None:
        """One more.

        Args:
            instead: in the place of any that has its label.

        Raises:
            BadInputError: its label is taken.
        """
        with self._alone():
            keys = self.read()
            others = [known for known in keys if known.label != key.label]
            if len(others) < len(keys) and not instead:
                raise BadInputError(f"there is a key {key.label} already", advice="revoke it, or take another label")
            self._write([*others, key])

    def revoke(self, label: str) -> int:
        """Take out all keys of that label.

        Returns:
            How many there were.

        Raises:
            BadInputError: there is none.
        """
        with self._alone():
            keys = self.read()
            kept = [key for key in keys if key.label != label]
            if len(kept) == len(keys):
                raise BadInputError(f"there is no key {label}", advice="hanse-edge key list says which there are")
            self._write(kept)
        return len(keys) - len(kept)

    def _key(self, number: int, line: str) -> ApiKey:
        try:
            return ApiKey.from_line(line.strip())
        except BadInputError as error:
            raise BadInputError(f"{self._path}, line {number}: {error.line()}") from error

    def _write(self, keys: Iterable[ApiKey]) -> None:
        durable.write(self._path, b"".join(key.to_line() for key in keys), private=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_name(".api-keys.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class Held:
    """A key in use: what it is, and what is left of its rate."""

    __slots__ = ("bucket", "key", "label", "scopes", "until")

    def __init__(self, key: ApiKey, now: float) -> None:
        self.key, self.label, self.scopes = key, key.label, key.scopes
        self.until = key.expires.timestamp() if key.expires else None
        self.bucket = TokenBucket(rate=key.rate, burst=key.burst, now=now) if key.rate is not None else None


class ApiKeys:
    """The keys that open the door. Changes of the file count within a second; limits survive them."""

    def __init__(
        self,
        keys: Iterable[ApiKey],
        *,
        file: KeyFile | None = None,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Hold these.

        Args:
            file: where they are from, for `look_again`.
            clock: seconds since 1970, for keys that expire.
            ticks: seconds that never go back, for rates.
        """
        self._file, self._clock, self._ticks = file, clock, ticks
        self._stamp = file.stamp() if file is not None else None
        self._held: dict[bytes, Held] = {}
        self._hold(keys)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Those of a file.

        Raises:
            BadInputError: there are none, or a line is no key.
        """
        file = KeyFile(path)
        opened = cls([], file=file)  # the stamp before the reading: what changes in between is read again
        opened._hold(file.read())
        if not opened._held:
            raise BadInputError("no API key has been made", advice="hanse-edge key new NAME")
        return opened

    def find(self, secret: bytes) -> Held | None:
        """The key, if it is one of ours and has not expired."""
        if len(secret) > _LONGEST_KEY:
            return None
        held = self._held.get(sha256(secret).digest())
        if held is None or (held.until is not None and held.until <= self._clock()):
            return None
        return held

    def look_again(self) -> None:
        """Take in what the file says now, if it is another. A file with a fault in it changes nothing."""
        stamp = self._file.stamp() if self._file is not None else None
        if self._file is None or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._hold(self._file.read())
        except FederationError as error:
            _log.error("the API keys stay as they were", why=error.line())

    def _hold(self, keys: Iterable[ApiKey]) -> None:
        now, before = self._ticks(), self._held
        fresh = {key.digest: Held(key, now) for key in keys}
        self._held = {
            found: before[found] if found in before and before[found].key == held.key else held
            for found, held in fresh.items()
        }
