"""TUF metadata over MQTT: python-tuf's client, with a fetcher that reads retained messages instead of HTTP (SPEC 9.6).

What can be read is bounded: each role's metadata by a length, each reading by a time.
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)

# tuf re-exports its public names without saying so to type checkers.
from tuf.api.metadata import Metadata, Root, TargetFile, Targets  # type: ignore[attr-defined]
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig  # type: ignore[attr-defined]

from edge import durable
from edge.releases.assembly import disk_errors
from edge.releases.connection import Connection
from edge.releases.content_keys import ContentKeys
from edge.releases.retained import Pace
from protocol.errors import (
    BadSignatureError,
    ExpiredReleaseError,
    MalformedMessageError,
    RollbackError,
    UnavailableError,
    UntrustedError,
    UntrustedReleaseError,
)
from protocol.release import ROLES, is_target, parse_target
from protocol.sealing import OVERHEAD_BYTES, ContentKey, decrypt
from protocol.topics import Topics

BOUNDS = UpdaterConfig(
    root_max_length=512_000, timestamp_max_length=16_384, snapshot_max_length=65_536, targets_max_length=2_000_000
)

_ROOT = "root.json"
_NO_SUCH_ROOT = 404
_ERA = "x-hanse-era"


class RetainedFetcher(FetcherInterface):
    """Hands python-tuf what is retained at a topic; its "URLs" are our topics. Nothing is read without a bound."""

    def __init__(self, connection: Connection, *, topics: Topics, keys: ContentKeys, pace: Pace) -> None:
        self._connection = connection
        self._topics = topics
        self._keys = keys
        self._pace = pace
        self._newest_root: tuple[int, bytes] | None = None

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """What is retained at a topic, decrypted; roots are plain.

        Raises:
            UnavailableError: nothing is there, or it does not come in time.
            UntrustedError: encrypted under a key that this edge has not got, or changed on the way.
            UntrustedReleaseError: longer than allowed.
            DownloadHTTPError: there is no such root.
        """
        version = url.removeprefix(self._topics.tuf("")).removesuffix(f".{_ROOT}")
        if version.isdigit():
            return self._root(int(version), url, max_length)
        return self.read(url, max_length)[0]

    def read(self, topic: str, max_length: int) -> tuple[bytes, ContentKey]:
        """One encrypted file, and the key that it was encrypted under; see `download_bytes`."""
        data = self._retained(topic, max_length + OVERHEAD_BYTES)
        key = self._keys.of(data, seconds=self._pace.silence) or self._keys.newest
        if key is None:
            raise UntrustedError(f"{topic} is encrypted, and this edge holds no content key")
        return decrypt(data, key=key, topic=topic), key

    def _fetch(self, url: str) -> Iterator[bytes]:
        return iter([self.download_bytes(url, BOUNDS.targets_max_length)])

    def _root(self, version: int, topic: str, max_length: int) -> bytes:
        # On a broker "nothing there" and "not yet arrived" look alike, so root.json says which versions can exist.
        # It is only a hint: python-tuf checks the signatures of each root on the way.
        if self._newest_root is None:
            data = self._retained(self._topics.tuf(_ROOT), max_length)
            self._newest_root = (_root_version(data), data)
        newest, data = self._newest_root
        if version > newest:
            raise DownloadHTTPError(f"root {version} does not exist", _NO_SUCH_ROOT)
        return data if version == newest else self._retained(topic, max_length)

    def _retained(self, topic: str, limit: int) -> bytes:
        with closing(self._connection.read([topic], pace=self._pace, limit=limit)) as messages:
            return next(messages)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What verified metadata list.

    Attributes:
        targets: name -> each target of ours that counts, and when the role that lists it expires, UTC.
        era: how often the key of role `releases` was replaced, as the offline key says; numbers count within one.
    """

    targets: Mapping[str, tuple[TargetFile, datetime]]
    era: int


def read_targets(folder: Path, *, base: str, fetcher: FetcherInterface, root: bytes) -> Listing:
    """Refresh the metadata.

    A role's file says which names there are. Whether a name counts is python-tuf's to say: it asks the role that the
    offline key has given the name's place to, so that no role speaks for another's.

    Args:
        folder: for what was seen before, which protects from rollback.
        base: what all topics of metadata begin with.
        root: the first root that is trusted.

    Raises:
        RepositoryError: python-tuf's, and its DownloadError.
        FederationError: the fetcher's.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("tmp*"):  # python-tuf was killed while it wrote
        path.unlink()
    updater = Updater(str(folder), base, fetcher=fetcher, config=BOUNDS, bootstrap=root)
    updater.refresh()
    found = _listed(updater, folder)
    files = list(folder.glob("*.json"))
    with ThreadPoolExecutor(len(files)) as hands:  # together they wait for the disk once
        list(hands.map(_flush, files))
    durable.flush_directory(folder)
    return found


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _listed(updater: Updater, metadata: Path) -> Listing:
    top = Metadata[Targets].from_file(str(metadata / "targets.json")).signed
    found: dict[str, tuple[TargetFile, datetime]] = {}
    for role, places in ROLES.items():
        probe = f"{places[0]}/0.json"  # no target of ours is called so: looking for it loads and checks the role
        answering = [name for name, _ in top.delegations.get_roles_for_target(probe)] if top.delegations else []
        if answering != [role]:
            raise UntrustedReleaseError(f"the release metadata do not say who signs for {places[0]}")
        updater.get_targetinfo(probe)
        listing = Metadata[Targets].from_file(str(metadata / f"{role}.json")).signed
        for name in filter(is_target, listing.targets):
            target = updater.get_targetinfo(name)
            if target is not None and parse_target(name)[0] in places:
                found[name] = (target, min(top.expires, listing.expires))
    era = top.unrecognized_fields.get(_ERA, 1)
    if type(era) is not int or era < 1:
        raise UntrustedReleaseError(f"the release metadata are of era {era!r}")
    return Listing(targets=found, era=era)


def _root_version(data: bytes) -> int:
    try:
        root: Metadata[Any] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise MalformedMessageError("what is published as TUF root is none") from error
    if not isinstance(root.signed, Root):
        raise MalformedMessageError("what is published as TUF root is none")
    return root.signed.version


@contextmanager
def our_words() -> Iterator[None]:
    """Say python-tuf's errors in ours."""
    try:
        with disk_errors("cannot store the release metadata"):
            yield
    except DownloadLengthMismatchError as error:
        raise UntrustedReleaseError(f"longer than signed metadata allow: {error}") from error
    except DownloadError as error:
        raise UnavailableError(f"release metadata cannot be read: {error}") from error
    except ExpiredMetadataError as error:
        raise ExpiredReleaseError(
            f"the release metadata have expired: {error}", advice="check this machine's clock, then the center"
        ) from error
    except BadVersionNumberError as error:
        raise RollbackError(f"older or mixed release metadata: {error}") from error
    except (UnsignedMetadataError, LengthOrHashMismatchError) as error:
        raise BadSignatureError(f"the release metadata are not signed as they must be: {error}") from error
    except RepositoryError as error:
        raise UntrustedReleaseError(f"the release metadata cannot be used: {error}") from error
